//! Finds the nats-server to run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version tests run against, and the one `cargo xtask test` installs.
pub const VERSION: &str = "2.15.1";

/// The variable that names another nats-server.
pub const VARIABLE: &str = "VIA_NATS_SERVER";

/// The oldest that has everything the adapter uses: atomic batches came with it.
const OLDEST: (u32, u32) = (2, 12);

/// Where `cargo xtask test` keeps the pinned nats-server, below cargo's target directory.
#[must_use]
pub fn kept_in(target: &Path) -> PathBuf {
    target.join("tools").join(format!("nats-server-{VERSION}")).join("nats-server")
}

/// The nats-server to run: the one `VIA_NATS_SERVER` names, the pinned one, or one on the path that is new enough.
///
/// # Errors
/// Says what was looked at and what to do where there is none.
pub fn find() -> Result<PathBuf, String> {
    if let Some(given) = env::var_os(VARIABLE) {
        let given = PathBuf::from(given);
        return match version_of(&given) {
            Some(_) => Ok(given),
            None => Err(format!("{VARIABLE} names `{}`, which does not start", given.display())),
        };
    }
    if let Some(kept) = target_dirs().iter().map(|target| kept_in(target)).find(|kept| kept.is_file()) {
        return Ok(kept);
    }
    let on_path = PathBuf::from("nats-server");
    let found = version_of(&on_path);
    if found.as_deref().is_some_and(is_new_enough) {
        return Ok(on_path);
    }
    let on_path = found.map_or_else(
        || "none is on the path".to_owned(),
        |version| format!("the one on the path is {version}, and {}.{} is needed", OLDEST.0, OLDEST.1),
    );
    Err(format!(
        "there is no nats-server: {on_path}. `cargo xtask test` installs {VERSION} under the target directory; \
         or name one in {VARIABLE}."
    ))
}

/// Where the target directory may be: named by cargo's variable, above this very program, or the workspace's own.
fn target_dirs() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = env::var_os("CARGO_TARGET_DIR").map(|named| workspace.join(named));
    // A program may be run by hand from where cargo put it, without any of cargo's variables.
    let running = env::current_exe().unwrap_or_default();
    let above = running.ancestors().skip(1).map(Path::to_owned);
    named.into_iter().chain(above).chain([workspace.join("target")]).collect()
}

/// `2.15.1`, as the program itself says it; nothing if it cannot be started.
fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    // `nats-server: v2.15.1`
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().strip_prefix("nats-server: v").map(str::to_owned)
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (parts.next(), parts.next()) else { return false };
    (major, minor) >= OLDEST
}

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(is_new_enough("2.12.0"));
        assert!(is_new_enough("2.15.1"));
        assert!(is_new_enough("3.0.0-RC.1"));
        assert!(!is_new_enough("2.9.10"));
        assert!(!is_new_enough("2"));
        assert!(!is_new_enough("unknown"));
    }
}
