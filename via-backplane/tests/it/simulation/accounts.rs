//! Accounting for every operation: what was answered against what is stored.

use std::collections::BTreeMap;

use super::{
    facts::{Tag, Tally},
    history::{History, Op, Outcome, Target},
    log::Record,
};

/// Acknowledged appends are in the log once, whole and in place; refused ones are not; of the others nobody knows, but
/// they are there once at most, and whole.
pub(crate) fn of_logs(history: &History, logs: [&Vec<Record>; 3]) -> Vec<String> {
    let mut found: BTreeMap<Tag, Vec<(usize, &Record)>> = BTreeMap::new();
    for record in logs.into_iter().flat_map(|records| records.iter().enumerate()) {
        found.entry(record.1.tag).or_default().push(record);
    }
    let mut violations = Vec::new();
    for (op, number) in history.ops.iter().zip(0..) {
        let Target::Log(keys) = &op.target else { continue };
        let tag = |index| Tag { op: number, index };
        let places: Vec<_> =
            (0..).zip(keys).map(|(index, _)| found.remove(&tag(index)).unwrap_or_default()).collect();
        if let Err(why) = of_an_append(op, keys, op.binding(history), &places) {
            violations.push(format!("{} {number}: {why}", op.what));
        }
    }
    violations.extend(found.keys().map(|tag| format!("nobody appended {tag:?}")));
    violations.extend(order_of_clients(history));
    violations
}

fn of_an_append(
    op: &Op,
    keys: &[via_backplane::Key],
    outcome: &Outcome,
    places: &[Vec<(usize, &Record)>],
) -> Result<(), String> {
    if places.iter().any(|places| places.len() > 1) {
        return Err(format!("is in the log more than once: {places:?}"));
    }
    let records: Vec<_> = places.iter().filter_map(|places| places.first().copied()).collect();
    if matches!(outcome, Outcome::Refused(_)) && !records.is_empty() {
        return Err(format!("{outcome}, and is in the log: {records:?}"));
    }
    if matches!(outcome, Outcome::Done(_)) && records.is_empty() {
        return Err(format!("was acknowledged {outcome}, and is lost"));
    }
    if records.is_empty() {
        return Ok(());
    }
    if records.len() < keys.len() {
        return Err(format!("is in the log in part: {records:?}"));
    }
    if !records.is_sorted_by(|(one, _), (next, _)| one + 1 == *next) {
        return Err(format!("is not adjacent: {records:?}"));
    }
    if records.iter().zip(keys).any(|((_, record), key)| record.key != *key) {
        return Err(format!("went to other keys: {records:?}"));
    }
    let (_, last) = records.last().expect("there is at least one");
    match &op.outcome {
        Some(Outcome::Done(Some(position)))
            if matches!(outcome, Outcome::Done(_))
                && (position.cursor.offset != last.offset || position.cursor.id.0 != last.id.0) =>
        {
            Err(format!("stands at {last:?}, not at {position:?}"))
        }
        _ => Ok(()),
    }
}

/// What one client appended one after the other stands in that order.
fn order_of_clients(history: &History) -> Vec<String> {
    let mut last = BTreeMap::new();
    let mut violations = Vec::new();
    for (op, number) in history.ops.iter().zip(0..) {
        let Outcome::Done(Some(position)) = op.binding(history) else { continue };
        let before = last.insert((op.client, position.key.family()), (number, position.cursor.offset));
        if let Some((before, offset)) = before.filter(|(_, offset)| *offset >= position.cursor.offset) {
            violations.push(format!(
                "client {} appended {number} at {} after {before} at {offset}",
                op.client, position.cursor.offset
            ));
        }
    }
    violations
}

/// Acknowledged updates are in the cell once, refused ones are not, and no update is in it twice.
pub(crate) fn of_a_tally(history: &History, name: &str, tally: &Tally) -> Vec<String> {
    let mut counts = BTreeMap::<u32, usize>::new();
    for op in &tally.ops {
        *counts.entry(*op).or_default() += 1;
    }
    let mut violations = Vec::new();
    if tally.total as usize != tally.ops.len() {
        violations.push(format!("{name} counts {} and lists {}", tally.total, tally.ops.len()));
    }
    for (op, number) in history.ops.iter().zip(0..) {
        if !matches!(&op.target, Target::Tally(of) if *of == name) {
            continue;
        }
        let times = counts.remove(&number).unwrap_or_default();
        let allowed = match op.binding(history) {
            Outcome::Done(_) => 1..=1,
            Outcome::Refused(_) => 0..=0,
            Outcome::Unknown => 0..=1,
        };
        if !allowed.contains(&times) {
            violations.push(format!("update {number} of {name} is in it {times} times: {:?}", op.outcome));
        }
    }
    violations.extend(counts.keys().map(|op| format!("nobody made update {op} of {name}")));
    violations
}

/// The theme is one that was set, and none that was set and acknowledged before another was begun.
pub(crate) fn of_the_theme(history: &History, theme: u32) -> Option<String> {
    let settings = || history.ops.iter().filter(|op| matches!(op.target, Target::Theme));
    let is_done = |op: &&Op| matches!(op.binding(history), Outcome::Done(_));
    // 0 is the default, and may also be an operation's number.
    let setting = history.ops.get(theme as usize).filter(|op| matches!(op.target, Target::Theme));
    let Some(setting) = setting else {
        let lost = settings().find(is_done)?;
        return Some(format!("the theme is {theme}, and was set to another one: {lost:?}"));
    };
    if matches!(setting.binding(history), Outcome::Refused(_)) {
        return Some(format!("the theme is {theme}, which was refused: {setting:?}"));
    }
    // A write that nobody knows of may land late; one that is done has landed.
    let ended = setting.ended.filter(|_| is_done(&setting))?;
    let later = settings().filter(is_done).find(|op| op.began > ended)?;
    Some(format!("the theme is {theme}, and was set again later: {later:?}"))
}
