//! Derives for via. Private: use them through `via` or `via-backplane`.

mod event;
mod fold_state;
mod home;
mod state;

use home::Home;
use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `Event`, for users of `via-backplane`.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    event::derive(input.into(), Home::Backplane).into()
}

/// Derives `Event`, for users of `via`, whose manifest does not name `via-backplane`.
#[proc_macro_derive(AppEvent, attributes(event))]
pub fn derive_app_event(input: TokenStream) -> TokenStream {
    event::derive(input.into(), Home::App).into()
}

/// Gives an `impl Fold` the version of its state and its migrations, for users of `via-backplane`.
#[proc_macro_attribute]
pub fn state(arguments: TokenStream, item: TokenStream) -> TokenStream {
    fold_state::expand(arguments.into(), item.into(), Home::Backplane).into()
}

/// Gives an `impl Fold` the version of its state and its migrations, for users of `via`.
#[proc_macro_attribute]
pub fn app_state(arguments: TokenStream, item: TokenStream) -> TokenStream {
    fold_state::expand(arguments.into(), item.into(), Home::App).into()
}

/// Binds each field of a component to its key: the field's name, or `#[state(key = "...")]`.
#[proc_macro_derive(State, attributes(state))]
pub fn derive_state(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    state::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
