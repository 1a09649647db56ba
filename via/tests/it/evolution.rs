//! Versions of events and states, by the names the prelude gives.

use maud::html;
use via::prelude::*;
use via_backplane::CodecId;

use crate::support::Tab;

#[derive(Serialize, Deserialize, Event)]
#[event(name = "shop.ordered", version = 1, codec = "json")]
struct OrderedV1 {
    item: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(name = "shop.ordered", version = 2, upcast = OrderedV1)]
struct Ordered {
    item: String,
    quantity: u64,
}

impl From<OrderedV1> for Ordered {
    fn from(OrderedV1 { item }: OrderedV1) -> Self {
        Self { item, quantity: 1 }
    }
}

#[derive(Debug, PartialEq, Default, Clone, Serialize, Deserialize)]
struct Orders {
    quantity: u64,
    last: String,
}

impl From<u64> for Orders {
    fn from(quantity: u64) -> Self {
        Self { quantity, last: String::new() }
    }
}

// The attribute of a fold, and below it the one of a component's field: one name, told apart by where it stands.
#[state(version = 2, migrate(1 = u64))]
impl Fold<Orders> for Ordered {
    fn fold(self, orders: &mut Orders, _at: &Recorded) {
        orders.quantity += self.quantity;
        orders.last = self.item;
    }
}

#[derive(State)]
struct Shop {
    #[state(key = "shop.orders")]
    orders: StateAppEvents<Ordered, Orders>,
}

#[derive(Serialize, Deserialize)]
enum Act {
    Order,
}

impl Component for Shop {
    type Action = Act;

    async fn act(&self, cx: &Cx, Act::Order: Act) -> via::Result<()> {
        self.orders.append(cx, Ordered { item: "tea".into(), quantity: 2 }).await?;
        Ok(())
    }
}

impl Page for Shop {
    fn view(&self, cx: &View) -> Html {
        html! { p { "ordered: " (self.orders.read(cx).quantity) } button data-on:click=(cx.on(self, Act::Order)) {} }
    }
}

#[tokio::test]
async fn an_app_has_versions_of_events_and_of_states() {
    let app = App::new().page::<Shop>("/").start().await.expect("the app starts");
    let tab = Tab::open(&app.router(), "/").await;
    assert!(tab.html.contains("ordered: 0"), "{}", tab.html);

    let old = Ordered::decode(1, CodecId::JSON, br#"{"item":"tea"}"#);
    assert_eq!(old.expect("version 1 is read").quantity, 1);
    assert_eq!(<Ordered as Fold<Orders>>::STATE_VERSION, 2);
    let three = Orders { quantity: 3, last: String::new() };
    let migrated = <Ordered as Fold<Orders>>::migrate(1, CodecId::MESSAGE_PACK, b"\x03");
    assert_eq!(migrated.expect("version 1 is migrated"), three);
}
