use syn::parse_quote;

use super::*;

fn fold_of_orders() -> TokenStream {
    quote!(
        impl Fold<Orders> for Changed {
            fn fold(self, orders: &mut Orders, at: &Recorded) {}
        }
    )
}

fn expanded(arguments: TokenStream, item: TokenStream) -> String {
    expand(arguments, item, Home::Backplane).to_string()
}

fn error_of(arguments: TokenStream, item: TokenStream) -> String {
    let result = fold(item).and_then(|fold| Versions::of(arguments)?.write(fold, Home::Backplane));
    result.expect_err("this is refused").to_string()
}

fn error_about(arguments: TokenStream) -> String {
    error_of(arguments, fold_of_orders())
}

#[test]
fn a_version_alone_is_the_constant() {
    let code = expanded(quote!(version = 2), fold_of_orders());
    assert!(code.contains("const STATE_VERSION : :: core :: primitive :: u32 = 2 ;"), "{code}");
    assert!(!code.contains("fn migrate"), "{code}");
}

#[test]
fn each_version_goes_through_all_that_came_after_it() {
    let code = expanded(quote!(version = 3, migrate(1 = V1, 2 = V2)), fold_of_orders());
    let read = |old: &str| {
        format!(":: via_backplane :: codec :: decode_state :: < {old} > (version , codec , snapshot) ?")
    };
    let step = |to: &str, from: &str, old: String| {
        format!(":: via_backplane :: codec :: made_from :: < {to} , {from} > ({old})")
    };
    for arm in [step("Orders", "V2", step("V2", "V1", read("V1"))), step("Orders", "V2", read("V2"))] {
        assert!(code.contains(&format!("=> :: core :: result :: Result :: Ok ({arm})")), "{arm} in {code}");
    }
}

#[test]
fn the_first_versions_may_be_forgotten() {
    let code = expanded(quote!(version = 4, migrate(3 = V3)), fold_of_orders());
    assert!(code.contains("3 => "), "{code}");
}

#[test]
fn a_migration_written_by_hand_goes_with_a_version() {
    let item = quote!(
        impl Fold<Orders> for Changed {
            fn fold(self, orders: &mut Orders, at: &Recorded) {}
            fn migrate(version: u32, codec: CodecId, snapshot: &[u8]) -> Result<Orders, MigrateError> {
                Err(MigrateError::none::<Self, Orders>(version))
            }
        }
    );
    let code = expanded(quote!(version = 2), item.clone());
    assert!(code.contains("STATE_VERSION"), "{code}");
    assert!(
        error_of(quote!(version = 2, migrate(1 = V1)), item).contains("keep this, or what the attribute")
    );
}

#[test]
fn each_crate_finds_the_engine_through_its_own_manifest() {
    let code = expand(quote!(version = 2, migrate(1 = V1)), fold_of_orders(), Home::App).to_string();
    assert!(code.contains(":: via :: __private :: via_backplane :: codec :: decode_state"), "{code}");
}

#[test]
fn mistakes_are_named() {
    for (arguments, expected) in [
        (quote!(), "which version of the state does this fold make?"),
        (quote!(migrate(1 = V1)), "which version of the state does this fold make?"),
        (quote!(version = 0), "versions start at 1"),
        (quote!(version = 4294967296), "a version is a whole number"),
        (quote!(version = 2, version = 3), "this key is given twice"),
        (quote!(version = 2, migrate()), "which versions?"),
        (quote!(version = 2, migrate(0 = V0)), "versions start at 1"),
        (quote!(version = 2, migrate(2 = V2)), "version 2 is not older than the state"),
        (quote!(version = 4, migrate(1 = V1, 2 = V2)), "version 2 migrates to 3, which is not here"),
        (quote!(version = 4, migrate(1 = V1, 3 = V3)), "version 1 migrates to 2, which is not here"),
        (quote!(version = 4, migrate(3 = V3, 2 = V2)), "list the versions in rising order, each once"),
        (quote!(version = 2, migrate(1 = V1, 1 = V1)), "list the versions in rising order, each once"),
        (quote!(version = 2, key = "orders"), "a `key` belongs to a field of a component"),
        (quote!(version = 2, since = 3), "unknown key: the state of a fold has `version` and `migrate"),
    ] {
        let error = error_about(arguments.clone());
        assert!(error.starts_with(expected), "{arguments}: {error}");
    }
}

#[test]
fn only_a_fold_has_a_version_of_a_state() {
    for item in [
        parse_quote!(
            struct Orders {}
        ),
        parse_quote!(
            impl Orders {}
        ),
        parse_quote!(
            impl Default for Orders {}
        ),
        parse_quote!(
            impl Fold for Orders {}
        ),
        parse_quote!(
            fn orders() {}
        ),
    ] {
        let item: Item = item;
        let error = error_of(quote!(version = 2), quote!(#item));
        assert!(error.starts_with("write `#[state(version = …)]` on the `impl Fold"), "{error}");
    }
}

#[test]
fn what_is_refused_stays_beside_the_error() {
    let code = expanded(quote!(version = 0), fold_of_orders());
    assert!(code.contains("impl Fold < Orders > for Changed"), "{code}");
    assert!(code.contains("compile_error !"), "{code}");
}
