//! What a client does: operations drawn from its chance, with gaps in between.

use std::{fmt, sync::Arc, time::Duration};

use rand::{RngExt as _, rngs::SmallRng};
use tokio::time::{sleep, timeout};
use via_backplane::{AppendId, AppendOptions, BoxError, Cell, Events, Position, Waited};

use super::{
    chance,
    facts::{Book, Deed, Fact, Noted, Tag, Tally, Traded},
    history::{Outcome, Target},
    pod::{Handle, Name, States},
    world::{CLIENTS, World},
};

/// One client of one pod. It does one thing at a time.
pub(crate) struct Client {
    world: Arc<World>,
    states: Arc<States>,
    pod: Name,
    number: usize,
    rng: SmallRng,
}

impl Client {
    pub(crate) fn new(world: Arc<World>, states: Arc<States>, pod: Name, number: usize) -> Self {
        let purpose = [6, pod.index as u64, pod.life, number as u64];
        let rng = chance::stream(world.setup.seed, &purpose);
        Self { world, states, pod, number, rng }
    }

    /// The client's number among those of all pods; it is the same in each life of its pod.
    fn global(&self) -> usize {
        self.pod.index * CLIENTS + self.number
    }

    pub(crate) async fn run(mut self) -> Result<(), BoxError> {
        while self.world.take_operation(self.global()) {
            if self.rng.random_bool(0.8) {
                sleep(Duration::from_millis(self.rng.random_range(0..40))).await;
            }
            self.operate().await;
        }
        self.world.client_is_done(self.global());
        Ok(())
    }

    async fn operate(&mut self) {
        self.world.history.lock().attempted += 1;
        match self.rng.random_range(0..100) {
            0..15 => self.append().await,
            15..22 => self.append_with_id().await,
            22..25 => self.append_an_id_again().await,
            25..33 => self.append_batch().await,
            33..39 => self.append_across().await,
            39..42 => self.append_at_a_head().await,
            42..54 => self.take_items().await,
            54..60 => self.claim().await,
            60..63 => {
                let stock = self.stock();
                self.restock(stock).await;
            }
            63..73 => self.count(self.states.tally.clone(), "tally").await,
            73..76 => self.count(self.states.late_tally(), "late").await,
            76..80 => self.set_theme().await,
            80..88 => self.read().await,
            88..92 => self.hold_a_view().await,
            92..97 => self.wait_for_a_position().await,
            _ => self.wait_for_a_change().await,
        }
    }

    async fn append(&mut self) {
        let notes = self.notes();
        self.append_to(notes).await;
    }

    pub(crate) async fn append_to(&mut self, notes: Handle<Noted>) {
        let op = self.begin("append", Target::Log(vec![notes.key().clone()]));
        let outcome = notes.append(Noted { tag: Tag { op, index: 0 } }).await;
        self.end(op, Outcome::of_append(&outcome));
        if let Ok(position) = outcome
            && self.rng.random_bool(0.3)
        {
            self.wait_for(&notes, &position).await;
        }
    }

    async fn append_with_id(&mut self) {
        let notes = self.notes();
        let op = self.begin("append with id", Target::Log(vec![notes.key().clone()]));
        let outcome = notes.append_with(Noted { tag: Tag { op, index: 0 } }, with_id(op)).await;
        self.end(op, Outcome::of_append(&outcome));
    }

    /// A repeat answers where the first append stands, whoever repeats it.
    async fn append_an_id_again(&mut self) {
        let Some((op, first)) = self.some_position(Some("append with id")) else { return };
        let Some(notes) = self.states.notes.iter().find(|notes| *notes.key() == first.key) else { return };
        let again = notes.append_with(Noted { tag: Tag { op, index: 0 } }, with_id(op)).await;
        self.trace(format!("append {op} again: {}", Outcome::of_append(&again)));
        let was_replaced = self.world.history.lock().was_replaced(Some(first.key.family()));
        if let Ok(again) = again
            && again != first
            && !was_replaced
        {
            self.violation(format!("append {op} stood at {first:?} and, repeated, at {again:?}"));
        }
    }

    async fn append_batch(&mut self) {
        let notes = self.notes();
        let count = self.rng.random_range(2..6);
        let op = self.begin("append batch", Target::Log(vec![notes.key().clone(); count as usize]));
        let outcome = notes.append_batch((0..count).map(|index| Noted { tag: Tag { op, index } })).await;
        self.end(op, Outcome::of_append(&outcome));
    }

    async fn append_across(&mut self) {
        let count = self.rng.random_range(2..5);
        // All but the last are of one family.
        let of_one = self.states.notes.len() - 1;
        let picked: Vec<_> =
            (0..count).map(|_| self.states.notes[self.rng.random_range(0..of_one)].clone()).collect();
        let keys = picked.iter().map(|notes| notes.key().clone()).collect();
        let op = self.begin("append across", Target::Log(keys));
        let options = if self.rng.random_bool(0.5) { with_id(op) } else { AppendOptions::default() };
        let events =
            picked.into_iter().zip(0..).map(|(notes, index)| (notes, Noted { tag: Tag { op, index } }));
        let outcome = Events::append_across(events, options).await;
        let outcome = outcome.map(|positions| positions.last().expect("one for each event").clone());
        self.end(op, Outcome::of_append(&outcome));
    }

