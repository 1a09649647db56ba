//! The files via serves: its script, Datastar, its stylesheet and the app's.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, header};

/// The folder of the assets' addresses, below the app's own prefix.
pub(crate) const FOLDER: &str = "/_via/";

const SCRIPT: &str = include_str!("../assets/via.js");
const STYLE: &str = include_str!("../assets/via.css");
/// Without one, browsers ask for `/favicon.ico` and log that it is missing.
const ICON: &str = include_str!("../assets/icon.svg");
const DATASTAR: &str = include_str!("../assets/vendor/datastar-1.0.2.js");
/// How our script names Datastar, until both have their hashed addresses.
const IMPORT: &str = "'./datastar.js'";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const CSS: &str = "text/css; charset=utf-8";

/// A file under an address that changes with its content, so that it can be cached for ever.
#[derive(Debug, Clone)]
pub(crate) struct Asset {
    pub(crate) name: String,
    kind: &'static str,
    bytes: Bytes,
}

/// Every file of an app.
#[derive(Debug, Clone)]
pub(crate) struct Assets {
    pub(crate) script: Asset,
    pub(crate) datastar: Asset,
    pub(crate) icon: Asset,
    pub(crate) styles: Vec<Asset>,
}

impl Asset {
    fn new(stem: &str, extension: &str, kind: &'static str, content: impl Into<Bytes>) -> Self {
        let bytes = content.into();
        let hash = blake3::hash(&bytes).to_hex();
        Self { name: format!("{stem}-{}.{extension}", &hash[..16]), kind, bytes }
    }
}

impl Assets {
    /// Our files, and the app's stylesheets after ours so that they win.
    pub(crate) fn new(stylesheets: &[String]) -> Self {
        let datastar = Asset::new("datastar-1.0.2", "js", JAVASCRIPT, DATASTAR);
        // The import is relative to the script's own address, so no prefix has to be known here.
        let script = SCRIPT.replace(IMPORT, &format!("'./{}'", datastar.name));
        let own = Asset::new("via", "css", CSS, STYLE);
        let theirs = stylesheets.iter().map(|css| Asset::new("style", "css", CSS, css.clone()));
        Self {
            script: Asset::new("via", "js", JAVASCRIPT, script),
            datastar,
            icon: Asset::new("icon", "svg", SVG, ICON),
            styles: std::iter::once(own).chain(theirs).collect(),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Asset> {
        [&self.script, &self.datastar, &self.icon]
            .into_iter()
            .chain(&self.styles)
            .find(|asset| asset.name == name)
    }
}

impl IntoResponse for &Asset {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.bytes.clone()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        response
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use sha2::{Digest, Sha256};

    use super::*;

    const PROVENANCE: &str = include_str!("../assets/vendor/datastar-1.0.2.provenance");
    const LICENSE: &str = include_str!("../assets/vendor/datastar-1.0.2.LICENSE.md");

    fn recorded(field: &str) -> &'static str {
        let line = PROVENANCE.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(" = "));
        line.unwrap_or_else(|| panic!("the provenance record has no `{field}`"))
    }

    #[test]
    fn the_vendored_runtime_is_the_recorded_one() {
        let hash = Sha256::digest(DATASTAR).iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes everything");
            hex
        });
        assert_eq!(hash, recorded("sha256"));
        assert_eq!(DATASTAR.len().to_string(), recorded("bytes"));
        assert!(DATASTAR.starts_with(&format!("// Datastar v{}\n", recorded("version"))));
        assert!(LICENSE.starts_with("Copyright © Star Federation"));
    }

    #[test]
    fn the_script_imports_datastar_by_its_hashed_name() {
        let assets = Assets::new(&[]);
        let script = std::str::from_utf8(&assets.script.bytes).expect("UTF-8");
        assert!(script.contains(&format!("from './{}'", assets.datastar.name)));
        assert!(!script.contains(IMPORT));
    }

    #[test]
    fn a_changed_file_has_another_address() {
        let one = Assets::new(&["a{}".into()]);
        let two = Assets::new(&["b{}".into()]);
        assert_ne!(one.styles[1].name, two.styles[1].name);
        assert!(one.find(&two.styles[1].name).is_none());
        assert_eq!(one.script.name, two.script.name);
    }

    #[test]
    fn our_script_stays_small() {
        assert!(SCRIPT.len() < 12 * 1024, "{} bytes", SCRIPT.len());
    }
}
