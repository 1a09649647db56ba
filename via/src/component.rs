//! What a user writes: components and pages.

use std::{fmt, future::Future};

use serde::{Serialize, de::DeserializeOwned};
use via_backplane::Engine;

use crate::{Cx, Html, Result, State, View, effect::Effects};

/// State, and everything it can be asked to do.
///
/// ```
/// use via::prelude::*;
///
/// #[derive(State)]
/// struct Lamp {
///     lit: StateApp<bool>,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// enum Act {
///     Toggle,
/// }
///
/// impl Component for Lamp {
///     type Action = Act;
///
///     async fn act(&self, cx: &Cx, action: Act) -> via::Result<()> {
///         match action {
///             Act::Toggle => self.lit.update(cx, |lit| {
///                 *lit = !*lit;
///                 Ok(())
///             }).await,
///         }
///     }
/// }
/// ```
pub trait Component: State {
    /// What this component can be asked to do, as data. Each button carries one of these, signed.
    type Action: Serialize + DeserializeOwned + Send + 'static;

    /// Runs once per pod, when the component is mounted and before the first request.
    fn setup(&self, setup: &mut Setup<'_>) {
        // Most components have nothing to set up.
        let _: &mut Setup<'_> = setup;
    }

    /// Does what was asked.
    ///
    /// It runs in a task of its own that finishes even if the browser leaves. A tab's actions run one after another.
    fn act(&self, cx: &Cx, action: Self::Action) -> impl Future<Output = Result<()>> + Send;
}

/// A component mounted at a path, with a view.
pub trait Page: Component {
    /// The title of the document.
    fn title(&self) -> String {
        String::from("via")
    }

    /// What the page shows now.
    ///
    /// Called whenever something it read has changed, and for no other reason. It never waits: a read of state that is
    /// not loaded yet gives the default, and the result is thrown away until the state is there. A panic shows a generic
    /// notice in the tabs of this page and leaves all others alone.
    fn view(&self, cx: &View) -> Html;
}

/// What [`Component::setup`] can reach.
pub struct Setup<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) effects: Effects,
}

impl Setup<'_> {
    /// The engine of this app.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        self.engine
    }
}

impl fmt::Debug for Setup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("engine", self.engine).finish_non_exhaustive()
    }
}
