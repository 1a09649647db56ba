//! The cell store an adapter implements.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::{BackendError, CasError, Incarnation, InvalidKey, Reply, Rev, key};

/// Current values with revisions, changed by compare-and-swap.
///
/// # Guarantees
///
/// - **S1** [`load`](Self::load) answers bytes and revision, or nothing. It may lag during a leader change: **only cas is
///   linearizable**, and no irreversible act may rest on a load alone.
/// - **S2** [`cas`](Self::cas): of racing writers that expect the same, exactly one wins. An unknown outcome is
///   [`CasError::MaybeCommitted`]. Revisions never repeat or fall for a key, through delete and expiry; the store has
///   an incarnation that changes when it was recreated.
/// - **S3** [`delete`](Self::delete) is a compare-and-swap too.
/// - **S4** Every write states its time to live, or none.
/// - **S5** [`watch`](Self::watch) replays the present between [`Change::Begin`] and [`Change::End`] on each (re)connect (keys
///   not replayed are gone), then changes. Coalescing is allowed, missing the latest is not; values may be left out.
///   One-key watches are cheap at 10,000 per pod.
/// - **S6** A value over `limits()` is refused with the limit in the error, before anything is sent.
pub trait Store: Send + Sync {
    /// The generation of this store.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn incarnation(&self) -> Reply<'_, Result<Incarnation, BackendError>>;

    /// The present value of a cell.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn load<'a>(&'a self, key: &'a CellKey) -> Reply<'a, Result<Option<Versioned>, BackendError>>;

    /// Writes a cell if it is as expected.
    ///
    /// # Cancel safety
    /// Dropping the reply abandons the answer, not the write: it may still be committed.
    fn cas<'a>(
        &'a self,
        key: &'a CellKey,
        expected: Expected,
        bytes: Bytes,
        ttl: Ttl,
    ) -> Reply<'a, Result<Rev, CasError>>;

    /// Removes a cell if it is at the expected revision.
    ///
    /// # Cancel safety
    /// Dropping the reply abandons the answer, not the delete: it may still be committed.
    fn delete<'a>(&'a self, key: &'a CellKey, expected: Rev) -> Reply<'a, Result<(), CasError>>;

    /// Follows one cell, or all below a prefix. The reply answers when the watch is established.
    ///
    /// # Cancel safety
    /// Cancel-safe; dropping the watch ends it.
    fn watch<'a>(&'a self, selector: &'a CellSelector) -> Reply<'a, Result<Watch, BackendError>>;
}

/// The longest cell key, in bytes of its path.
pub const MAX_CELL_KEY_BYTES: usize = 1024;

/// The name of a cell: a path of segments, such as `app` / `theme`.
///
/// Segments may hold any characters; `/` and `%` inside one are escaped, so that paths stay injective.
///
/// ```
/// use via_backplane::CellKey;
/// let theme = CellKey::new(["app", "theme"])?;
/// assert_eq!(theme.as_str(), "app/theme");
/// assert_eq!(CellKey::new(["a/b"])?.as_str(), "a%2Fb");
/// # Ok::<(), via_backplane::InvalidKey>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey(Arc<str>);

impl CellKey {
    /// Names a cell by the segments of its path.
    ///
    /// # Errors
    /// [`InvalidKey`] if there is no segment, one is empty, or the path is longer than [`MAX_CELL_KEY_BYTES`].
    pub fn new<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Result<Self, InvalidKey> {
        let mut path = String::new();
        for segment in segments {
            if !path.is_empty() {
                path.push('/');
            }
            let segment = key::check("cell segment", segment.as_ref(), MAX_CELL_KEY_BYTES)?;
            for character in segment.chars() {
                match character {
                    '%' => path.push_str("%25"),
                    '/' => path.push_str("%2F"),
                    other => path.push(other),
                }
            }
        }
        key::check("cell", &path, MAX_CELL_KEY_BYTES)?;
        Ok(Self(path.into()))
    }

    /// The path, its segments escaped and joined by `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this key is strictly below `prefix`, by whole segments.
    #[must_use]
    pub fn is_below(&self, prefix: &Self) -> bool {
        self.0.strip_prefix(&*prefix.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CellKey({})", self.0)
    }
}

/// Which cells a watch follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellSelector {
    /// Exactly one.
    One(CellKey),
    /// All strictly below this path, by whole segments.
    Below(CellKey),
}

impl CellSelector {
    /// Whether a change of `key` is wanted.
    #[must_use]
    pub fn wants(&self, key: &CellKey) -> bool {
        match self {
            Self::One(wanted) => wanted == key,
            Self::Below(prefix) => key.is_below(prefix),
        }
    }
}

/// A cell's bytes at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The revision that wrote them.
    pub rev: Rev,
    /// The value.
    pub bytes: Bytes,
}

/// What a compare-and-swap expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No value: never written, deleted or expired.
    Absent,
    /// The value written at this revision.
    At(Rev),
}

/// How long a written value lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// Until it is changed or deleted.
    Forever,
    /// At least this long and, where nothing rewrites it, not much longer. Adapters may round up to whole seconds.
    For(Duration),
}

/// A live watch. Its last item is an error; after it, watch again.
pub type Watch = BoxStream<'static, Result<Change, BackendError>>;

/// What a watch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The present follows, until [`Change::End`].
    Begin,
    /// The present is complete; keys not replayed are gone.
    End,
    /// A cell has this revision now.
    Put {
        /// Which cell.
        key: CellKey,
        /// Its revision.
        rev: Rev,
        /// Its value, unless it was left out: then load it.
        bytes: Option<Bytes>,
    },
    /// A cell was deleted or has expired.
    Gone {
        /// Which cell.
        key: CellKey,
        /// The revision of the removal.
        rev: Rev,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_whole_segments_only() {
        let path = |segments: &[&str]| CellKey::new(segments).expect("a valid path");
        assert!(path(&["app", "theme"]).is_below(&path(&["app"])));
        assert!(!path(&["apple", "theme"]).is_below(&path(&["app"])));
        assert!(!path(&["app"]).is_below(&path(&["app"])));
        assert!(!path(&["app/theme"]).is_below(&path(&["app"])));
    }

    #[test]
    fn a_key_without_segments_is_refused() {
        assert_eq!(CellKey::new([""; 0]), Err(InvalidKey::Empty { what: "cell" }));
        assert_eq!(CellKey::new(["app", ""]), Err(InvalidKey::Empty { what: "cell segment" }));
    }
}
