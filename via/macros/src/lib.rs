//! Derives for via. Private: use them through `via` or `via-backplane`.

mod event;

use event::Home;
use proc_macro::TokenStream;

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
