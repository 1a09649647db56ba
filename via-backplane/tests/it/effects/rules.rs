//! What PROTOCOL §5 has an owner do is needed: over enough seeds, a run without it breaks an invariant.
//!
//! What it has a contender do is shown where leases are (`engine/consumer/lease/tests.rs`).

use via_backplane::Rules;

use super::world::{self, Setup};

/// The seeds among which a run without a rule has to break.
const SEEDS: u64 = 60;

fn is_needed(off: Rules, breaks: &str) {
    assert_ne!(off, Rules::ALL, "one rule is switched off");
    let broken = (0..SEEDS).find_map(|seed| {
        let violations = world::run(Setup { seed, rules: off, succeeds: false }).violations;
        violations.into_iter().find(|violation| violation.contains(breaks))
    });
    assert!(broken.is_some(), "without the rule, no run of {SEEDS} says `{breaks}`");
}

#[test]
fn section_5_an_owner_begins_nothing_late_in_its_lease() {
    is_needed(Rules { begin_within_lease: false, ..Rules::ALL }, "began something");
}
