//! What an engine's builder can set, beyond its surroundings.

/// How an engine works, the same for every family.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Instances of a family that this pod keeps in memory at most.
    pub(crate) resident_instances: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { resident_instances: 10_000 }
    }
}
