//! `#[derive(Event)]`: from the type and its `#[event(…)]` to an implementation.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Attribute, Data, DeriveInput, Error, Ident, LitInt, LitStr, Path, Result, parse::ParseStream,
    spanned::Spanned,
};

use crate::home::Home;

pub(crate) fn derive(input: TokenStream, home: Home) -> TokenStream {
    match syn::parse2(input).and_then(|input| Event::of(&input)) {
        Ok(event) => event.expand(home),
        Err(error) => error.into_compile_error(),
    }
}

/// What a type says about itself.
struct Event {
    ident: Ident,
    name: LitStr,
    version: LitInt,
    codec: Ident,
    /// The type of the version before.
    upcast: Option<Path>,
}

impl Event {
    fn of(input: &DeriveInput) -> Result<Self> {
        reject_shapes(input)?;
        let mut keys = Keys::default();
        for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("event")) {
            keys.read(attribute)?;
        }
        let Some(name) = keys.name else {
            return Err(Error::new(
                keys.attribute.unwrap_or_else(|| input.ident.span()),
                format!(
                    "an event needs the name the log calls it by: `#[event(name = \"{}\")]`",
                    example(input)
                ),
            ));
        };
        let version = keys.version.unwrap_or_else(|| LitInt::new("1", Span::call_site()));
        if let Some(older) = &keys.upcast
            && version.base10_digits() == "1"
        {
            return Err(Error::new(
                older.span(),
                "nothing is older than version 1: raise `version` when the shape of an event changes",
            ));
        }
        Ok(Self {
            ident: input.ident.clone(),
            name,
            version,
            codec: keys.codec.unwrap_or_else(|| Ident::new("MessagePack", Span::call_site())),
            upcast: keys.upcast,
        })
    }

    fn expand(&self, home: Home) -> TokenStream {
        let Self { ident, name, version, codec, .. } = self;
        let home = home.path();
        // A codec that cannot write this type, or is behind a feature, is reported where it was named.
        let codec = quote_spanned!(codec.span()=> #home::codec::#codec);
        let decode = match &self.upcast {
            None => quote!(#home::codec::decode_current::<Self, #codec>),
            // That an older event cannot become this one is reported where the older one was named.
            Some(older) => quote_spanned! { Span::call_site().located_at(older.span())=>
                #home::codec::decode_upcast::<Self, #codec, #older>
            },
        };
        let checks = self.upcast.as_ref().map(|older| self.check_upcast(older, &home));
        quote! {
            #[automatically_derived]
            impl #home::Event for #ident {
                const NAME: &'static ::core::primitive::str = #name;
                const VERSION: ::core::primitive::u32 = #version;
                const CODEC: #home::CodecId = <#codec as #home::Codec<Self>>::ID;

                #[inline]
                fn encode(
                    &self,
                    out: &mut ::std::vec::Vec<::core::primitive::u8>,
                ) -> ::core::result::Result<(), #home::EncodeError> {
                    <#codec as #home::Codec<Self>>::encode(self, out)
                }

                #[inline]
                fn decode(
                    version: ::core::primitive::u32,
                    codec: #home::CodecId,
                    payload: &[::core::primitive::u8],
                ) -> ::core::result::Result<Self, #home::DecodeError> {
                    #decode(version, codec, payload)
                }
            }
            #checks
        }
    }

    /// What only the compiler can compare: the name and the version of a type that is described elsewhere.
    fn check_upcast(&self, older: &Path, home: &TokenStream) -> TokenStream {
        let Self { ident, name, version, .. } = self;
        let shown = shown(older);
        let other_name = format!(
            "`{shown}` is not an older `{ident}`, it has another event name: both need `name = \"{}\"`",
            name.value()
        );
        let not_older = format!(
            "`{shown}` is not older than `{ident}`: its version has to be below {}",
            version.base10_digits()
        );
        quote_spanned! { Span::call_site().located_at(older.span())=>
            const _: () = {
                if !#home::codec::is_same_name::<#ident, #older>() {
                    ::core::panic!("{}", #other_name);
                }
                if !#home::codec::is_older::<#ident, #older>() {
                    ::core::panic!("{}", #not_older);
                }
            };
        }
    }
}

/// A path as its author would write it.
fn shown(path: &Path) -> String {
    path.to_token_stream().to_string().replace(' ', "")
}

fn reject_shapes(input: &DeriveInput) -> Result<()> {
    if let Data::Union(union) = &input.data {
        return Err(Error::new(union.union_token.span(), "an event is a struct or an enum"));
    }
    if !input.generics.params.is_empty() {
        return Err(Error::new(
            input.generics.span(),
            "an event has no generic parameters: its name in the log stands for one type; \
             derive `Event` for a struct of its own per type",
        ));
    }
    Ok(())
}

/// A name to show in an error: `ChatPosted` could be called `chat.posted`.
fn example(input: &DeriveInput) -> String {
    let mut name = String::new();
    for letter in input.ident.to_string().chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('.');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

/// The keys of `#[event(…)]` as they are read.
#[derive(Default)]
struct Keys {
    attribute: Option<Span>,
    name: Option<LitStr>,
    version: Option<LitInt>,
    codec: Option<Ident>,
    upcast: Option<Path>,
}

impl Keys {
    fn read(&mut self, attribute: &Attribute) -> Result<()> {
        self.attribute = Some(attribute.span());
        attribute.parse_nested_meta(|meta| {
            let key = &meta.path;
            match key.get_ident().map(Ident::to_string).as_deref() {
                Some("name") => set(&mut self.name, key, name(meta.value()?.parse()?)?),
                Some("version") => set(&mut self.version, key, version(meta.value()?.parse()?)?),
                Some("codec") => set(&mut self.codec, key, codec(&meta.value()?.parse()?)?),
                Some("upcast") => set(&mut self.upcast, key, upcast(meta.value()?)?),
                _ => Err(meta.error("unknown key: an event has `name`, `version`, `codec` and `upcast`")),
            }
        })
    }
}

fn set<T>(slot: &mut Option<T>, key: &Path, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::new(key.span(), "this key is given twice")),
    }
}

fn name(name: LitStr) -> Result<LitStr> {
    if name.value().trim().is_empty() {
        return Err(Error::new(
            name.span(),
            "the name is empty: the log could not tell this event from others",
        ));
    }
    Ok(name)
}

fn version(version: LitInt) -> Result<LitInt> {
    match version.base10_parse::<u32>() {
        Ok(0) => Err(Error::new(version.span(), "versions start at 1")),
        // Written anew without a suffix: `1u8` is as good a version as any.
        Ok(number) => Ok(LitInt::new(&number.to_string(), version.span())),
        Err(_) => Err(Error::new(version.span(), "a version is a whole number from 1 to 4294967295")),
    }
}

fn upcast(value: ParseStream<'_>) -> Result<Path> {
    let start = value.span();
    value.parse().map_err(|_| {
        Error::new(start, "name the type of the version before: `upcast = PostedV1`, without quotes")
    })
}

fn codec(name: &LitStr) -> Result<Ident> {
    let codec = match name.value().as_str() {
        "messagepack" => "MessagePack",
        "json" => "Json",
        "bincode" => "Bincode",
        "protobuf" => "Protobuf",
        _ => {
            return Err(Error::new(
                name.span(),
                "unknown codec: choose \"messagepack\", \"json\", \"bincode\" or \"protobuf\"",
            ));
        }
    };
    Ok(Ident::new(codec, name.span()))
}

#[cfg(test)]
mod tests;
