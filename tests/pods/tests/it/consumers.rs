//! Who runs a consumer when pods are killed, stand still, leave or race, and what is delivered then.

use std::time::{Duration, Instant};

use nats_servers::{Config, Proxy, Server};
use pods::{Consuming, Life};

use crate::{
    ledger::{Ledger, Line},
    process::Pod,
};

/// How long an owner that is gone keeps others from taking over, where a test waits for that.
const SHORT_MS: u64 = 3_000;
/// A lease that no pod loses for being slow.
const LONG_MS: u64 = 60_000;
/// A lease that nobody outlives: whoever takes over has been told.
const ENDLESS_MS: u64 = 3_600_000;
/// Longer than any test.
const NEVER_MS: u64 = 3_600_000;
/// How long a server stays away at least: whoever does something again and again has done it often by then.
const AWAY: Duration = Duration::from_secs(4);

/// A server, and what pods do on it.
struct Scene {
    server: Server,
    ledger: Ledger,
    /// What was appended, in the order of the log.
    appended: Vec<(u64, String)>,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start(Config::new()).expect("a server");
        Self { server, ledger: Ledger::new(), appended: Vec::new() }
    }

    /// Starts a pod, which compacts whenever it may: what is not handled is kept all the same.
    fn begin(&self, name: &'static str, url: String) -> Pod {
        let life = Life { url, snapshot_interval: 4, compaction_grace_ms: 100 };
        Pod::begin(&life, self.ledger.page(name))
    }

    /// A pod that runs no consumer.
    fn bystander(&self, name: &'static str) -> Pod {
        let mut pod = self.begin(name, self.server.url());
        pod.is_ready();
        pod
    }

    /// A pod that runs the consumer, or stands by to.
    fn pod(&self, name: &'static str, how: Consuming) -> Pod {
        self.pod_at(name, self.server.url(), how)
    }

    fn pod_at(&self, name: &'static str, url: String, how: Consuming) -> Pod {
        let mut pod = self.begin(name, url);
        pod.is_ready();
        pod.consume(how);
        pod
    }

    fn note(&mut self, by: &mut Pod, text: &str) -> u64 {
        let offset = by.note(text);
        self.appended.push((offset, text.to_owned()));
        offset
    }

    /// Waits until the owner has committed everything, and asserts that nothing was left out or mixed up, and that `others` own nothing.
    fn ends(&mut self, owner: &mut Pod, others: &mut [&mut Pod]) {
        let (last, text) = self.appended.last().expect("something was appended").clone();
        owner.commits(last);
        let stored = owner.consumer();
        assert!(stored.is_owned_here, "{stored:?}");
        assert_eq!((stored.committed, stored.head), (last, last), "`{text}` is the last");
        for other in others {
            let seen = other.consumer();
            assert!(!seen.is_owned_here && seen.owner == stored.owner, "{seen:?} and {stored:?}");
        }
        self.ledger.is_sound(&self.appended);
    }
}

fn lease(ms: u64) -> Consuming {
    Consuming { lease_ms: ms, commit_every: None, held: Vec::new() }
}

fn holding(ms: u64, held: &str) -> Consuming {
    Consuming { held: vec![held.to_owned()], ..lease(ms) }
}

#[test]
fn what_is_appended_after_its_owner_was_killed_is_handled_by_the_next() {
    let mut scene = Scene::new();
    let mut one = scene.pod("one", lease(SHORT_MS));
    assert_eq!(one.owns(), 1);
    let mut two = scene.bystander("two");
    let handled = scene.note(&mut two, "handled");
    one.commits(handled);
    two.consume(lease(SHORT_MS));
    one.kill();
    scene.note(&mut two, "after");
    scene.note(&mut two, "and on");
    scene.ledger.handled("two", "and on");
    scene.ends(&mut two, &mut []);
    assert_eq!(scene.ledger.deliveries_of("handled"), [("one", 1, 1)]);
    // Nobody knows that it was not begun.
    assert_eq!(scene.ledger.deliveries_of("after"), [("two", 2, 2)]);
    assert_eq!(scene.ledger.deliveries_of("and on"), [("two", 2, 1)]);
    two.leave();
}

