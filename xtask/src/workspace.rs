//! Where the workspace is, and how its cargo is called.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    // Asked at run time first: a binary that was moved or kept must not look where it was once built.
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest_dir).parent().expect("xtask is a folder of the workspace").to_owned()
}

/// Where cargo builds, and where helper programs are unpacked.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |given| root().join(given))
}

/// The cargo this program was started by, in the workspace's root.
pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(arguments);
    cargo
}

/// Runs a `cargo build` of one program, and says where cargo put it.
///
/// # Errors
/// If it does not build; cargo has said why.
pub(crate) fn executable(mut build: Command) -> Result<PathBuf, String> {
    // Only cargo knows where it builds: a variable, a setting or a wrapper may have said so.
    let build = build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = build.output().map_err(|error| format!("cargo did not start ({error})"))?;
    if !output.status.success() {
        return Err(format!("{} ({build:?})", output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    named_executable(&messages).ok_or_else(|| format!("cargo names no program ({build:?})"))
}

/// The last message about a program, the one that was asked for, is `{…,"executable":"/target/debug/chat",…}`.
fn named_executable(messages: &str) -> Option<PathBuf> {
    let (_, rest) = messages.rsplit_once("\"executable\":\"")?;
    // A path with characters that JSON escapes would be wrong here, and not be found.
    rest.split('"').next().map(PathBuf::from)
}

/// The first line a program prints, if it can be started and is content.
pub(crate) fn says(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::named_executable;

    #[test]
    fn the_program_cargo_built_is_found_among_its_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"via"},"executable":null,"fresh":true}
{"reason":"compiler-artifact","target":{"name":"chat"},"executable":"/target/release/chat","fresh":false}
{"reason":"build-finished","success":true}"#;
        assert_eq!(named_executable(messages).as_deref(), Some(Path::new("/target/release/chat")));
        assert_eq!(named_executable(r#"{"executable":null}"#), None);
    }
}
