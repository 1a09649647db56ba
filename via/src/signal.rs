//! Values that live in the browser and are typed on the server.

use std::{
    any::type_name,
    collections::HashMap,
    fmt,
    marker::PhantomData,
    num::{IntErrorKind, ParseIntError},
};

use crate::{
    Cx, Result,
    error::{SignalError, SignalProblem},
    state::{Field, Slot},
};

/// A value that lives in the browser: what was typed, chosen or counted there.
///
/// Bind it with `data-bind=(self.draft.key())`. It is seeded with its type's default when the page does not have it
/// yet, and never overwritten by what the server renders. What the browser sends is untrusted: it is decoded strictly,
/// and anything else answers 422 with the field's name before your code goes on.
///
/// `T` is text ([`String`]), a number, or `Option` of a number where empty means `None`. Numbers travel as text,
/// so that a `u64` is exact.
pub struct Signal<T> {
    key: &'static str,
    value: PhantomData<fn() -> T>,
}

impl<T: SignalValue> Signal<T> {
    /// The name of this signal in the browser, for `data-bind` and `$name` expressions.
    #[must_use]
    pub fn key(&self) -> &str {
        self.key
    }

    /// The value the browser sent with the action.
    ///
    /// # Errors
    /// A 422 with a stable code and the field's name if the signal is missing, of another type, out of range, or empty
    /// where a number is needed. Pass it on with `?`.
    pub fn get(&self, cx: &Cx) -> Result<T> {
        Ok(cx.signals().decode(self.key)?)
    }

    /// The value the browser sent; if the action succeeds, the browser goes back to the default.
    ///
    /// The browser does so only if the value is still the one it sent: what was typed meanwhile stays.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn take(&self, cx: &Cx) -> Result<T> {
        let value = self.get(cx)?;
        cx.clear(self.key, T::default().to_text());
        Ok(value)
    }
}

impl<T> fmt::Debug for Signal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({})", self.key)
    }
}

impl<T: SignalValue> Field for Signal<T> {
    fn bind(slot: Slot<'_, '_>) -> Result<Self> {
        let seed = Seed { type_name: type_name::<T>(), place: slot.place, text: T::default().to_text() };
        slot.binder.seeds.add(slot.key, seed)?;
        Ok(Self { key: slot.key, value: PhantomData })
    }
}

/// What a [`Signal`] can hold: text, numbers, and optional numbers.
#[diagnostic::on_unimplemented(
    message = "a signal cannot hold `{Self}`",
    label = "not text and not a number",
    note = "a `Signal` holds `String`, a number, or `Option` of a number; other data is state on the server"
)]
pub trait SignalValue: Default + Send + Sync + 'static {
    /// How the value travels.
    #[doc(hidden)]
    fn to_text(&self) -> String;

    /// The value that travelled, strictly.
    #[doc(hidden)]
    fn from_text(text: &str) -> Result<Self, Problem>;
}

/// Why a text is not a value.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem(pub(crate) SignalProblem);

impl SignalValue for String {
    fn to_text(&self) -> String {
        self.clone()
    }

    fn from_text(text: &str) -> Result<Self, Problem> {
        Ok(text.to_owned())
    }
}

/// A number: what has an empty text as a form of "nothing".
trait Number: SignalValue {}

impl<T: Number> SignalValue for Option<T> {
    fn to_text(&self) -> String {
        self.as_ref().map(T::to_text).unwrap_or_default()
    }

    fn from_text(text: &str) -> Result<Self, Problem> {
        if text.is_empty() { Ok(None) } else { T::from_text(text).map(Some) }
    }
}

