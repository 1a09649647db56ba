//! Side effects that components set up.

use std::{sync::OnceLock, time::Duration};

use maud::html;
use tokio::sync::watch;
use via::prelude::*;
use via_inmem::InMemory;

use crate::support::Tab;

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "test.placed")]
struct Placed {
    article: String,
}

impl Fold<u64> for Placed {
    fn fold(self, placed: &mut u64, _at: &Recorded) {
        *placed += 1;
    }
}

/// What was shipped, by all apps of this process.
fn shipped() -> &'static watch::Sender<Vec<String>> {
    static SHIPPED: OnceLock<watch::Sender<Vec<String>>> = OnceLock::new();
    SHIPPED.get_or_init(watch::Sender::default)
}

async fn ship(order: Delivery<Placed>) -> Result<(), std::io::Error> {
    shipped().send_modify(|shipped| shipped.push(order.event.article));
    Ok(())
}

async fn bill(_: Delivery<Placed>) -> Result<(), std::io::Error> {
    Ok(())
}

#[derive(State)]
struct Shop {
    orders: StateAppEvents<Placed, u64>,
}

#[derive(Serialize, Deserialize)]
struct Order;

impl Component for Shop {
    type Action = Order;

    fn setup(&self, setup: &mut Setup<'_>) {
        setup.on_event("ship", &self.orders, ship).max_attempts(3).lease(Duration::from_secs(5));
    }

    async fn act(&self, cx: &Cx, _: Order) -> via::Result<()> {
        self.orders.append(cx, Placed { article: "a kettle".into() }).await?;
        Ok(())
    }
}

impl Page for Shop {
    fn view(&self, cx: &View) -> Html {
        html! { button data-on:click=(cx.on(self, Order)) { "Order" } }
    }
}

/// The same state, with another effect under the same name.
#[derive(State)]
struct Office {
    orders: StateAppEvents<Placed, u64>,
}

impl Component for Office {
    type Action = ();

    fn setup(&self, setup: &mut Setup<'_>) {
        setup.on_event("ship", &self.orders, bill);
    }

    async fn act(&self, _cx: &Cx, (): ()) -> via::Result<()> {
        Ok(())
    }
}

impl Page for Office {
    fn view(&self, _cx: &View) -> Html {
        html! { p { "no orders" } }
    }
}

#[tokio::test]
async fn a_click_has_its_effect_once_though_the_component_is_mounted_twice() {
    let app = App::new().with_backplane(InMemory::new()).page::<Shop>("/").page::<Shop>("/again");
    let app = app.start().await.expect("the app starts");
    let mut follow = shipped().subscribe();
    let tab = Tab::open(&app.router(), "/").await;
    tab.click(0).await;
    let reached = follow.wait_for(|shipped| !shipped.is_empty());
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await.expect("it is shipped");
    assert_eq!(*reached.expect("the sender lives"), ["a kettle"]);
    app.shutdown().await.expect("no task failed");
    assert_eq!(*shipped().borrow(), ["a kettle"]);
}

#[tokio::test]
async fn two_effects_of_one_name_keep_the_app_from_starting() {
    let error = App::new().page::<Shop>("/").page::<Office>("/office").start().await.expect_err("one name");
    let text = error.to_string();
    assert!(text.contains("`ship`") && text.contains("::ship") && text.contains("::bill"), "{text}");
}
