//! Where what the macros expand to finds via.

use proc_macro2::TokenStream;
use quote::quote;

/// Which crate the user named in their manifest, and so where the traits are.
#[derive(Clone, Copy)]
pub(crate) enum Home {
    Backplane,
    App,
}

impl Home {
    pub(crate) fn path(self) -> TokenStream {
        match self {
            Self::Backplane => quote!(::via_backplane),
            Self::App => quote!(::via::__private::via_backplane),
        }
    }
}
