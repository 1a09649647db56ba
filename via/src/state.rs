//! How a component's fields get their keys.

use via_backplane::Engine;

use crate::{Result, signal::Seeds};

/// A component's fields, bound to their keys. Derive it.
///
/// Each field's key is its name; `#[state(key = "chat.posts")]` sets another. The same key and type, wherever it is
/// declared, is the same state; the same key with two types is an error at start.
///
/// ```
/// use via::prelude::*;
///
/// #[derive(State)]
/// struct Profile {
///     visits: StateApp<u64>,
///     #[state(key = "nick")]
///     name: Signal<String>,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not state",
    label = "its fields have no keys",
    note = "add #[derive(State)] to `{Self}`"
)]
pub trait State: Sized + Send + Sync + 'static {
    /// Binds every field.
    ///
    /// # Errors
    /// Two fields with one key and different types, an invalid key: an error that names the places and the fix.
    fn bind(binder: &mut Binder<'_>) -> Result<Self>;
}

/// A field of a component: [`StateApp`](crate::StateApp), [`StateAppEvents`](crate::StateAppEvents), [`Signal`](crate::Signal).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a component",
    label = "holds no state that has a key",
    note = "use `StateApp<T>`, `StateAppEvents<E, S>` or `Signal<T>`"
)]
pub trait Field: Sized {
    /// Binds the field to its key.
    ///
    /// # Errors
    /// As [`State::bind`].
    fn bind(slot: Slot<'_, '_>) -> Result<Self>;
}

/// What fields are bound to: the engine, and what their page must know of them.
#[derive(Debug)]
pub struct Binder<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) seeds: Seeds,
}

impl<'a> Binder<'a> {
    pub(crate) fn new(engine: &'a Engine) -> Self {
        Self { engine, seeds: Seeds::default() }
    }

    /// Binds one field. What `#[derive(State)]` calls.
    ///
    /// # Errors
    /// As [`State::bind`].
    #[doc(hidden)]
    pub fn field<F: Field>(&mut self, key: &'static str, place: &'static str) -> Result<F> {
        F::bind(Slot { binder: self, key, place })
    }

    /// As [`field`](Self::field), for one that says how many records lie between two snapshots of it.
    ///
    /// # Errors
    /// As [`State::bind`].
    #[doc(hidden)]
    pub fn saved_field<F: SavedField>(
        &mut self,
        key: &'static str,
        place: &'static str,
        records: u64,
    ) -> Result<F> {
        Ok(self.field::<F>(key, place)?.with_snapshot_interval(records))
    }
}

/// A field that snapshots are written of.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "no snapshots are written of `{Self}`",
    label = "`snapshot_interval` is for `StateAppEvents`",
    note = "leave `snapshot_interval` out: only what is folded from events has snapshots"
)]
pub trait SavedField: Field {
    /// Sets how many records lie between two snapshots.
    #[must_use]
    fn with_snapshot_interval(self, records: u64) -> Self;
}

/// Where a field stands: its key, and its place in the code for errors.
#[derive(Debug)]
pub struct Slot<'b, 'a> {
    pub(crate) binder: &'b mut Binder<'a>,
    pub(crate) key: &'static str,
    /// As in `chat::Room.posts`.
    pub(crate) place: &'static str,
}