    async fn append_at_a_head(&mut self) {
        let notes = self.notes();
        let Some(view) = notes.read() else { return };
        let head = view.key_head();
        let last = view.lines().last().map(|line| line.offset).unwrap_or_default();
        if head.offset != last {
            self.violation(format!("a view that ends with {last} says its key's head is {head:?}"));
        }
        drop(view);
        let op = self.begin("append at a head", Target::Log(vec![notes.key().clone()]));
        let options = AppendOptions::default().expect_head(head);
        let outcome = notes.append_with(Noted { tag: Tag { op, index: 0 } }, options).await;
        self.end(op, Outcome::of_append(&outcome));
    }

    async fn take_items(&mut self) {
        let stock = self.stock();
        let items = self.rng.random_range(1..4);
        let parts = self.rng.random_range(1..3);
        let op = self.begin("take", Target::Log(vec![stock.key().clone(); parts as usize]));
        let outcome = stock
            .decide(|stock| match stock.left {
                0 => Ok(Vec::new()),
                left if left < items * i64::from(parts) => Err("sold out"),
                _ => Ok((0..parts)
                    .map(|index| Traded { tag: Tag { op, index }, deed: Deed::Taken(items) })
                    .collect()),
            })
            .await;
        self.end(op, Outcome::of_decision(&outcome));
    }

    async fn claim(&mut self) {
        let stock = self.stock();
        let name = self.rng.random_range(0..12);
        let op = self.begin("claim", Target::Log(vec![stock.key().clone()]));
        let outcome = stock
            .decide(|stock| match stock.claimed.get(&name) {
                Some(_) => Err("claimed"),
                None => Ok(vec![Traded { tag: Tag { op, index: 0 }, deed: Deed::Claimed(name) }]),
            })
            .await;
        self.end(op, Outcome::of_decision(&outcome));
    }

    pub(crate) async fn restock(&mut self, stock: Handle<Traded>) {
        let op = self.begin("restock", Target::Log(vec![stock.key().clone()]));
        let deed = Deed::Restocked(self.rng.random_range(1..4));
        let outcome = stock.append(Traded { tag: Tag { op, index: 0 }, deed }).await;
        self.end(op, Outcome::of_append(&outcome));
    }

    async fn count(&mut self, tally: Cell<Tally>, name: &'static str) {
        let op = self.begin("update", Target::Tally(name));
        let may_refuse = self.rng.random_bool(0.1);
        let outcome = tally
            .update(|tally| {
                if may_refuse && tally.total % 2 == 0 {
                    return Err("even");
                }
                tally.total += 1;
                tally.ops.push(op);
                Ok(())
            })
            .await;
        self.end(op, Outcome::of_update(&outcome));
        let replaced = self.world.history.lock().was_replaced(None);
        if outcome.is_ok() && !replaced && !tally.read().is_some_and(|tally| tally.ops.contains(&op)) {
            self.violation(format!("update {op} of {name} returned and is not read"));
        }
    }

    async fn set_theme(&mut self) {
        let op = self.begin("set", Target::Theme);
        let outcome = self.states.theme.set(op).await;
        self.end(op, Outcome::of_update(&outcome));
    }

    async fn read(&mut self) {
        match self.rng.random_range(0..3) {
            0 => {
                let notes = self.notes();
                self.read_book(&notes);
            }
            1 => {
                let stock = self.stock();
                self.read_book(&stock);
            }
            _ => {
                self.read_tally(&self.states.tally, "tally");
                self.read_tally(&self.states.late_tally(), "late");
            }
        }
    }

    /// Readers of one pod never go back, unless the log itself did.
    fn read_book<E: Fact>(&self, handle: &Handle<E>) {
        let Some(view) = handle.read() else { return self.trace(format!("read {}: cold", handle.key())) };
        let last = view.lines().last().map_or(0, |line| line.offset.0);
        let now = (view.version(), view.lines().len(), last);
        self.trace(format!("read {}: {now:?}", handle.key()));
        let before = self.states.seen.lock().books.insert(handle.key().to_string(), now).unwrap_or_default();
        let replaced = self.world.history.lock().was_replaced(Some(handle.key().family()));
        if now.0 < before.0 || (now.1 < before.1 || now.2 < before.2) && !replaced {
            self.violation(format!("a reader of {} went back from {before:?} to {now:?}", handle.key()));
        }
        if !view.lines().is_sorted_by(|one, next| one.offset < next.offset) {
            self.violation(format!("{} was folded out of order: {:?}", handle.key(), view.lines()));
        }
    }