#[test]
fn an_event_whose_owner_is_killed_while_it_is_handled_is_delivered_again() {
    let mut scene = Scene::new();
    let mut one = scene.pod("one", holding(SHORT_MS, "during"));
    assert_eq!(one.owns(), 1);
    let mut two = scene.bystander("two");
    let before = scene.note(&mut two, "before");
    one.commits(before);
    scene.note(&mut two, "during");
    scene.note(&mut two, "behind");
    let first = scene.ledger.delivered("one", "during");
    two.consume(lease(SHORT_MS));
    one.kill();
    let again = scene.ledger.handled("two", "during");
    assert_eq!((again.id, again.offset), (first.id, first.offset));
    scene.ledger.handled("two", "behind");
    scene.ends(&mut two, &mut []);
    assert_eq!(scene.ledger.deliveries_of("before"), [("one", 1, 1)]);
    assert_eq!(scene.ledger.deliveries_of("during"), [("one", 1, 1), ("two", 2, 2)]);
    assert_eq!(scene.ledger.deliveries_of("behind"), [("two", 2, 1)], "it was not begun");
    two.leave();
}

#[test]
fn an_event_whose_owner_is_killed_before_it_has_committed_it_is_delivered_again() {
    let mut scene = Scene::new();
    let link = Proxy::start(scene.server.addr()).expect("a proxy");
    let rarely = Consuming { commit_every: Some((1_000, NEVER_MS)), ..holding(SHORT_MS, "handled") };
    let mut one = scene.pod_at("one", link.url(), rarely);
    assert_eq!(one.owns(), 1);
    let mut two = scene.bystander("two");
    scene.note(&mut two, "handled");
    scene.ledger.delivered("one", "handled");
    // What renews the lease would commit as well.
    link.interrupt();
    one.let_go("handled");
    let first = scene.ledger.handled("one", "handled");
    two.consume(lease(SHORT_MS));
    one.kill();
    scene.note(&mut two, "next");
    let again = scene.ledger.handled("two", "handled");
    assert_eq!((again.id, again.offset), (first.id, first.offset));
    scene.ledger.handled("two", "next");
    scene.ends(&mut two, &mut []);
    assert_eq!(scene.ledger.deliveries_of("handled"), [("one", 1, 1), ("two", 2, 2)]);
    assert_eq!(scene.ledger.deliveries_of("next"), [("two", 2, 1)]);
    two.leave();
}

/// Has one pod after the other own the consumer while events come, and each of them end, or stand still, in the middle of them.
fn owners_follow_each_other(ends: impl Fn(Pod, &mut Pod)) {
    const PODS: [(&str, &str); 4] = [("a", "a/15"), ("b", "b/15"), ("c", "c/15"), ("d", "")];
    let mut scene = Scene::new();
    let mut writer = scene.bystander("writer");
    let [(name, held), others @ ..] = PODS;
    let (mut name, mut owner) = (name, scene.pod(name, holding(SHORT_MS, held)));
    for (term, (next_name, held)) in (1..).zip(others) {
        assert_eq!(owner.owns(), term);
        let mut next = scene.bystander(next_name);
        for number in 0..20 {
            scene.note(&mut writer, &format!("{name}/{number}"));
        }
        // Those before it are handled, and some of them committed; those behind it are not begun.
        scene.ledger.delivered(name, &format!("{name}/15"));
        next.consume(holding(SHORT_MS, held));
        ends(owner, &mut next);
        (name, owner) = (next_name, next);
    }
    scene.note(&mut writer, "last");
    scene.ledger.handled(name, "last");
    scene.ends(&mut owner, &mut [&mut writer]);
    for (term, (name, held)) in (1..).zip(&PODS[..3]) {
        let deliveries = scene.ledger.deliveries_of(held);
        let (next, _) = PODS[usize::try_from(term).expect("there are four")];
        assert_eq!(deliveries[0], (*name, term, 1));
        assert!(
            matches!(deliveries[1], (pod, after, _) if pod == next && after == term + 1),
            "{deliveries:?}"
        );
        assert_eq!(scene.ledger.deliveries_of(&format!("{name}/19")), [(next, term + 1, 1)]);
    }
    owner.leave();
    writer.leave();
}

