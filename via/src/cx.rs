//! The context of an action: what came with it, and what goes back to its tab.

use std::{collections::BTreeMap, fmt};

use parking_lot::Mutex;
use via_backplane::{Engine, TraceContext};

use crate::{Result, signal::Signals};

/// The context of one action.
///
/// It holds the signals the browser sent, and collects what the acting tab alone gets back. Everybody's view, the acting
/// tab's included, follows the state by itself.
pub struct Cx {
    engine: Engine,
    signals: Signals,
    trace: TraceContext,
    effects: Mutex<Effects>,
}

/// What an action has for its own tab.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Signals to set to a value, each only if it still is what was sent.
    pub(crate) clear: BTreeMap<&'static str, String>,
    pub(crate) notice: Option<String>,
    pub(crate) redirect: Option<String>,
}

impl Cx {
    pub(crate) fn new(engine: Engine, signals: Signals, trace: TraceContext) -> Self {
        Self { engine, signals, trace, effects: Mutex::default() }
    }

    /// Shows a text to the person who acted. The last one counts.
    pub fn notice(&self, text: impl Into<String>) {
        self.effects.lock().notice = Some(text.into());
    }

    /// Sends the acting tab to another page of this host: a path such as `/rooms/7`.
    ///
    /// # Errors
    /// If `path` is not a path on this host.
    pub fn redirect(&self, path: impl Into<String>) -> Result<()> {
        let path = path.into();
        if !is_local(&path) {
            return Err(NotLocal(path).into());
        }
        self.effects.lock().redirect = Some(path);
        Ok(())
    }

    /// The engine of this app.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The trace this action belongs to: the request's `traceparent`, else a new one.
    ///
    /// What the action appends carries it.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.trace
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    pub(crate) fn clear(&self, key: &'static str, value: String) {
        self.effects.lock().clear.insert(key, value);
    }

    pub(crate) fn take_effects(&self) -> Effects {
        std::mem::take(&mut self.effects.lock())
    }
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx").field("effects", &self.effects).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a path on this host: redirect to one that starts with a single `/`")]
struct NotLocal(String);

/// Browsers read `//host`, `/\host` and control characters between them as another host.
fn is_local(path: &str) -> bool {
    path.starts_with('/')
        && !path[1..].starts_with(['/', '\\'])
        && !path.contains(|character: char| character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_on_this_host_is_local() {
        for path in ["/", "/rooms/7?a=b#c"] {
            assert!(is_local(path), "{path}");
        }
        for path in
            ["", "rooms", "//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example"]
        {
            assert!(!is_local(path), "{path}");
        }
    }
}
