//! `#[state(version = …, migrate(…))]` on an `impl Fold`: the version of the state, and what older ones are today.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Error, GenericArgument, Ident, ImplItem, Item, ItemImpl, LitInt, PathArguments, Result, Token, Type,
    meta::ParseNestedMeta, parse::Parser, parse_quote, spanned::Spanned,
};

use crate::home::Home;

/// Adds to an `impl Fold` what a person would write there. What is refused stays as it was, beside the error, so that
/// the compiler complains about nothing else.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream, home: Home) -> TokenStream {
    let expanded = fold(item.clone()).and_then(|fold| {
        let versions = Versions::of(arguments)?;
        versions.write(fold, home)
    });
    expanded.unwrap_or_else(|error| {
        let error = error.into_compile_error();
        quote!(#item #error)
    })
}

/// An `impl Fold<S> for E`.
struct Fold {
    item: ItemImpl,
    state: Type,
}

fn fold(item: TokenStream) -> Result<Fold> {
    const PLACE: &str = "write `#[state(version = …)]` on the `impl Fold<…> for …` that folds into the state: its version \
                         is about the fold as much as about the type";
    let item: Item = syn::parse2(item)?;
    let Item::Impl(item) = item else { return Err(Error::new(Span::call_site(), PLACE)) };
    let last = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
    let state = match last.map(|segment| (segment.ident == "Fold", &segment.arguments)) {
        Some((true, PathArguments::AngleBracketed(arguments))) => match arguments.args.first() {
            Some(GenericArgument::Type(state)) if arguments.args.len() == 1 => Some(state.clone()),
            _ => None,
        },
        _ => None,
    };
    match state {
        Some(state) => Ok(Fold { item, state }),
        None => Err(Error::new(Span::call_site(), PLACE)),
    }
}

/// What the attribute says.
struct Versions {
    current: LitInt,
    number: u32,
    older: Vec<Older>,
}

/// What the state was in an older version.
struct Older {
    version: LitInt,
    number: u32,
    state: Type,
}

impl Versions {
    fn of(arguments: TokenStream) -> Result<Self> {
        let (mut version, mut older) = (None, None);
        let keys = syn::meta::parser(|meta| {
            let key = meta.path.span();
            match meta.path.get_ident().map(Ident::to_string).as_deref() {
                Some("version") => set(&mut version, key, number(meta.value()?.parse()?)?),
                Some("migrate") => set(&mut older, key, migrations(&meta)?),
                Some("key") => Err(meta.error(
                    "a `key` belongs to a field of a component, below its `#[derive(State)]`; a fold has a `version`",
                )),
                _ => Err(meta.error("unknown key: the state of a fold has `version` and `migrate(1 = OrdersV1)`")),
            }
        });
        keys.parse2(arguments)?;
        let Some((current, number)) = version else {
            return Err(Error::new(
                Span::call_site(),
                "which version of the state does this fold make? `#[state(version = 2)]`",
            ));
        };
        let versions = Self { current, number, older: older.unwrap_or_default() };
        versions.check_chain()?;
        Ok(versions)
    }

    /// Each version migrates to the one after it, so none may be missing on the way.
    fn check_chain(&self) -> Result<()> {
        for Older { version, number, .. } in &self.older {
            if *number >= self.number {
                let message = format!(
                    "version {number} is not older than the state, which is of version {}: `migrate` lists the versions \
                     before it",
                    self.number
                );
                return Err(Error::new(version.span(), message));
            }
        }
        let after = self.older.iter().skip(1).map(|older| (&older.version, older.number));
        for (older, next) in self.older.iter().zip(after.chain([(&self.current, self.number)])) {
            let (version, number) = next;
            let wanted = older.number + 1;
            if number != wanted {
                let message = match number > wanted {
                    true => format!(
                        "version {} migrates to {wanted}, which is not here: list `{wanted} = …` before {number}",
                        older.number
                    ),
                    false => format!(
                        "list the versions in rising order, each once: {number} cannot follow {}",
                        older.number
                    ),
                };
                return Err(Error::new(version.span(), message));
            }
        }
        Ok(())
    }

