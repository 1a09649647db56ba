//! What a view gets when it reads state.

use std::{fmt, ops::Deref};

use via_backplane::View as Snapshot;

/// The value of some state as a view reads it.
///
/// Until the state is loaded it is the default, and the render that saw it is thrown away.
pub struct Read<S>(Inner<S>);

enum Inner<S> {
    Loaded(Snapshot<S>),
    Cold(Box<S>),
}

impl<S> Read<S> {
    pub(crate) fn loaded(snapshot: Snapshot<S>) -> Self {
        Self(Inner::Loaded(snapshot))
    }

    pub(crate) fn cold() -> Self
    where
        S: Default,
    {
        Self(Inner::Cold(Box::default()))
    }
}

impl<S> Deref for Read<S> {
    type Target = S;

    fn deref(&self) -> &S {
        match &self.0 {
            Inner::Loaded(snapshot) => snapshot,
            Inner::Cold(default) => default,
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Read<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<S: fmt::Display> fmt::Display for Read<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A value as text in `html!`, escaped.
#[derive(Debug)]
pub struct Text<S>(pub(crate) Read<S>);

impl<S: fmt::Display> maud::Render for Text<S> {
    fn render_to(&self, buffer: &mut String) {
        maud::display(&self.0).render_to(buffer);
    }
}
