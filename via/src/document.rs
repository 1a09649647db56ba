//! The document: a page's first response, and the shell around what frames patch.

use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use maud::{DOCTYPE, PreEscaped, html};

use crate::{
    assets::{Assets, FOLDER},
    frame::{Frame, ROOT},
    refusal::GENERIC,
    render::NoFrame,
    security,
};

/// What people read when a page could not be loaded yet; the stream brings it when it can.
const NOT_LOADED: &str = "This page is still loading.";

/// What is in the shell, outside what frames patch.
pub(crate) struct Shell<'a> {
    pub(crate) title: &'a str,
    pub(crate) tab: &'a str,
    pub(crate) assets: &'a Assets,
    /// The path the app's router is nested at; empty at the root.
    pub(crate) prefix: &'a str,
}

impl Shell<'_> {
    /// The document around a frame, or around nothing yet: then its stream brings the frame when there is one.
    pub(crate) fn respond(&self, frame: Result<Frame, NoFrame>) -> Response {
        let (status, notice) = match &frame {
            Ok(_) => (StatusCode::OK, None),
            Err(NoFrame::Panicked) => (StatusCode::INTERNAL_SERVER_ERROR, Some(GENERIC)),
            Err(NoFrame::NotLoaded) => (StatusCode::SERVICE_UNAVAILABLE, Some(NOT_LOADED)),
        };
        let content_type = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        security::document((status, content_type, self.render(frame.ok().as_ref(), notice)).into_response())
    }

    fn render(&self, frame: Option<&Frame>, notice: Option<&str>) -> String {
        let id = frame.map(|frame| frame.id.to_text()).unwrap_or_default();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) }
                    meta name="via-tab" content=(self.tab);
                    meta name="via-frame" content=(id);
                    @for style in &self.assets.styles {
                        link rel="stylesheet" href=(self.address(&style.name));
                    }
                    link rel="icon" href=(self.address(&self.assets.icon.name));
                    link rel="modulepreload" href=(self.address(&self.assets.datastar.name));
                    script type="module" src=(self.address(&self.assets.script.name)) {}
                }
                body {
                    @match frame {
                        Some(frame) => (PreEscaped(&frame.html)),
                        None => div id=(ROOT) {},
                    }
                    div id="via-notice" role="status" hidden[notice.is_none()] { (notice.unwrap_or_default()) }
                }
            }
        };
        page.into_string()
    }

    fn address(&self, name: &str) -> String {
        format!("{}{FOLDER}{name}", self.prefix)
    }
}

/// The path a router is nested at: what the browser asked for, without what reached the router.
pub(crate) fn prefix<'a>(asked: &'a str, reached: &str) -> &'a str {
    asked.strip_suffix(reached).unwrap_or_else(|| asked.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_what_the_router_did_not_see() {
        assert_eq!(prefix("/", "/"), "");
        assert_eq!(prefix("/rooms/7", "/rooms/7"), "");
        assert_eq!(prefix("/app/rooms/7", "/rooms/7"), "/app");
        assert_eq!(prefix("/app/", "/"), "/app");
        assert_eq!(prefix("/app", "/"), "/app");
    }
}