macro_rules! integers {
    ($($int:ty)*) => {$(
        impl Number for $int {}
        impl SignalValue for $int {
            fn to_text(&self) -> String {
                self.to_string()
            }

            fn from_text(text: &str) -> Result<Self, Problem> {
                text.parse().map_err(|error| Problem(integer_problem(text, &error)))
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

macro_rules! floats {
    ($($float:ty)*) => {$(
        impl Number for $float {}
        impl SignalValue for $float {
            fn to_text(&self) -> String {
                self.to_string()
            }

            fn from_text(text: &str) -> Result<Self, Problem> {
                if text.is_empty() {
                    return Err(Problem(SignalProblem::Empty));
                }
                // `inf` and `nan` are words here, not numbers; `1e999` is a number out of range.
                let digits = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
                match text.parse::<$float>() {
                    Ok(value) if digits && value.is_finite() => Ok(value),
                    Ok(_) if digits => Err(Problem(SignalProblem::OutOfRange)),
                    _ => Err(Problem(SignalProblem::WrongType)),
                }
            }
        }
    )*};
}

floats!(f32 f64);

fn integer_problem(text: &str, error: &ParseIntError) -> SignalProblem {
    match error.kind() {
        IntErrorKind::Empty => SignalProblem::Empty,
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => SignalProblem::OutOfRange,
        // The standard library calls `-5` for a `u64` an invalid digit; for a person it is a number out of range.
        _ if is_integer(text) => SignalProblem::OutOfRange,
        _ => SignalProblem::WrongType,
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The signals that came with an action.
#[derive(Debug, Default)]
pub(crate) struct Signals(HashMap<String, serde_json::Value>);

impl Signals {
    /// The signals of a request's body: one JSON object, flat, keys to texts.
    pub(crate) fn parse(body: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(body).map(Self)
    }

    fn decode<T: SignalValue>(&self, key: &str) -> Result<T, SignalError> {
        let problem = |problem| SignalError { field: key.to_owned(), problem };
        match self.0.get(key) {
            Some(serde_json::Value::String(text)) => T::from_text(text).map_err(|it| problem(it.0)),
            Some(_) => Err(problem(SignalProblem::WrongType)),
            None => Err(problem(SignalProblem::Missing)),
        }
    }
}

/// What the signals of a page start with, and where each was declared.
#[derive(Debug, Default)]
pub(crate) struct Seeds(std::collections::BTreeMap<&'static str, Seed>);

#[derive(Debug)]
struct Seed {
    type_name: &'static str,
    place: &'static str,
    text: String,
}

impl Seeds {
    fn add(&mut self, key: &'static str, seed: Seed) -> Result<(), BadSignal> {
        if !is_valid(key) {
            return Err(BadSignal::Key { key, place: seed.place });
        }
        if let Some(known) = self.0.get(key) {
            // The same signal may be declared twice: both are one value in the browser.
            if known.type_name == seed.type_name {
                return Ok(());
            }
            return Err(BadSignal::Types {
                key,
                places: [known.place, seed.place],
                types: [known.type_name, seed.type_name],
            });
        }
        let nested = |(other, at): (&&'static str, &Seed)| {
            (is_below(key, other) || is_below(other, key)).then_some((*other, at.place))
        };
        if let Some((other, at)) = self.0.iter().find_map(nested) {
            return Err(BadSignal::Nested { keys: [key, other], places: [seed.place, at] });
        }
        self.0.insert(key, seed);
        Ok(())
    }

    /// The seeds as Datastar takes them: an object, a dot in a key being one level more.
    pub(crate) fn to_json(&self) -> String {
        let mut root = serde_json::Map::new();
        for (key, seed) in &self.0 {
            insert(&mut root, key, &seed.text);
        }
        serde_json::Value::Object(root).to_string()
    }
}

fn insert(object: &mut serde_json::Map<String, serde_json::Value>, path: &str, text: &str) {
    match path.split_once('.') {
        None => drop(object.insert(path.to_owned(), text.into())),
        Some((first, rest)) => {
            let child = object.entry(first).or_insert_with(|| serde_json::Map::new().into());
            insert(child.as_object_mut().expect("no key is below another"), rest, text);
        }
    }
}

fn is_below(key: &str, other: &str) -> bool {
    key.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'))
}

/// Whether Datastar can name this signal; one that starts with `_` would never leave the browser.
fn is_valid(key: &str) -> bool {
    let word = |segment: &str| {
        segment.starts_with(|first: char| first.is_ascii_alphabetic())
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !segment.contains("__")
    };
    key.split('.').all(word)
}

/// Why the signals of a page cannot be.
#[derive(Debug, thiserror::Error)]
enum BadSignal {
    #[error(
        "`{key}` at {place} cannot name a signal: use ASCII letters, digits and single underscores, a letter first, \
         dots between levels; set it with #[state(key = \"...\")]"
    )]
    Key { key: &'static str, place: &'static str },
    #[error(
        "the signal `{key}` is {} at {} and {} at {}: give one of them another key with #[state(key = \"...\")]",
        types[0], places[0], types[1], places[1]
    )]
    Types { key: &'static str, places: [&'static str; 2], types: [&'static str; 2] },
    #[error(
        "the signals `{}` at {} and `{}` at {} cannot both be: one is inside the other; give one of them another \
         key with #[state(key = \"...\")]",
        keys[0], places[0], keys[1], places[1]
    )]
    Nested { keys: [&'static str; 2], places: [&'static str; 2] },
}

#[cfg(test)]
mod tests;
