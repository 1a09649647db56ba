//! A control cell under races, lost answers, lagging loads, loss and another log.

use super::{
    super::{
        bench::Bench,
        map_store::{Counting, Fault, MapStore},
    },
    *,
};
use crate::{Key, Store as _, engine::owned_cell::Owned as _};

fn family() -> Family {
    Family::new("rooms").expect("a valid name")
}

fn at(epoch: u128, offset: u64) -> Head {
    Head { epoch: Epoch(epoch), offset: Offset(offset) }
}

fn pin(epoch: u128, offset: u64) -> Pin {
    Pin { epoch: Epoch(epoch), offset: Offset(offset) }
}

fn control(bench: Bench, seed: u64) -> (Arc<Bench>, Control) {
    let bench = Arc::new(bench);
    (bench.clone(), Control::new(bench, Arc::new(Counting::from(seed)), family()))
}

/// A pod, and its control cell.
fn fresh() -> (Arc<Bench>, Control) {
    control(Bench::new(MapStore::new()), 0)
}

/// Another pod on the same cells and log.
fn another(bench: &Bench, seed: u64) -> (Arc<Bench>, Control) {
    control(bench.another(|store| store), seed)
}

/// What is stored, seen by a pod of its own: epoch and ceiling, and the pins.
async fn stored(bench: &Bench) -> Option<(Head, Vec<(String, Pin)>)> {
    let (_, control) = another(bench, 9);
    let ceiling = control.ceiling().await.expect("readable")?;
    let pins = control.pins().await.expect("readable");
    Some((ceiling, pins.into_iter().map(|(name, _, pin)| (name, pin)).collect()))
}

fn floor(bench: &Bench, floor: u64) {
    bench.log.set_floor(&Key::of(&family()), floor);
}

#[tokio::test]
async fn a_registration_pins_the_ceiling_until_it_is_forgotten() {
    let (_bench, control) = fresh();
    assert_eq!(control.ceiling().await.expect("loaded"), None);
    let pinned = control.register("ship", None, at(1, 20)).await.expect("registered");
    assert_eq!(pinned, Registered::Pinned(pin(1, 20)));
    assert_eq!(control.raise(at(1, 90)).await.expect("raised").ceiling.offset, Offset(20));
    assert_eq!(control.advance("ship", at(1, 50)).await.expect("moved"), Moved::Pinned(pin(1, 50)));
    assert_eq!(control.raise(at(1, 90)).await.expect("raised").ceiling.offset, Offset(50));
    assert!(control.forget("ship").await.expect("forgotten"));
    assert!(!control.forget("ship").await.expect("nobody there"));
    assert_eq!(control.raise(at(1, 90)).await.expect("raised").ceiling.offset, Offset(90));
    assert_eq!(
        control.raise(at(1, 40)).await.expect("kept").ceiling.offset,
        Offset(90),
        "a ceiling never falls"
    );
    assert_eq!(control.ceiling().await.expect("loaded"), Some(at(1, 90)));
}

#[tokio::test]
async fn a_name_that_is_registered_keeps_its_pin() {
    let (bench, control) = fresh();
    control.register("ship", None, at(1, 20)).await.expect("registered");
    for other in [5, 20, 70] {
        let again = control.register("ship", None, at(1, other)).await.expect("registered");
        assert_eq!(again, Registered::Pinned(pin(1, 20)));
    }
    control.register("bill", None, at(1, 30)).await.expect("registered");
    let (_, pins) = stored(&bench).await.expect("a cell");
    assert_eq!(pins, [("bill".to_owned(), pin(1, 30)), ("ship".to_owned(), pin(1, 20))], "by name");
}

#[tokio::test]
async fn a_pin_moves_on_and_never_back_but_by_a_seek() {
    let (bench, control) = fresh();
    control.register("ship", None, at(1, 20)).await.expect("registered");
    control.advance("ship", at(1, 50)).await.expect("moved");
    assert_eq!(control.advance("ship", at(1, 30)).await.expect("kept"), Moved::Pinned(pin(1, 50)));
    assert_eq!(control.move_to("ship", at(1, 30)).await.expect("moved"), Moved::Pinned(pin(1, 30)));
    assert_eq!(stored(&bench).await.expect("a cell").1[0].1, pin(1, 30));
    for nobody in [control.advance("bill", at(1, 50)).await, control.move_to("bill", at(1, 50)).await] {
        assert_eq!(nobody.expect("answered"), Moved::Unregistered);
    }
}

