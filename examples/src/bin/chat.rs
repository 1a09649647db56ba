//! A live chat: one room, the last 50 lines, as many people as have the page open.
//!
//! `cargo run --release --bin chat`, open the printed address in two windows, and talk to yourself.
//! `VIA_ADDR` says where it listens, 127.0.0.1:3000 unless set. `VIA_BACKPLANE` says where the room lives: `memory`, which it
//! does unless set, or `nats://…`, where any number of pods serve one room. `cargo xtask cluster` runs three.

use via::prelude::*;

/// How many lines a room shows.
const LINES: usize = 50;
const MAX_NAME: usize = 40;
const MAX_BODY: usize = 500;

/// What can happen in the room.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "chat.posted", version = 1)]
struct Posted {
    from: String,
    body: String,
}

/// Pure: the same events in the same order give the same lines on every pod.
impl Fold<Vec<Posted>> for Posted {
    fn fold(self, lines: &mut Vec<Posted>, _at: &Recorded) {
        lines.push(self);
        let excess = lines.len().saturating_sub(LINES);
        lines.drain(..excess);
    }
}

#[derive(State)]
struct Room {
    /// Shared by everyone, on every pod.
    posts: StateAppEvents<Posted, Vec<Posted>>,
    /// These two live in the browser, and are typed here.
    name: Signal<String>,
    draft: Signal<String>,
}

/// What the room can be asked to do. The form carries it, signed.
#[derive(Serialize, Deserialize)]
enum Act {
    Send,
}

impl Component for Room {
    type Action = Act;

    async fn act(&self, cx: &Cx, action: Act) -> via::Result<()> {
        match action {
            Act::Send => {
                let from = line(self.name.get(cx)?, MAX_NAME, "Say who you are first.")?;
                let body = line(self.draft.take(cx)?, MAX_BODY, "Write something first.")?;
                self.posts.append(cx, Posted { from, body }).await?;
            }
        }
        Ok(())
    }
}

/// What was typed, trimmed: never empty, never longer than the room shows.
fn line(typed: String, max: usize, if_empty: &str) -> via::Result<String> {
    let text = typed.trim();
    if text.is_empty() {
        return Err(via::reject(if_empty));
    }
    if text.chars().count() > max {
        return Err(via::reject(format!("Keep it under {max} characters.")));
    }
    Ok(text.to_owned())
}

impl Page for Room {
    fn title(&self) -> String {
        "Chat".into()
    }

    fn view(&self, cx: &View) -> Html {
        let posts = self.posts.read(cx);
        html! {
            main {
                header {
                    h1 { "Chat" }
                    label { "You are " input id="name" data-bind=(self.name.key()) maxlength=(MAX_NAME) placeholder="your name" autocomplete="nickname"; }
                }
                div class="lines" {
                    ol id="lines" role="log" aria-label="Messages" {
                        @for post in posts.iter() {
                            li { strong { (post.from) } " " span { (post.body) } }
                        }
                        @if posts.is_empty() {
                            li class="quiet" { "Nobody has said anything yet." }
                        }
                    }
                }
                // A form, so that Enter sends.
                form data-on:submit=(cx.on(self, Act::Send)) {
                    input id="draft" data-bind=(self.draft.key()) maxlength=(MAX_BODY) placeholder="Say something" aria-label="Message" autocomplete="off";
                    button id="send" { "Send" }
                }
            }
        }
    }
}

#[tokio::main]
async fn main() -> via::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let addr = std::env::var("VIA_ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    App::new()
        .with_backplane(examples::backplane::from_env().await?)
        .with_prometheus()
        .page::<Room>("/")
        .stylesheet(include_str!("../../styles/chat.css"))
        .serve(addr)
        .await
}
