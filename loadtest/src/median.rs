//! The middle of several runs.

/// The median; of an even number, the upper one.
///
/// # Panics
/// If there is no value, or one is not a number.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("a measurement is a number"));
    values[values.len() / 2]
}
