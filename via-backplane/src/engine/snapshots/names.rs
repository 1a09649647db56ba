//! What the cells of a key's snapshots are called.

use super::{super::internal_cell, Generation};
use crate::{CellKey, Key, MAX_CELL_KEY_BYTES};

/// The segment of a plain field; those of instances all begin with `i-` or `h-`.
const PLAIN: &str = "plain";

/// The names of one key's cells.
pub(super) struct Names {
    family: String,
    instance: String,
    manifest: CellKey,
}

impl Names {
    pub(super) fn of(key: &Key) -> Self {
        let family = key.family().as_str().to_owned();
        let instance = match key.instance_name() {
            None => PLAIN.to_owned(),
            Some(name) if fits(&family, name) => format!("i-{name}"),
            // Two names share a digest only where BLAKE3 is broken.
            Some(name) => format!("h-{}", blake3::hash(name.as_bytes()).to_hex()),
        };
        let manifest = internal_cell(&["snapshots", &family, &instance]);
        Self { family, instance, manifest }
    }

    pub(super) fn manifest(&self) -> &CellKey {
        &self.manifest
    }

    /// The cell whose end is the end of the rollback window.
    pub(super) fn rollback(&self) -> CellKey {
        internal_cell(&["rollback", &self.family, &self.instance])
    }

    pub(super) fn chunk(&self, generation: Generation, index: u32) -> CellKey {
        let (generation, index) = (generation.0.to_string(), index.to_string());
        internal_cell(&["chunks", &self.family, &self.instance, &generation, &index])
    }
}

/// Whether the longest name of this instance's cells, escaped, is one.
fn fits(family: &str, instance: &str) -> bool {
    let escaped = |name: &str| name.len() + 2 * name.matches(['/', '%']).count();
    let around = "via/chunks//i-//".len() + u64::MAX.to_string().len() + u32::MAX.to_string().len();
    around + escaped(family) + escaped(instance) <= MAX_CELL_KEY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, MAX_FAMILY_BYTES, MAX_INSTANCE_BYTES};

    fn names(family: &str, instance: Option<&str>) -> Names {
        let family = Family::new(family).expect("a valid name");
        let key = instance.map_or_else(
            || Key::of(&family),
            |instance| Key::instance(&family, instance).expect("a valid name"),
        );
        Names::of(&key)
    }

    #[test]
    fn cells_are_named_after_the_key() {
        assert_eq!(names("posts", None).manifest().as_str(), "via/snapshots/posts/plain");
        let room = names("rooms", Some("a/b"));
        assert_eq!(room.manifest().as_str(), "via/snapshots/rooms/i-a%2Fb");
        assert_eq!(room.chunk(Generation(7), 2).as_str(), "via/chunks/rooms/i-a%2Fb/7/2");
        assert_eq!(room.rollback().as_str(), "via/rollback/rooms/i-a%2Fb");
    }

    #[test]
    fn a_plain_field_is_called_like_no_instance() {
        assert_ne!(names("a", None).manifest(), names("a", Some("plain")).manifest());
    }

    #[test]
    fn the_longest_names_still_name_cells() {
        let family = "/".repeat(MAX_FAMILY_BYTES);
        let mut seen = std::collections::BTreeSet::new();
        for last in ["/", "%", "x"] {
            let instance = "/".repeat(MAX_INSTANCE_BYTES - 1) + last;
            let names = names(&family, Some(&instance));
            seen.insert(names.chunk(Generation(u64::MAX), u32::MAX));
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn a_name_is_hashed_only_when_it_must_be() {
        let around = "via/chunks/f/i-//18446744073709551615/4294967295".len();
        let free = MAX_CELL_KEY_BYTES - around;
        let slashes = "/".repeat(MAX_INSTANCE_BYTES);
        assert!(3 * slashes.len() < free, "one long name alone fits");
        assert!(names("f", Some(&slashes)).manifest().as_str().contains("i-%2F"));
        let family = "/".repeat(MAX_FAMILY_BYTES);
        assert!(names(&family, Some(&slashes)).manifest().as_str().contains("/h-"));
    }
}
