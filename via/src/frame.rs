//! A frame: a rendered view as the stream carries it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use maud::Render as _;

use crate::Html;

/// The element a frame replaces, by its id.
pub(crate) const ROOT: &str = "via-view";

/// Which frame a tab shows: a digest of its HTML, the same on every pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameId([u8; 12]);

impl FrameId {
    fn of(html: &str) -> Self {
        let digest = blake3::hash(html.as_bytes());
        Self(digest.as_bytes()[..12].try_into().expect("a digest is longer"))
    }

    /// The id a tab sent. Anything else is no frame, and the tab gets the present one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(Self(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }

    pub(crate) fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// A rendered view inside its root element.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) id: FrameId,
    pub(crate) html: String,
}

impl Frame {
    /// Puts a view into its root, which also seeds the signals the browser does not have yet.
    ///
    /// The seeds are on the root, because Datastar reads attributes from the outside in: a signal exists, as text, before
    /// an input is bound to it and could make it a number.
    pub(crate) fn new(view: &Html, seeds: &str) -> Self {
        let mut html = String::with_capacity(view.0.len() + seeds.len() + 64);
        html.push_str("<div id=\"");
        html.push_str(ROOT);
        html.push_str("\" data-signals__ifmissing=\"");
        seeds.render_to(&mut html);
        html.push_str("\">");
        html.push_str(&view.0);
        html.push_str("</div>");
        Self { id: FrameId::of(&html), html }
    }

    /// The frame as a server-sent event.
    pub(crate) fn event(&self) -> Bytes {
        let mut event = format!("event: datastar-patch-elements\nid: {}\n", self.id.to_text());
        data(&mut event, "elements", &self.html);
        event.push('\n');
        event.into()
    }
}

/// A notice as a server-sent event of our own.
pub(crate) fn notice(text: &str) -> Bytes {
    let mut event = String::from("event: via-notice\n");
    data(&mut event, "text", text);
    event.push('\n');
    event.into()
}

/// One `data` line per line of the value. Carriage returns end a line there too, and HTML reads them as line feeds.
fn data(event: &mut String, field: &str, value: &str) {
    for line in value.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r')) {
        event.push_str("data: ");
        event.push_str(field);
        event.push(' ');
        event.push_str(line);
        event.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use maud::PreEscaped;

    use super::*;

    #[test]
    fn a_frame_is_one_event_whatever_its_line_ends() {
        let frame = Frame::new(&PreEscaped("a\nb\r\nc\rd".into()), "{}");
        let event = frame.event();
        let event = std::str::from_utf8(&event).expect("UTF-8");
        let expected = format!(
            "event: datastar-patch-elements\nid: {}\n\
             data: elements <div id=\"via-view\" data-signals__ifmissing=\"{{}}\">a\n\
             data: elements b\ndata: elements c\ndata: elements d</div>\n\n",
            frame.id.to_text()
        );
        assert_eq!(event, expected);
    }

    #[test]
    fn seeds_are_escaped_into_their_attribute() {
        let frame = Frame::new(&PreEscaped(String::new()), r#"{"a":""}"#);
        assert!(
            frame.html.contains(r#"data-signals__ifmissing="{&quot;a&quot;:&quot;&quot;}""#),
            "{}",
            frame.html
        );
    }

    #[test]
    fn an_id_names_the_content_and_survives_the_wire() {
        let id = |view: &str| Frame::new(&PreEscaped(view.into()), "{}").id;
        assert_eq!(id("a"), id("a"));
        assert_ne!(id("a"), id("b"));
        assert_eq!(FrameId::parse(&id("a").to_text()), Some(id("a")));
        for text in ["", "x", "AAAA", "%%%"] {
            assert_eq!(FrameId::parse(text), None);
        }
    }
}
