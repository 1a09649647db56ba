//! Everything a page needs: `use via::prelude::*;`.
//!
//! `html!` and the serde derives come from `maud` and `serde`, which your own manifest must name.

pub use maud::html;
pub use serde::{Deserialize, Serialize};

pub use crate::{
    App, Component, Cx, Delivery, Event, Fold, Html, Page, Recorded, Setup, Signal, State, StateApp,
    StateAppEvents, View, state,
};
