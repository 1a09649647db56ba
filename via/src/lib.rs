//! A server-driven web framework on an event-sourced clustered state backplane.
//!
//! State is typed fields, changes are typed messages, views are HTML. The server pushes HTML to the browser; nothing on
//! the client is written by hand. Start with [`App`], then [`Component`] and [`Page`]; a component's fields are
//! [`StateAppEvents`], [`StateApp`] and [`Signal`]. What runs below the pages is [`via_backplane`], which knows no HTTP.

// The derives name this crate as their users do.
extern crate self as via;

mod app;
mod running;

mod listener;
mod serve;

mod component;
mod state;

mod app_cell;
mod app_events;
mod read;
mod signal;

mod cx;
mod error;
mod view;

mod page;
mod render;

mod frame;
mod frames;
mod stream;

mod action;
mod document;
mod effect;
mod refusal;
mod routes;
mod site;

mod keyring;
mod origin;
mod secret;
mod security;
mod session;
mod tab;
mod token;
mod trace;

mod assets;
mod metrics;
mod prometheus;

pub mod prelude;

/// What a view returns: maud's markup, made by its `html!`.
pub type Html = maud::Markup;

#[doc(hidden)]
pub use app::kind;
pub use app::{App, IntoBackplane};
pub use app_cell::StateApp;
pub use app_events::StateAppEvents;
pub use component::{Component, Page, Setup};
pub use cx::Cx;
pub use effect::Effect;
pub use error::{Error, Result, reject};
pub use read::{Read, Text};
pub use running::Running;
pub use signal::{Signal, SignalValue};
pub use state::{Binder, Field, SavedField, Slot, State};
pub use via_backplane::{Delivery, Fold, MigrateError, Recorded, event::Event, golden};
/// Says which version of a state an `impl Fold` is about, and what older ones are today; [`Fold`]'s page says how.
pub use via_macros::app_state as state;
pub use via_macros::{AppEvent as Event, State};
pub use view::{Expression, View};

/// What the derives expand to; not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use via_backplane;
}

// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