    fn write(&self, fold: Fold, home: Home) -> Result<TokenStream> {
        let Fold { mut item, state } = fold;
        for written in &item.items {
            let name = match written {
                ImplItem::Const(constant) => &constant.ident,
                ImplItem::Fn(function) => &function.sig.ident,
                _ => continue,
            };
            if name == "STATE_VERSION" || (name == "migrate" && !self.older.is_empty()) {
                return Err(Error::new(
                    name.span(),
                    format!("`{name}` is what `#[state(…)]` writes: keep this, or what the attribute says"),
                ));
            }
        }
        let current = &self.current;
        item.items.push(parse_quote!(const STATE_VERSION: ::core::primitive::u32 = #current;));
        if !self.older.is_empty() {
            item.items.push(self.migrate(&state, &home.path()));
        }
        Ok(quote!(#item))
    }

    fn migrate(&self, state: &Type, home: &TokenStream) -> ImplItem {
        let arms = self.older.iter().enumerate().map(|(at, older)| {
            let (version, read_as) = (&older.version, &older.state);
            let steps = self.older[at..].iter().map(|older| &older.state);
            let after = self.older[at + 1..].iter().map(|older| &older.state).chain([state]);
            let old = quote!(#home::codec::decode_state::<#read_as>(version, codec, snapshot)?);
            // That one version cannot become the next is reported where it is listed.
            let present = steps.zip(after).fold(old, |old, (from, to)| {
                let to = located_at(from.span(), to.to_token_stream());
                quote_spanned!(Span::call_site().located_at(from.span())=> #home::codec::made_from::<#to, #from>(#old))
            });
            quote!(#version => ::core::result::Result::Ok(#present))
        });
        parse_quote! {
            fn migrate(
                version: ::core::primitive::u32,
                codec: #home::CodecId,
                snapshot: &[::core::primitive::u8],
            ) -> ::core::result::Result<#state, #home::MigrateError> {
                match version {
                    #(#arms,)*
                    _ => ::core::result::Result::Err(#home::MigrateError::none::<Self, #state>(version)),
                }
            }
        }
    }
}

/// The same tokens, for errors that are about another place.
fn located_at(place: Span, tokens: TokenStream) -> TokenStream {
    let moved = tokens.into_iter().map(|mut token| {
        let span = token.span().located_at(place);
        if let TokenTree::Group(group) = &token {
            token = Group::new(group.delimiter(), located_at(place, group.stream())).into();
        }
        token.set_span(span);
        token
    });
    moved.collect()
}

fn set<T>(slot: &mut Option<T>, key: Span, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::new(key, "this key is given twice")),
    }
}

/// `(1 = OrdersV1, 2 = OrdersV2)`.
fn migrations(meta: &ParseNestedMeta<'_>) -> Result<Vec<Older>> {
    let content;
    syn::parenthesized!(content in meta.input);
    if content.is_empty() {
        return Err(meta.error("which versions? `migrate(1 = OrdersV1)`, or leave `migrate` out"));
    }
    let listed = content.parse_terminated(
        |older| {
            let (version, number) = number(older.parse()?)?;
            older.parse::<Token![=]>()?;
            Ok(Older { version, number, state: older.parse()? })
        },
        Token![,],
    )?;
    Ok(listed.into_iter().collect())
}

fn number(version: LitInt) -> Result<(LitInt, u32)> {
    match version.base10_parse::<u32>() {
        Ok(0) => Err(Error::new(version.span(), "versions start at 1")),
        // Written anew without a suffix: `1u8` is as good a version as any.
        Ok(number) => Ok((LitInt::new(&number.to_string(), version.span()), number)),
        Err(_) => Err(Error::new(version.span(), "a version is a whole number from 1 to 4294967295")),
    }
}

#[cfg(test)]
mod tests;