#[tokio::test]
async fn starting_or_seeking_below_the_ceiling_is_refused_naming_the_lowest_offset() {
    let (bench, control) = fresh();
    control.register("ship", None, at(1, 60)).await.expect("registered");
    control.raise(at(1, 60)).await.expect("raised");
    let before = stored(&bench).await;
    let lowest = Offset(60);
    let late = control.register("bill", None, at(1, 59)).await.expect("answered");
    assert_eq!(late, Registered::BelowCeiling { lowest });
    let back = control.move_to("ship", at(1, 59)).await.expect("answered");
    assert_eq!(back, Moved::BelowCeiling { lowest });
    assert_eq!(stored(&bench).await, before, "nothing was written");
    let lowest = control.register("bill", None, at(1, 60)).await.expect("answered");
    assert_eq!(lowest, Registered::Pinned(pin(1, 60)), "what was named is possible");
}

#[tokio::test]
async fn the_registry_is_bounded_and_names_are_too() {
    let (bench, control) = fresh();
    let mut cell = ControlCell::new(Epoch(1), Offset::BEGIN, 7);
    for n in 0..MAX_CONSUMERS {
        cell.set_pin(&format!("consumer-{n}"), Offset(7));
    }
    let put =
        owned_cell::put_at(&bench.store, &Counting::from(3), &control.key, Expected::Absent, cell).await;
    assert!(matches!(put, Ok(Put::Written(_))), "{put:?}");
    let full = control.register("one more", None, at(1, 7)).await;
    assert!(matches!(full, Err(ControlError::Full { .. })), "{full:?}");
    control.register("consumer-5", None, at(1, 7)).await.expect("it has its place");
    control.forget("consumer-5").await.expect("forgotten");
    control.register("one more", None, at(1, 7)).await.expect("there is room");
    for name in [String::new(), "x".repeat(MAX_CONSUMER_BYTES + 1)] {
        let refused = control.register(&name, None, at(1, 7)).await;
        assert!(matches!(refused, Err(ControlError::InvalidName(_))), "{refused:?}");
    }
}

/// What one pod does to a cell while another does something else.
#[derive(Debug, Clone)]
enum Deed {
    Register(u64),
    Advance(u64),
    MoveTo(u64),
    Forget,
    Raise(u64),
    Confirm(Announced),
}

impl Deed {
    async fn done(&self, control: &Control, epoch: u128) -> Result<String, ControlError> {
        Ok(match self {
            Self::Register(to) => format!("{:?}", control.register("ship", None, at(epoch, *to)).await?),
            Self::Advance(to) => format!("{:?}", control.advance("ship", at(epoch, *to)).await?),
            Self::MoveTo(to) => format!("{:?}", control.move_to("ship", at(epoch, *to)).await?),
            Self::Forget => format!("{:?}", control.forget("ship").await?),
            Self::Raise(to) => format!("{:?}", control.raise(at(epoch, *to)).await?.ceiling.offset),
            Self::Confirm(announced) => format!("{:?}", control.confirm(announced).await?),
        })
    }
}

fn assert_no_pin_is_below_the_ceiling(stored: &Option<(Head, Vec<(String, Pin)>)>) {
    let Some((ceiling, pins)) = stored else { return };
    for (name, pin) in pins.iter().filter(|(_, pin)| pin.epoch == ceiling.epoch) {
        assert!(pin.offset >= ceiling.offset, "{name} needs {pin:?}, the ceiling is {ceiling:?}");
    }
}

/// Runs two deeds on two pods, each call of which waits for its turn: of `calls` calls, `schedule` says whose is next, and
/// the rest comes as it likes. Between any two calls, what is stored has to be right.
async fn interleave(
    bench: &Bench,
    (one, two): (&Deed, &Deed),
    calls: u32,
    schedule: u32,
) -> (Result<String, ControlError>, Result<String, ControlError>) {
    let (first, by_first) = control(bench.another(|store| store).by_turns(), 1);
    let (second, by_second) = control(bench.another(|store| store).by_turns(), 2);
    let turns = async {
        for call in 0..calls {
            let next = if schedule >> call & 1 == 0 { &first } else { &second };
            next.give_turns(1);
            // Time is paused: it passes when nobody can go on.
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_no_pin_is_below_the_ceiling(&stored(bench).await);
        }
        first.give_turns(1_000);
        second.give_turns(1_000);
    };
    let (one, two, ()) = tokio::join!(one.done(&by_first, 1), two.done(&by_second, 1), turns);
    (one, two)
}