    fn read_tally(&self, cell: &Cell<Tally>, name: &str) {
        let Some(view) = cell.read() else { return self.trace(format!("read {name}: cold")) };
        let now = (view.version(), view.ops.len());
        self.trace(format!("read {name}: {now:?}"));
        let before = self.states.seen.lock().cells.insert(name.to_owned(), now).unwrap_or_default();
        let replaced = self.world.history.lock().was_replaced(None);
        if now.0 < before.0 || now.1 < before.1 && !replaced {
            self.violation(format!("a reader of {name} went back from {before:?} to {now:?}"));
        }
    }

    /// A value that is held does not change, whatever is folded meanwhile.
    async fn hold_a_view(&mut self) {
        let notes = self.notes();
        let Some(view) = notes.read() else { return };
        let before = (view.version(), view.lines().to_vec());
        sleep(Duration::from_millis(self.rng.random_range(0..300))).await;
        self.trace(format!("held {} at {}", notes.key(), before.0));
        if before != (view.version(), view.lines().to_vec()) {
            self.violation(format!("a held view of {} changed", notes.key()));
        }
    }

    async fn wait_for_a_position(&mut self) {
        let Some((_, position)) = self.some_position(None) else { return };
        let notes = self.states.notes.iter().find(|notes| *notes.key() == position.key).cloned();
        let stock = self.states.stocks.iter().find(|stock| *stock.key() == position.key).cloned();
        match (notes, stock) {
            (Some(notes), _) => self.wait_for(&notes, &position).await,
            (_, Some(stock)) => self.wait_for(&stock, &position).await,
            _ => {}
        }
    }

    /// `Reached` means that the read shows it.
    async fn wait_for<E: Fact>(&mut self, handle: &Handle<E>, position: &Position) {
        let family = position.key.family();
        let at_most = Duration::from_millis(self.rng.random_range(100..2_000));
        let _turn = self.states.turn_to_wait(family.as_str()).lock().await;
        // A value nobody watches may be let go in the moment after.
        let _watched = handle.changes();
        let waited = handle.wait_for(position, at_most).await;
        self.trace(format!("wait for {} at {}: {waited:?}", position.key, position.cursor.offset));
        let is_it = |line: &super::facts::Line| {
            line.offset == position.cursor.offset && line.id.0 == position.cursor.id.0
        };
        let replaced = self.world.history.lock().was_replaced(Some(family));
        match waited {
            Waited::Reached if !handle.read().is_some_and(|view| view.lines().iter().any(is_it)) => {
                let shown = handle.read().map(|view| (view.version(), view.lines().len(), view.key_head()));
                let covered = handle.covered().offset;
                self.violation(format!("{position:?} is reached and not read: {shown:?}, covered {covered}"));
            }
            Waited::Halted if !self.world.may_halt(family) => {
                self.violation(format!("{} halted", position.key))
            }
            Waited::EpochChanged if !replaced => {
                self.violation(format!("{} changed its epoch", position.key));
            }
            _ => {}
        }
    }

    /// Only of keys nobody decides on: a decision waits for the same `watch`.
    async fn wait_for_a_change(&mut self) {
        let notes = self.notes();
        let _turn = self.states.turn_to_wait(notes.key().family().as_str()).lock().await;
        let Some(seen) = notes.read().map(|view| view.version()) else { return };
        let changed = timeout(Duration::from_millis(500), notes.changes().above(seen)).await.is_ok();
        self.trace(format!("wait for {} above {seen}: {changed}", notes.key()));
        if changed && notes.read().is_some_and(|view| view.version() <= seen) {
            self.violation(format!("{} changed and the read does not", notes.key()));
        }
    }

    fn notes(&mut self) -> Handle<Noted> {
        self.states.notes[self.rng.random_range(0..self.states.notes.len())].clone()
    }

    fn stock(&mut self) -> Handle<Traded> {
        self.states.stocks[self.rng.random_range(0..self.states.stocks.len())].clone()
    }

    /// Where something stands that was appended, by whomever; one of the last few, or any.
    fn some_position(&mut self, what: Option<&str>) -> Option<(u32, Position)> {
        let history = self.world.history.lock();
        let done = history.ops.iter().enumerate().rev().filter_map(|(number, op)| match &op.outcome {
            Some(Outcome::Done(Some(position))) if what.is_none_or(|what| op.what == what) => {
                Some((number as u32, position.clone()))
            }
            _ => None,
        });
        let last: Vec<_> = done.take(20).collect();
        (!last.is_empty()).then(|| last[self.rng.random_range(0..last.len())].clone())
    }

    fn begin(&self, what: &'static str, target: Target) -> u32 {
        self.world.history.lock().begin(self.global(), what, target)
    }

    fn end(&self, op: u32, outcome: Outcome) {
        let mut history = self.world.history.lock();
        self.world.trace(self, format!("{} {op}: {outcome}", history.ops[op as usize].what));
        history.end(op, outcome);
    }

    fn trace(&self, what: impl fmt::Display) {
        self.world.trace(self, what);
    }

    fn violation(&self, what: String) {
        self.world.violation(format!("{self}: {what}"));
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} client {}", self.pod, self.number)
    }
}

fn with_id(op: u32) -> AppendOptions {
    AppendOptions::default().id(AppendId::new(format!("op-{op}")).expect("a short id"))
}
