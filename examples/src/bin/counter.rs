//! One counter, shared by everybody who has the page open.
//!
//! `cargo run --bin counter`, open the printed address in two windows, and click.

use via::prelude::*;

/// What can happen to the counter. Every one is kept; the total is what they add up to.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "counter.counted", version = 1)]
struct Counted {
    by: i64,
}

/// Pure: the same events in the same order give the same total on every pod.
impl Fold<i64> for Counted {
    fn fold(self, total: &mut i64, _at: &Recorded) {
        *total = total.saturating_add(self.by);
    }
}

#[derive(State)]
struct Counter {
    total: StateAppEvents<Counted, i64>,
}

/// What the page can be asked to do. Each button carries one of these, signed.
#[derive(Serialize, Deserialize)]
enum Act {
    Count { by: i64 },
}

impl Component for Counter {
    type Action = Act;

    async fn act(&self, cx: &Cx, action: Act) -> via::Result<()> {
        match action {
            Act::Count { by } => self.total.append(cx, Counted { by }).await?,
        };
        Ok(())
    }
}

impl Page for Counter {
    fn title(&self) -> String {
        "Counter".into()
    }

    fn view(&self, cx: &View) -> Html {
        html! {
            main {
                h1 { "Counter" }
                output id="total" aria-live="polite" { (self.total.text(cx)) }
                div class="buttons" {
                    button id="down" aria-label="One less" data-on:click=(cx.on(self, Act::Count { by: -1 })) { "−" }
                    button id="up" aria-label="One more" data-on:click=(cx.on(self, Act::Count { by: 1 })) { "+" }
                }
                p { "Open this page in a second window: both show the same." }
            }
        }
    }
}

#[tokio::main]
async fn main() -> via::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let addr = std::env::var("VIA_ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    App::new().page::<Counter>("/").stylesheet(include_str!("../../styles/counter.css")).serve(addr).await
}
