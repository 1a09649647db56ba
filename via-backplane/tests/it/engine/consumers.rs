//! Side effects: on one pod at a time, at least once, in order.

mod deaf;
mod faults;
mod handlers;
mod letters;
mod loudness;
mod operators;
mod owners;
mod rules;
mod slow;
mod spreading;
mod successors;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout};
use via_backplane::{
    Consumer, Delivery, Engine, Event, EventId, Events, Fold, Offset, OnEvent, Recorded, Standing,
};
use via_inmem::InMemory;

use super::{Noted, Notes, noted, notes};

/// Longer than any lease here; time is paused.
const LONG: Duration = Duration::from_secs(3_600);
const LEASE: Duration = Duration::from_secs(20);

/// What handlers were given, on whichever pod.
#[derive(Clone)]
struct Ledger(Arc<watch::Sender<Vec<Line>>>);

/// One delivery.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    pod: &'static str,
    text: String,
    offset: Offset,
    id: EventId,
    attempt: u32,
    term: u64,
}

impl Ledger {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    fn note(&self, pod: &'static str, delivery: &Delivery<Noted>) {
        let Delivery { offset, id, attempt, term, .. } = *delivery;
        let line = Line { pod, text: delivery.event.text.clone(), offset, id, attempt, term };
        self.0.send_modify(|lines| lines.push(line));
    }

    fn lines(&self) -> Vec<Line> {
        self.0.borrow().clone()
    }

    fn texts(&self) -> Vec<String> {
        self.0.borrow().iter().map(|line| line.text.clone()).collect()
    }

    /// Waits until so many deliveries were made.
    async fn holds(&self, lines: usize) -> Vec<Line> {
        let mut follow = self.0.subscribe();
        let reached = follow.wait_for(|now| now.len() >= lines);
        let reached = timeout(LONG, reached).await;
        reached.unwrap_or_else(|_| panic!("{:#?}", self.lines())).expect("the ledger lives").clone()
    }
}

fn pod(memory: &InMemory) -> Engine {
    Engine::builder(Arc::new(memory.clone())).deterministic().start()
}

/// A consumer that writes down what it is given.
fn noting(engine: &Engine, pod: &'static str, ledger: &Ledger) -> OnEvent<Noted> {
    let ledger = ledger.clone();
    notes(engine).on_event("note", move |delivery: Delivery<Noted>| {
        ledger.note(pod, &delivery);
        async { Ok::<_, std::io::Error>(()) }
    })
}

async fn owns(consumer: &Consumer) -> u64 {
    let standing = consumer.stands(|standing| matches!(standing, Standing::Owning { .. }));
    match timeout(LONG, standing).await.expect("it comes to own it") {
        Standing::Owning { term } => term,
        other => panic!("{other:?}"),
    }
}

async fn commits(consumer: &Consumer, offset: Offset) {
    let committed = timeout(LONG, consumer.commits(offset)).await;
    assert!(committed.unwrap_or_else(|_| panic!("{consumer:?}")), "{consumer:?}");
}

async fn append(notes: &Events<Noted, Notes>, text: &str) -> Offset {
    notes.append(noted(text)).await.expect("memory takes every append").cursor.offset
}

/// Stops without a word, as a process does that is killed.
async fn kill(engine: &Engine) {
    engine.supervisor().kill().await;
}

async fn stop(engine: &Engine) {
    engine.shutdown(LONG).await.expect("no task failed");
    assert_eq!(engine.supervisor().tasks(), 0, "{:?}", engine.supervisor().names());
}