#[test]
fn owners_that_are_killed_one_after_the_other_skip_nothing() {
    owners_follow_each_other(|owner, _| owner.kill());
}

#[test]
fn owners_that_stand_still_one_after_the_other_skip_nothing_and_mix_nothing_up() {
    owners_follow_each_other(|mut owner, next| {
        owner.process.pause().expect("it runs");
        next.owns();
        owner.process.resume().expect("it is there");
        owner.stands_by();
        owner.leave();
    });
}

#[test]
fn an_owner_that_stood_still_in_a_handler_is_deposed_and_begins_nothing_more() {
    let mut scene = Scene::new();
    let mut one = scene.pod("one", holding(SHORT_MS, "in flight"));
    assert_eq!(one.owns(), 1);
    let mut two = scene.bystander("two");
    let before = scene.note(&mut two, "before");
    one.commits(before);
    scene.note(&mut two, "in flight");
    scene.note(&mut two, "behind");
    scene.ledger.delivered("one", "in flight");
    two.consume(holding(SHORT_MS, "in flight"));
    one.process.pause().expect("it runs");
    scene.ledger.delivered("two", "in flight");
    // Two pods have the same event in hand, under different terms.
    one.process.resume().expect("it is there");
    one.let_go("in flight");
    one.stands_by();
    let stored = two.consumer();
    assert_eq!((stored.is_owned_here, stored.term, stored.committed), (true, 2, before), "{stored:?}");
    two.let_go("in flight");
    scene.note(&mut one, "by the one that stood still");
    scene.ledger.handled("two", "by the one that stood still");
    scene.ends(&mut two, &mut [&mut one]);
    assert_eq!(scene.ledger.deliveries_of("in flight"), [("one", 1, 1), ("two", 2, 2)]);
    assert_eq!(scene.ledger.deliveries_of("behind"), [("two", 2, 1)]);
    // It takes over as any other does.
    two.leave();
    scene.note(&mut one, "last");
    assert_eq!((one.owns(), scene.ledger.handled("one", "last").term), (3, 3));
    scene.ends(&mut one, &mut []);
    one.leave();
}

#[test]
fn what_an_owner_had_handled_before_it_stood_still_it_does_not_commit_afterwards() {
    let mut scene = Scene::new();
    let link = Proxy::start(scene.server.addr()).expect("a proxy");
    let mut one = scene.pod_at("one", link.url(), holding(SHORT_MS, "in flight"));
    assert_eq!(one.owns(), 1);
    let mut two = scene.bystander("two");
    let before = scene.note(&mut two, "before");
    one.commits(before);
    scene.note(&mut two, "in flight");
    scene.ledger.delivered("one", "in flight");
    // Its commit is all that is left to do when it runs on.
    link.interrupt();
    one.let_go("in flight");
    scene.ledger.handled("one", "in flight");
    two.consume(holding(SHORT_MS, "in flight"));
    one.process.pause().expect("it runs");
    scene.ledger.delivered("two", "in flight");
    scene.note(&mut two, "behind");
    link.restore().expect("its port is free");
    one.process.resume().expect("it is there");
    one.stands_by();
    let stored = two.consumer();
    assert_eq!((stored.is_owned_here, stored.term, stored.committed), (true, 2, before), "{stored:?}");
    two.let_go("in flight");
    scene.ledger.handled("two", "behind");
    scene.ends(&mut two, &mut [&mut one]);
    assert_eq!(scene.ledger.deliveries_of("in flight"), [("one", 1, 1), ("two", 2, 2)]);
    assert_eq!(scene.ledger.deliveries_of("behind"), [("two", 2, 1)]);
    one.leave();
    two.leave();
}

