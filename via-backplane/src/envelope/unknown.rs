//! Fields of an envelope that this version does not know.

use std::fmt;

use super::{
    LAST,
    wire::{self, Reader},
};

/// The fields of a record that this version does not know, as they stand in it.
///
/// It holds no copy of them: where there are any, it remembers the part of the record they are in, and finds them again
/// when they are asked for.
#[derive(Clone, Copy, Default)]
pub struct Unknown<'a> {
    /// The record from the first unknown field on, known ones among them.
    onwards: &'a [u8],
    /// How many bytes of it are unknown fields.
    len: usize,
}

impl<'a> Unknown<'a> {
    /// How many bytes these fields take up.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The fields, each with its key, in the order of the record.
    pub fn fields(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.onwards);
        std::iter::from_fn(move || {
            // Asking for a key at the end would make an error, and that allocates.
            while !reader.rest().is_empty() {
                let field = reader.rest();
                let key = reader.key()?;
                reader.skip(key)?;
                if wire::number(key) > LAST {
                    return Some(&field[..field.len() - reader.rest().len()]);
                }
            }
            None
        })
    }

    /// Adds the field that begins `onwards` and ends where `after` begins, behind all fields added before.
    #[cold]
    pub(super) fn push(&mut self, onwards: &'a [u8], after: &[u8]) {
        if self.is_empty() {
            self.onwards = onwards;
        }
        self.len += onwards.len() - after.len();
    }
}

impl PartialEq for Unknown<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.fields().eq(other.fields())
    }
}

impl Eq for Unknown<'_> {}

impl fmt::Debug for Unknown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fields()).finish()
    }
}