/// What a deed answered while the ceiling was raised has to be what is stored then.
async fn races_a_raise(bench: &Bench, rival: &Deed, calls: u32, schedule: u32) {
    let (answer, raised) = interleave(bench, (rival, &Deed::Raise(30)), calls, schedule).await;
    let stored = stored(bench).await;
    assert_no_pin_is_below_the_ceiling(&stored);
    let (head, pins) = stored.expect("a raised cell");
    let answer = answer.expect("no fault");
    let said = format!("{rival:?} by {schedule:b}: {answer}, {raised:?}, {head:?}, {pins:?}");
    assert_eq!(raised.expect("no fault"), format!("{:?}", head.offset), "{said}");
    if answer.starts_with("Pinned") {
        assert_eq!(format!("Pinned({:?})", pins[0].1), answer, "{said}");
    } else if answer.starts_with("BelowCeiling") {
        assert_eq!(answer, format!("BelowCeiling {{ lowest: {:?} }}", head.offset), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_interleaving_leaves_a_pin_below_the_ceiling() {
    use Deed::{Advance, Forget, MoveTo, Raise, Register};
    for rival in [Register(5), Advance(40), MoveTo(5), MoveTo(40), Forget] {
        for registered in [false, true] {
            // Each loads and writes, and one of them does both again.
            for schedule in 0..1 << 6 {
                let (bench, control) = fresh();
                control.raise(at(1, 3)).await.expect("raised");
                if registered {
                    control.register("ship", None, at(1, 20)).await.expect("registered");
                }
                races_a_raise(&bench, &rival, 6, schedule).await;
            }
        }
    }
    for rival in [Register(5), Raise(20)] {
        // Nobody has made the cell yet, so the log is asked between loading and writing.
        for schedule in 0..1 << 10 {
            races_a_raise(&fresh().0, &rival, 10, schedule).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_epoch_never_comes_back() {
    // One pod has read the old log and lags; the log is recreated between any two of its calls; the other knows only the new one.
    for recreated_before in 0..6 {
        for schedule in 0..1 << 8 {
            for begun in [false, true] {
                let (bench, control) = fresh();
                if begun {
                    control.raise(at(1, 10)).await.expect("raised");
                }
                let (first, by_first) = self::control(bench.another(|store| store).by_turns(), 1);
                let (second, by_second) = self::control(bench.another(|store| store).by_turns(), 2);
                let turns = async {
                    let mut in_new = None;
                    for call in 0..8 {
                        if call == recreated_before {
                            bench.log.recreate(2, 50);
                        }
                        let next = if schedule >> call & 1 == 0 { &first } else { &second };
                        next.give_turns(1);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        let now = stored(&bench).await.map(|(ceiling, _)| ceiling);
                        let in_new_now =
                            now.filter(|ceiling| ceiling.epoch == Epoch(2)).map(|ceiling| ceiling.offset);
                        assert!(
                            in_new_now >= in_new,
                            "{in_new:?} became {now:?}: {recreated_before}, {schedule:b}"
                        );
                        in_new = in_new_now;
                    }
                    first.give_turns(1_000);
                    second.give_turns(1_000);
                };
                let (old, new, ()) = tokio::join!(
                    by_first.raise(at(1, 80)),
                    async {
                        loop {
                            match by_second.raise(at(2, 40)).await {
                                // The log is still the old one.
                                Err(ControlError::EpochChanged { .. }) => {}
                                answer => return answer,
                            }
                        }
                    },
                    turns
                );
                assert_eq!(new.expect("raised").ceiling, at(2, 40));
                assert!(
                    matches!(
                        old,
                        Ok(Announced { ceiling: Head { offset: Offset(80), .. }, .. })
                            | Err(ControlError::EpochChanged { present: Epoch(2) })
                    ),
                    "{old:?}"
                );
                assert_eq!(stored(&bench).await.expect("a cell").0, at(2, 40));
            }
        }
    }
}

/// A cell at ceiling 10 whose consumer `ship` stands at 20.
async fn begun(script: impl FnOnce(MapStore) -> MapStore) -> (Arc<Bench>, Control, Announced) {
    let bench = Bench::new(MapStore::new());
    let (faulty, by_faulty) = control(bench.another(script), 1);
    let (_, control) = control(bench, 0);
    let announced = control.raise(at(1, 10)).await.expect("raised");
    control.register("ship", None, at(1, 20)).await.expect("registered");
    (faulty, by_faulty, announced)
}

const DEEDS: usize = 7;

/// Everything a pod can do to that cell, and what it is answered.
fn deeds(announced: &Announced) -> [(Deed, &'static str); DEEDS] {
    [
        (Deed::Register(15), "Pinned(Pin { epoch: Epoch(1), offset: Offset(20) })"),
        (Deed::Advance(40), "Pinned(Pin { epoch: Epoch(1), offset: Offset(40) })"),
        (Deed::MoveTo(12), "Pinned(Pin { epoch: Epoch(1), offset: Offset(12) })"),
        (Deed::MoveTo(2), "BelowCeiling { lowest: Offset(10) }"),
        (Deed::Forget, "true"),
        (Deed::Raise(30), "Offset(20)"),
        (Deed::Confirm(announced.clone()), "Some(Pinned({}))"),
    ]
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_at_any_call_changes_no_outcome() {
    for index in 0..DEEDS {
        for fault in [Fault::LoseAck, Fault::LoseRequest] {
            for call in 0..4 {
                let (bench, control, announced) = begun(|store| store.script(call, fault)).await;
                let (deed, expected) = &deeds(&announced)[index];
                let answer = deed.done(&control, 1).await;
                let answer =
                    answer.unwrap_or_else(|error| panic!("{deed:?}, {fault:?} at {call}: {error:?}"));
                assert_eq!(answer, *expected, "{deed:?}, {fault:?} at {call}");
                assert_no_pin_is_below_the_ceiling(&stored(&bench).await);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_any_call_is_told_and_changes_nothing_or_all() {
    for index in 0..DEEDS {
        for call in 0..4 {
            let (bench, control, announced) = begun(|store| store.script(call, Fault::Fail)).await;
            let (deed, expected) = &deeds(&announced)[index];
            let before = stored(&bench).await;
            match deed.done(&control, 1).await {
                Ok(answer) => assert_eq!(answer, *expected, "{deed:?}, failing at {call}"),
                Err(error) => {
                    assert_eq!(error.retry(), Retry::Safe, "{error:?}");
                    assert_eq!(stored(&bench).await, before, "{deed:?}, failing at {call}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lagging_load_changes_no_outcome() {
    for index in 0..DEEDS {
        let (bench, control, announced) = begun(|store| store.script(0, Fault::Lag)).await;
        let (deed, expected) = &deeds(&announced)[index];
        let answer = deed.done(&control, 1).await.expect("no fault");
        match deed {
            // What a load that lags does not know yet is not found; nothing rests on it, and it can be asked again.
            Deed::Advance(_) | Deed::MoveTo(_) => assert_eq!(answer, "Unregistered"),
            Deed::Forget => assert_eq!(answer, "false"),
            _ => assert_eq!(answer, *expected, "{deed:?}"),
        }
        assert_no_pin_is_below_the_ceiling(&stored(&bench).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_only_a_lagging_load_sees_is_not_relied_on() {
    let (bench, control) = fresh();
    control.register("ship", None, at(1, 20)).await.expect("registered");
    control.forget("ship").await.expect("forgotten");
    let (_, lagging) = self::control(bench.another(|store| store.script(0, Fault::Lag)), 1);
    assert_eq!(
        lagging.register("ship", None, at(1, 30)).await.expect("registered"),
        Registered::Pinned(pin(1, 30))
    );
    assert_eq!(stored(&bench).await.expect("a cell").1, [("ship".to_owned(), pin(1, 30))]);
}

#[tokio::test(start_paused = true)]
async fn what_was_overwritten_before_its_answer_is_made_again_but_for_forgetting() {
    for index in 0..DEEDS {
        // The write lands and its answer is lost; before the repeat somebody else writes.
        let script = |store: MapStore| store.script(1, Fault::LoseAck).script(2, Fault::Pause);
        let (bench, control, announced) = begun(script).await;
        let (deed, expected) = &deeds(&announced)[index];
        if matches!(deed, Deed::MoveTo(2)) {
            continue; // It writes nothing.
        }
        let (_, other) = another(&bench, 5);
        let (answer, ()) = tokio::join!(deed.done(&control, 1), async {
            bench.store.paused().await;
            other.register("somebody", None, at(1, 90)).await.expect("registered");
            if matches!(deed, Deed::Forget) {
                other.register("ship", None, at(1, 25)).await.expect("registered again");
            }
            bench.store.resume();
        });
        if matches!(deed, Deed::Forget) {
            let error = answer.expect_err("nobody knows");
            assert_eq!(error.retry(), Retry::MayDuplicate, "{error:?}");
            let (_, pins) = stored(&bench).await.expect("a cell");
            assert!(
                pins.contains(&("ship".to_owned(), pin(1, 25))),
                "who registered since is kept: {pins:?}"
            );
        } else {
            assert_eq!(answer.expect("resolved"), *expected, "{deed:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_cell_of_a_compacted_family_stops_everything() {
    let (bench, control) = fresh();
    control.register("ship", None, at(1, 20)).await.expect("registered");
    let announced = control.raise(at(1, 20)).await.expect("raised");
    floor(&bench, 15);
    bench.store.remove(&control.key);
    for (deed, _) in deeds(&announced) {
        let lost = deed.done(&control, 1).await.expect_err("nobody knows what was announced");
        assert!(matches!(lost, ControlError::Lost { .. }), "{deed:?}: {lost:?}");
        assert!(lost.to_string().contains("engine.rebuild_control(\"rooms\")"), "{lost}");
        assert_eq!(stored(&bench).await, None, "{deed:?} creates nothing");
    }
}

#[tokio::test]
async fn a_rebuilt_cell_announces_everything_that_may_be_gone() {
    let (bench, control) = fresh();
    floor(&bench, 15);
    assert_eq!(control.rebuild().await.expect("rebuilt"), Rebuilt::Anew { ceiling: at(1, 100) });
    bench.log.set_head(200);
    assert_eq!(control.rebuild().await.expect("whole"), Rebuilt::Whole { ceiling: at(1, 100) });
    let refused = control.register("ship", None, at(1, 99)).await.expect("answered");
    assert_eq!(refused, Registered::BelowCeiling { lowest: Offset(100) });
    control.register("ship", None, at(1, 100)).await.expect("registered");
    assert_eq!(
        control.raise(at(1, 150)).await.expect("raised").ceiling.offset,
        Offset(100),
        "compaction goes on"
    );
}

#[tokio::test(start_paused = true)]
async fn rebuilding_replaces_what_is_damaged_and_nothing_that_is_not_known() {
    let (bench, control) = fresh();
    control.register("ship", None, at(1, 20)).await.expect("registered");
    let good = bench.store.bytes(&control.key).expect("stored");
    bench.store.overwrite(&control.key, &b"damaged"[..]);
    let garbled = control.raise(at(1, 30)).await.expect_err("damaged");
    assert!(matches!(garbled, ControlError::Cell(OwnedError::Garbled { .. })), "{garbled:?}");
    assert_eq!(control.rebuild().await.expect("rebuilt"), Rebuilt::Anew { ceiling: at(1, 100) });
    // The layout's number is in front of the digest: a later binary's differs in nothing else here.
    let mut later = good[..good.len() - 18].to_vec();
    *later.last_mut().expect("the layout's number") = ControlCell::FORMAT as u8 + 1;
    let digest = blake3::hash(&later);
    later.extend(b"\x7a\x10");
    later.extend(&digest.as_bytes()[..16]);
    bench.store.overwrite(&control.key, later.clone());
    let newer = control.rebuild().await.expect_err("not known");
    assert!(matches!(newer, ControlError::Cell(OwnedError::Newer { .. })), "{newer:?}");
    assert_eq!(bench.store.bytes(&control.key).expect("kept"), later);
}

#[tokio::test(start_paused = true)]
async fn rebuilding_survives_a_fault_at_any_call() {
    for fault in [Fault::LoseAck, Fault::LoseRequest, Fault::Lag] {
        for call in 0..4 {
            let (bench, control) = control(Bench::new(MapStore::new().script(call, fault)), 0);
            control.rebuild().await.unwrap_or_else(|error| panic!("{fault:?} at {call}: {error:?}"));
            assert_eq!(stored(&bench).await.expect("a cell").0, at(1, 100));
        }
    }
}

#[tokio::test]
async fn another_epoch_begins_at_its_beginning_and_forgets_nobody() {
    let (bench, control) = fresh();
    control.register("ship", None, at(1, 60)).await.expect("registered");
    control.raise(at(1, 50)).await.expect("raised");
    bench.log.recreate(2, 500);
    let late = control.raise(at(1, 60)).await.expect("the cell knows no other epoch yet");
    assert_eq!(late.ceiling, at(1, 60), "and of a log that is gone nothing can be dropped");
    // Where it stood means nothing here, so nothing may be dropped until an operator has moved it.
    assert_eq!(control.raise(at(2, 300)).await.expect("clamped").ceiling.offset, Offset::BEGIN);
    assert_eq!(
        control.register("bill", None, at(2, 0)).await.expect("answered"),
        Registered::Pinned(pin(2, 0))
    );
    assert_eq!(
        control.register("ship", None, at(2, 0)).await.expect("answered"),
        Registered::Pinned(pin(1, 60))
    );
    assert_eq!(control.advance("ship", at(2, 70)).await.expect("answered"), Moved::OtherEpoch(pin(1, 60)));
    let old = control.raise(at(1, 70)).await;
    assert!(matches!(old, Err(ControlError::EpochChanged { present: Epoch(2) })), "{old:?}");
    let (ceiling, pins) = stored(&bench).await.expect("a cell");
    assert_eq!(ceiling, at(2, 0));
    assert_eq!(pins, [("bill".to_owned(), pin(2, 0)), ("ship".to_owned(), pin(1, 60))]);
    assert_eq!(control.move_to("ship", at(2, 200)).await.expect("moved"), Moved::Pinned(pin(2, 200)));
    control.advance("bill", at(2, 150)).await.expect("moved");
    assert_eq!(control.raise(at(2, 300)).await.expect("raised").ceiling.offset, Offset(150));
}

#[tokio::test]
async fn a_log_restored_with_its_floors_counts_as_announced_below_its_head() {
    let (bench, control) = fresh();
    control.raise(at(1, 50)).await.expect("raised");
    bench.log.recreate(2, 80);
    floor(&bench, 40);
    assert_eq!(
        control.register("ship", None, at(2, 79)).await.expect("answered"),
        Registered::BelowCeiling { lowest: Offset(80) }
    );
    assert_eq!(control.raise(at(2, 10)).await.expect("answered").ceiling.offset, Offset(80));
}

#[tokio::test]
async fn only_the_cell_that_announced_it_confirms_a_ceiling() {
    let (bench, control) = fresh();
    let announced = control.raise(at(1, 50)).await.expect("raised");
    let rev = bench.store.load(&control.key).await.expect("loaded").expect("stored").rev;
    assert!(control.confirm(&announced).await.expect("answered").is_some());
    let after = bench.store.load(&control.key).await.expect("loaded").expect("stored").rev;
    assert!(after > rev, "a confirmation is a write");
    control.raise(at(1, 60)).await.expect("raised");
    assert!(control.confirm(&announced).await.expect("answered").is_some(), "and stands under a higher one");
    bench.store.remove(&control.key);
    assert!(
        control.confirm(&announced).await.expect("answered").is_none(),
        "a cell that was lost announces nothing"
    );
    // Another pod has made the cell again and announced as much: just now, while tails may still believe in none.
    control.raise(at(1, 60)).await.expect("raised");
    assert!(control.confirm(&announced).await.expect("answered").is_none(), "it is another cell");
    bench.log.recreate(2, 80);
    control.raise(at(2, 60)).await.expect("raised");
    let changed = control.confirm(&announced).await;
    assert!(matches!(changed, Err(ControlError::EpochChanged { .. })), "{changed:?}");
}

#[tokio::test]
async fn a_backplane_without_a_compactor_has_lost_no_cell() {
    let (bench, control) = control(Bench::new(MapStore::new()).without_compactor(), 0);
    floor(&bench, 15);
    control.register("ship", None, at(1, 0)).await.expect("registered");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_of_an_instance_moves_below_the_ceiling_as_far_back_as_it_keeps() {
    let (_, control) = fresh();
    assert!(matches!(control.register("watch", Some("eu"), at(1, 30)).await, Ok(Registered::Pinned(_))));
    let announced = control.raise(at(1, 80)).await.expect("raised");
    assert_eq!(announced.ceiling, at(1, 80), "it holds nobody else");
    let pinned = control.confirm(&announced).await.expect("answered").expect("it stands");
    assert_eq!((pinned.limit("eu"), pinned.limit("us")), (Offset(30), Offset(u64::MAX)));
    assert!(matches!(control.advance("watch", at(1, 40)).await, Ok(Moved::Pinned(_))), "it moves on");
    let refused = control.move_to("watch", at(1, 39)).await.expect("answered");
    assert_eq!(refused, Moved::BelowCeiling { lowest: Offset(40) });
    assert!(matches!(control.move_to("watch", at(1, 60)).await, Ok(Moved::Pinned(_))));
    let late = control.register("late", Some("eu"), at(1, 70)).await.expect("answered");
    assert_eq!(late, Registered::BelowCeiling { lowest: Offset(80) }, "a new one finds what is announced");
}
