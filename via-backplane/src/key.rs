//! Names of shared state: a family and, optionally, one of its instances.

use std::{fmt, hash, sync::Arc};

/// The longest family name, in bytes.
pub const MAX_FAMILY_BYTES: usize = 128;
/// The longest instance name, in bytes.
pub const MAX_INSTANCE_BYTES: usize = 256;

/// A family: one log of events, shared by all of its instances.
///
/// Any characters are allowed; adapters encode what their backend cannot hold, injectively.
/// Cloning is a reference count.
///
/// ```
/// use via_backplane::Family;
/// let rooms = Family::new("rooms")?;
/// assert_eq!(rooms.as_str(), "rooms");
/// # Ok::<(), via_backplane::InvalidKey>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(Arc<str>);

impl Family {
    /// Names a family.
    ///
    /// # Errors
    /// [`InvalidKey`] if the name is empty or longer than [`MAX_FAMILY_BYTES`].
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidKey> {
        check("family", name.as_ref(), MAX_FAMILY_BYTES).map(|name| Self(name.into()))
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Family({:?})", &*self.0)
    }
}

/// One piece of event-sourced state: a family and, optionally, an instance of it.
///
/// `posts` is the only instance of the family `posts`; `rooms/42` is the instance `42` of `rooms`. Cloning
/// is a reference count.
///
/// ```
/// use via_backplane::{Family, Key};
/// let rooms = Family::new("rooms")?;
/// let room = Key::instance(&rooms, "42")?;
/// assert_eq!(room.to_string(), "rooms/42");
/// assert_eq!(room.family(), &rooms);
/// assert_ne!(room, Key::of(&rooms));
/// # Ok::<(), via_backplane::InvalidKey>(())
/// ```
#[derive(Clone)]
pub struct Key(Arc<Parts>);

#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Parts {
    family: Family,
    instance: Option<Box<str>>,
}

impl Key {
    /// The key of a plain field: its family's single, unnamed instance.
    #[must_use]
    pub fn of(family: &Family) -> Self {
        Self(Arc::new(Parts { family: family.clone(), instance: None }))
    }

    /// Names one instance of a family.
    ///
    /// # Errors
    /// [`InvalidKey`] if the instance is empty or longer than [`MAX_INSTANCE_BYTES`].
    pub fn instance(family: &Family, instance: impl AsRef<str>) -> Result<Self, InvalidKey> {
        let instance = check("instance", instance.as_ref(), MAX_INSTANCE_BYTES)?;
        Ok(Self(Arc::new(Parts { family: family.clone(), instance: Some(instance.into()) })))
    }

    /// The family this key belongs to.
    #[must_use]
    pub fn family(&self) -> &Family {
        &self.0.family
    }

    /// The instance's name, or `None` for a plain field.
    #[must_use]
    pub fn instance_name(&self) -> Option<&str> {
        self.0.instance.as_deref()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // Keys are cloned far more often than they are made, so most comparisons end here.
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl hash::Hash for Key {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.instance {
            Some(instance) => write!(f, "{}/{instance}", self.0.family),
            None => write!(f, "{}", self.0.family),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A name that cannot be a family, an instance or a cell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The name has no characters.
    #[error("the {what} name is empty")]
    Empty {
        /// What was being named.
        what: &'static str,
    },
    /// The name is longer than allowed.
    #[error("the {what} name has {len} bytes, {max} are allowed")]
    TooLong {
        /// What was being named.
        what: &'static str,
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
}

pub(crate) fn check<'a>(what: &'static str, name: &'a str, max: usize) -> Result<&'a str, InvalidKey> {
    match name.len() {
        0 => Err(InvalidKey::Empty { what }),
        len if len > max => Err(InvalidKey::TooLong { what, len, max }),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_never_empty() {
        assert_eq!(Family::new(""), Err(InvalidKey::Empty { what: "family" }));
        let family = Family::new("f").expect("a valid name");
        let long = "x".repeat(MAX_INSTANCE_BYTES + 1);
        assert_eq!(
            Key::instance(&family, long),
            Err(InvalidKey::TooLong { what: "instance", len: 257, max: 256 })
        );
    }

    #[test]
    fn a_plain_field_is_not_an_instance_of_any_name() {
        let family = Family::new("a/b").expect("a valid name");
        let other = Family::new("a").expect("a valid name");
        let instance = Key::instance(&other, "b").expect("a valid name");
        // They print alike and are different keys: adapters must encode, never format.
        assert_eq!(Key::of(&family).to_string(), instance.to_string());
        assert_ne!(Key::of(&family), instance);
    }
}
