//! The context of a render: what a view can ask, and what it has read.

use std::{any::TypeId, cell::RefCell, fmt, sync::Arc};

use futures_util::future::BoxFuture;
use via_backplane::Changes;

use crate::{
    Component,
    keyring::Keyring,
    token::{Params, Target},
};

/// The context of one render of a view.
///
/// It records what the view reads, so that the view runs again when one of those changes and not otherwise.
pub struct View {
    page: Arc<str>,
    component: TypeId,
    params: Arc<Params>,
    keys: Keyring,
    reads: RefCell<Reads>,
}

/// What a render has read.
#[derive(Default)]
pub(crate) struct Reads {
    /// What to wait for before rendering again.
    pub(crate) changes: Vec<Changes>,
    /// What was not loaded. A render with one of these is thrown away.
    pub(crate) missing: Vec<BoxFuture<'static, ()>>,
}

impl View {
    pub(crate) fn new(page: Arc<str>, component: TypeId, params: Arc<Params>, keys: Keyring) -> Self {
        Self { page, component, params, keys, reads: RefCell::default() }
    }

    /// An expression that asks this component to do something, for an attribute such as `data-on:click`.
    ///
    /// It carries the action signed: the server runs only what it rendered.
    ///
    /// # Panics
    /// If `component` is not the one mounted here, if the action does not serialize, or if it has more than 4 KiB
    /// encoded.
    #[must_use = "put it into an attribute such as `data-on:click`"]
    pub fn on<C: Component>(&self, component: &C, action: C::Action) -> Expression {
        let _: &C = component;
        assert!(
            TypeId::of::<C>() == self.component,
            "`{}` is not mounted at `{}`: only its own component's actions can be asked for there",
            std::any::type_name::<C>(),
            self.page,
        );
        let target = Target { page: &self.page, params: &self.params, component: "" };
        Expression(format!("@act('{}')", target.seal(&self.keys, &action)))
    }

    /// Notes that the view depends on this state. Called *before* its value is taken, so that no change is missed.
    pub(crate) fn track(&self, changes: Changes) {
        let mut reads = self.reads.borrow_mut();
        if !reads.changes.iter().any(|known| known.name() == changes.name()) {
            reads.changes.push(changes);
        }
    }

    /// Notes that the view read something that is not loaded.
    pub(crate) fn miss(&self, loaded: impl Future<Output = ()> + Send + 'static) {
        self.reads.borrow_mut().missing.push(Box::pin(loaded));
    }

    pub(crate) fn into_reads(self) -> Reads {
        self.reads.into_inner()
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("page", &self.page).field("params", &self.params).finish_non_exhaustive()
    }
}

/// An expression for an attribute, made by [`View::on`].
#[derive(Debug, Clone)]
pub struct Expression(String);

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl maud::Render for Expression {
    fn render_to(&self, buffer: &mut String) {
        self.0.render_to(buffer);
    }
}