#[test]
fn a_pod_that_leaves_hands_over_without_waiting_for_a_lease() {
    let mut scene = Scene::new();
    let mut writer = scene.bystander("writer");
    let mut one = scene.pod("one", holding(ENDLESS_MS, "in flight"));
    assert_eq!(one.owns(), 1);
    let two = scene.pod("two", lease(ENDLESS_MS));
    let three = scene.pod("three", lease(ENDLESS_MS));
    scene.note(&mut writer, "in flight");
    scene.note(&mut writer, "behind");
    scene.ledger.delivered("one", "in flight");
    one.leave();
    let next = |lines: &[Line]| lines.iter().find(|line| line.of.text == "behind").map(|line| line.pod);
    let next = scene.ledger.until("`behind` is delivered", next);
    let (second, mut third, last) = if next == "two" { (two, three, "three") } else { (three, two, "two") };
    assert_eq!(scene.ledger.deliveries_of("in flight"), [("one", 1, 1)], "what was begun has ended");
    assert_eq!(scene.ledger.deliveries_of("behind"), [(next, 2, 1)]);
    // Also the one that was too late to take it hears of it.
    second.leave();
    scene.note(&mut writer, "last");
    scene.ledger.handled(last, "last");
    scene.ends(&mut third, &mut [&mut writer]);
    assert_eq!(scene.ledger.deliveries_of("behind"), [(next, 2, 1)]);
    assert_eq!(scene.ledger.deliveries_of("last"), [(last, 3, 1)]);
    third.leave();
    writer.leave();
}

#[test]
fn of_pods_that_start_at_once_one_is_given_every_event_once() {
    let mut scene = Scene::new();
    let names = ["one", "two", "three", "four"];
    let mut pods = names.map(|name| scene.begin(name, scene.server.url()));
    pods.iter_mut().for_each(Pod::is_ready);
    pods.iter_mut().for_each(|pod| pod.begin_to_consume(lease(LONG_MS)));
    pods.iter_mut().for_each(Pod::consumes);
    for number in 0..25 {
        for (pod, name) in pods.iter_mut().zip(names) {
            scene.note(pod, &format!("{name}/{number}"));
        }
    }
    let last = scene.appended.last().expect("there are many").1.clone();
    let owner = |lines: &[Line]| lines.iter().find(|line| line.of.text == last).map(|line| line.pod);
    let owner = scene.ledger.until("the last one is delivered", owner);
    let at = names.iter().position(|name| *name == owner).expect("it is one of them");
    pods.swap(0, at);
    let [owning, others @ ..] = &mut pods;
    scene.ends(owning, &mut others.iter_mut().collect::<Vec<_>>());
    let deliveries = scene.ledger.deliveries();
    assert_eq!(deliveries.len(), scene.appended.len(), "none comes twice");
    assert!(deliveries.iter().all(|line| (line.of.term, line.of.attempt) == (1, 1)), "{deliveries:#?}");
    pods.into_iter().for_each(Pod::leave);
}

#[test]
fn a_server_that_is_killed_while_a_handler_runs_has_it_run_once() {
    let mut scene = Scene::new();
    let held = vec!["held for longer".to_owned(), "ended meanwhile".to_owned()];
    let mut one = scene.pod("one", Consuming { held, ..lease(ENDLESS_MS) });
    assert_eq!(one.owns(), 1);
    let mut two = scene.pod("two", lease(ENDLESS_MS));
    for text in ["held for longer", "ended meanwhile"] {
        scene.note(&mut two, text);
        let behind = format!("behind `{text}`");
        scene.note(&mut two, &behind);
        scene.ledger.delivered("one", text);
        scene.server.kill();
        if text == "ended meanwhile" {
            one.let_go(text);
            scene.ledger.handled("one", text);
        }
        let begun = Instant::now();
        while begun.elapsed() < AWAY {
            one.try_consumer().expect_err("nobody answers");
            two.try_consumer().expect_err("nobody answers");
        }
        scene.server.restart().expect("it starts again");
        one.let_go(text);
        scene.ledger.handled("one", &behind);
    }
    scene.ends(&mut one, &mut [&mut two]);
    // Who stood by through all of this hears of it when it is its turn.
    one.leave();
    scene.note(&mut two, "last");
    assert_eq!(scene.ledger.handled("two", "last").term, 2);
    scene.ends(&mut two, &mut []);
    let deliveries = scene.ledger.deliveries();
    assert_eq!(deliveries.len(), scene.appended.len(), "none comes twice: {deliveries:#?}");
    assert!(deliveries.iter().all(|line| line.of.attempt == 1), "{deliveries:#?}");
    two.leave();
}
