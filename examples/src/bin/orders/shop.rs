//! The page: what was ordered, what became of it, and what was given up.

use std::time::Duration;

use via::prelude::*;
use via_backplane::{DeadLetter, Epoch, EventId, Head, Offset, Which};

use crate::ship;

/// The side effect's name, to all pods and for as long as there are orders.
const SHIP: &str = "ship";
/// How many orders the page shows.
const SHOWN: usize = 100;
const MAX_ARTICLE: usize = 80;

/// What can happen to an order. Whatever does is in one log: nobody sees an order shipped that was not placed.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "orders.happened", version = 1)]
pub(crate) enum Happened {
    Placed {
        article: String,
    },
    /// The order is the event that placed it.
    Shipped {
        order: EventId,
    },
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    id: EventId,
    article: String,
    is_shipped: bool,
}

pub(crate) type Orders = Vec<Order>;

/// Pure: the same events in the same order give the same orders on every pod.
impl Fold<Orders> for Happened {
    fn fold(self, orders: &mut Orders, at: &Recorded) {
        match self {
            Self::Placed { article } => {
                orders.push(Order { id: at.id(), article, is_shipped: false });
                let excess = orders.len().saturating_sub(SHOWN);
                orders.drain(..excess);
            }
            Self::Shipped { order } => {
                // One that is not shown any more is shipped all the same.
                let shown = orders.iter_mut().find(|shown| shown.id == order);
                shown.into_iter().for_each(|shown| shown.is_shipped = true);
            }
        }
    }
}

#[derive(State)]
pub(crate) struct Shop {
    orders: StateAppEvents<Happened, Orders>,
    article: Signal<String>,
}

/// What the page can be asked to do. Each button carries one of these, signed.
#[derive(Serialize, Deserialize)]
pub(crate) enum Act {
    Place,
    /// Has one dead letter handled again: the one whose event stands here.
    Redrive {
        epoch: u128,
        offset: Offset,
    },
    RedriveAll,
    Repair,
}

impl Component for Shop {
    type Action = Act;

    fn setup(&self, setup: &mut Setup<'_>) {
        let orders = self.orders.events().clone();
        setup
            .on_event(SHIP, &self.orders, move |delivery| ship::ship(delivery, orders.clone()))
            .max_attempts(5)
            .retry_backoff(Duration::from_millis(100), Duration::from_secs(1))
            // Short, because an endpoint that answers does so in milliseconds, and nothing is shipped meanwhile.
            .handler_timeout(Duration::from_secs(1))
            // Short, because somebody who has killed a pod wants to see what happens.
            .lease(Duration::from_secs(5));
    }

    async fn act(&self, cx: &Cx, action: Act) -> via::Result<()> {
        match action {
            Act::Place => {
                let article = article(&self.article.take(cx)?)?;
                self.orders.append(cx, Happened::Placed { article }).await?;
            }
            Act::Redrive { epoch, offset } => {
                self.redrive(Which::One(Head { epoch: Epoch(epoch), offset })).await?;
            }
            Act::RedriveAll => self.redrive(Which::All).await?,
            Act::Repair => {
                ship::repair().await.map_err(|_| via::reject("The endpoint does not answer."))?;
                cx.notice("The endpoint ships everything now.");
            }
        }
        Ok(())
    }
}

/// What was typed, trimmed: never empty, never longer than the page shows.
fn article(typed: &str) -> via::Result<String> {
    match typed.trim() {
        "" => Err(via::reject("Say what you want first.")),
        long if long.chars().count() > MAX_ARTICLE => {
            Err(via::reject(format!("Keep it under {MAX_ARTICLE} characters.")))
        }
        article => Ok(article.to_owned()),
    }
}

impl Shop {
    async fn redrive(&self, which: Which) -> via::Result<()> {
        self.orders.events().dead_letters(SHIP)?.redrive(which).await?;
        Ok(())
    }

    fn letter(&self, cx: &View, letter: &DeadLetter) -> Html {
        let Head { epoch: Epoch(epoch), offset } = letter.at;
        let article = match letter.event() {
            Ok(Happened::Placed { article }) => article,
            Ok(Happened::Shipped { .. }) | Err(_) => format!("event {offset}"),
        };
        html! {
            li {
                strong { (article) }
                span { (letter.attempts) " attempts: " (letter.cause) }
                @if letter.is_wanted {
                    em { "tried again" }
                } @else {
                    button data-on:click=(cx.on(self, Act::Redrive { epoch, offset })) { "Redrive" }
                }
            }
        }
    }
}

/// What became of an order: what is folded says whether it was shipped, the dead letters whether anybody still tries.
fn state(order: &Order, letters: &[DeadLetter]) -> &'static str {
    let letter = letters.iter().find(|letter| letter.id == Some(order.id));
    match letter {
        _ if order.is_shipped => "shipped",
        Some(letter) if !letter.is_wanted => "given up",
        _ => "on its way",
    }
}

impl Page for Shop {
    fn title(&self) -> String {
        "Orders".into()
    }

    fn view(&self, cx: &View) -> Html {
        let orders = self.orders.read(cx);
        let letters = self.orders.dead_letters(cx, SHIP);
        html! {
            main {
                header {
                    h1 { "Orders" }
                    a href={ "http://" (ship::endpoint()) "/ledger" } { "The endpoint's ledger" }
                    button id="repair" data-on:click=(cx.on(self, Act::Repair)) { "Repair the endpoint" }
                }
                // A form, so that Enter orders.
                form data-on:submit=(cx.on(self, Act::Place)) {
                    input id="article" data-bind=(self.article.key()) maxlength=(MAX_ARTICLE) placeholder="a kettle, or a broken vase" aria-label="Article" autocomplete="off";
                    button id="place" { "Order" }
                }
                @if !letters.is_empty() {
                    section id="letters" {
                        header {
                            h2 { "Given up" }
                            button id="redrive-all" data-on:click=(cx.on(self, Act::RedriveAll)) { "Redrive all" }
                        }
                        ul { @for letter in &letters { (self.letter(cx, letter)) } }
                    }
                }
                ol id="orders" {
                    @for order in orders.iter().rev() {
                        @let state = state(order, &letters);
                        li data-state=(state) { strong { (order.article) } span { (state) } }
                    }
                    @if orders.is_empty() {
                        li class="quiet" { "Nobody has ordered anything yet." }
                    }
                }
            }
        }
    }
}
