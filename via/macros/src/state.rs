//! `#[derive(State)]`: binds each field to its key.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Data, DeriveInput, Error, Field, Fields, Lit, LitInt, LitStr, Result, ext::IdentExt,
    meta::ParseNestedMeta, spanned::Spanned,
};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    let fields = named(input)?;
    let bound = fields.map(|field| bind(name, field)).collect::<Result<Vec<_>>>()?;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::via::State for #name #type_generics #where_clause {
            fn bind(binder: &mut ::via::Binder<'_>) -> ::via::Result<Self> {
                ::core::result::Result::Ok(Self { #(#bound),* })
            }
        }
    })
}

fn named(input: &DeriveInput) -> Result<impl Iterator<Item = &Field>> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            fields @ (Fields::Named(_) | Fields::Unit) => Ok(fields.iter()),
            Fields::Unnamed(fields) => Err(Error::new(
                fields.span(),
                "a field's name is its key: give these fields names, as in `struct Room { posts: StateApp<u64> }`",
            )),
        },
        Data::Enum(_) | Data::Union(_) => Err(Error::new(
            input.ident.span(),
            "state is a struct whose fields are handles; put the enum into one, as in `StateApp<Choice>`",
        )),
    }
}

fn bind(owner: &syn::Ident, field: &Field) -> Result<TokenStream> {
    let ident = field.ident.as_ref().expect("the fields are named");
    let Settings { key, snapshot_interval } = settings(field)?;
    let key = key.unwrap_or_else(|| LitStr::new(&ident.unraw().to_string(), ident.span()));
    let place = format!("::{}.{}", owner.unraw(), ident.unraw());
    let ty = &field.ty;
    // "Cannot be a field of a component" points at the type; names resolve here, also where a macro wrote the type.
    let span = Span::call_site().located_at(ty.span());
    let place = quote! { ::core::concat!(::core::module_path!(), #place) };
    let bound = match snapshot_interval {
        None => quote_spanned! { span => binder.field::<#ty>(#key, #place)? },
        Some(records) => quote_spanned! { span => binder.saved_field::<#ty>(#key, #place, #records)? },
    };
    Ok(quote! { #ident: #bound })
}

/// What `#[state(...)]` says of a field.
#[derive(Default)]
struct Settings {
    key: Option<LitStr>,
    snapshot_interval: Option<LitInt>,
}

fn settings(field: &Field) -> Result<Settings> {
    let mut settings = Settings::default();
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("state")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("key") {
                settings.set_key(&meta)
            } else if meta.path.is_ident("snapshot_interval") {
                settings.set_snapshot_interval(&meta)
            } else {
                Err(meta.error(
                    "unknown setting: a field of state takes `key = \"...\"`, and one with events `snapshot_interval = 256`",
                ))
            }
        })?;
    }
    Ok(settings)
}

impl Settings {
    fn set_key(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let value: LitStr = meta.value()?.parse()?;
        if value.value().is_empty() {
            return Err(Error::new(
                value.span(),
                "the key is empty: name the state, or leave the attribute out",
            ));
        }
        match self.key.replace(value) {
            Some(_) => Err(meta.error("the key is set twice: keep one")),
            None => Ok(()),
        }
    }

    fn set_snapshot_interval(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let value: Lit = meta.value()?.parse()?;
        let records = match &value {
            Lit::Int(records) if records.base10_parse::<u64>().is_ok_and(|records| records > 0) => {
                records.clone()
            }
            _ => {
                return Err(Error::new(
                    value.span(),
                    "an interval is a number of records, at least 1, as in `snapshot_interval = 256`",
                ));
            }
        };
        match self.snapshot_interval.replace(records) {
            Some(_) => Err(meta.error("the interval is set twice: keep one")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn refused(input: &DeriveInput) -> String {
        expand(input).expect_err("a rejected shape").to_string()
    }

    #[test]
    fn a_field_is_bound_to_its_name_or_its_key() {
        let code = expand(&parse_quote! {
            struct Room { posts: StateApp<u64>, #[state(key = "chat.theme")] theme: StateApp<u8>, r#type: Signal<String> }
        })
        .expect("valid state")
        .to_string();
        for part in ["\"posts\"", "\"chat.theme\"", "\"type\"", "\"::Room.posts\""] {
            assert!(code.contains(part), "{part} in {code}");
        }
    }

    #[test]
    fn an_interval_is_set_beside_a_key() {
        let code = expand(&parse_quote! {
            struct Room { #[state(key = "chat.posts", snapshot_interval = 256)] posts: StateAppEvents<Posted, Posts> }
        })
        .expect("valid state")
        .to_string();
        assert!(
            code.contains("saved_field") && code.contains("256") && code.contains("\"chat.posts\""),
            "{code}"
        );
    }

    #[test]
    fn rejected_shapes_say_what_to_do_instead() {
        assert!(refused(&parse_quote! { enum A { B } }).contains("put the enum into one"));
        assert!(refused(&parse_quote! { struct A(StateApp<u64>); }).contains("give these fields names"));
        assert!(refused(&parse_quote! { struct A { #[state(kee = "x")] a: B } }).contains("key = "));
        assert!(
            refused(&parse_quote! { struct A { #[state(key = "")] a: B } })
                .contains("leave the attribute out")
        );
        assert!(
            refused(&parse_quote! { struct A { #[state(key = "a", key = "b")] a: B } }).contains("keep one")
        );
        for wrong in ["0", "-1", "\"64\"", "99999999999999999999", "1.5"] {
            let value: syn::Expr = syn::parse_str(wrong).expect("an expression");
            let refused = refused(&parse_quote! { struct A { #[state(snapshot_interval = #value)] a: B } });
            assert!(!refused.is_empty(), "{wrong}");
        }
    }
}
