//! A page as the app holds it: its component's type erased.

use std::{any::TypeId, fmt, sync::Arc};

use futures_util::future::BoxFuture;

use crate::{
    Cx, Html, Page, Result, View,
    keyring::Keyring,
    metrics::OfPage,
    token::{self, BadToken, Params, Target},
};

/// A page mounted at its path.
pub(crate) struct Mounted {
    /// The path as the app wrote it, `/rooms/{id}`.
    pub(crate) path: Arc<str>,
    pub(crate) title: String,
    pub(crate) component: Arc<dyn Erased>,
    /// The signals' seeds as Datastar takes them.
    pub(crate) seeds: String,
    pub(crate) metrics: OfPage,
}

/// A page's component without its type.
pub(crate) trait Erased: Send + Sync {
    fn type_id(&self) -> TypeId;
    fn view(&self, cx: &View) -> Html;
    /// The action in a verified token, ready to run.
    fn act(self: Arc<Self>, body: &[u8], cx: Arc<Cx>) -> Result<BoxFuture<'static, Result<()>>, BadToken>;
}

impl<C: Page> Erased for C {
    fn type_id(&self) -> TypeId {
        TypeId::of::<C>()
    }

    fn view(&self, cx: &View) -> Html {
        Page::view(self, cx)
    }

    fn act(self: Arc<Self>, body: &[u8], cx: Arc<Cx>) -> Result<BoxFuture<'static, Result<()>>, BadToken> {
        let action = token::decode::<C::Action>(body)?;
        Ok(Box::pin(async move { C::act(&self, &cx, action).await }))
    }
}

impl Mounted {
    pub(crate) fn target<'a>(&'a self, params: &'a Params) -> Target<'a> {
        // Components nest later; until then the page itself is the only one.
        Target { page: &self.path, params, component: "" }
    }

    pub(crate) fn cx(&self, params: Arc<Params>, keys: &Keyring) -> View {
        View::new(self.path.clone(), self.component.type_id(), params, keys.clone())
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mounted({})", self.path)
    }
}
