//! A child process that does not outlive this one.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::wait::wait_for;

/// How long a process may take to stop once it was asked to.
const GRACE: Duration = Duration::from_secs(20);

/// Reads until the pipe from its parent closes, which it does when the parent ends for whatever reason, then kills
/// the first argument and removes the others.
const WATCH: &str = r#"read -r _; kill -9 "$1"; shift; rm -rf -- "$@""#;

/// A running program, killed when dropped, and also when this process ends without dropping it.
///
/// It is in a process group of its own, so that Ctrl-C at a terminal reaches this process alone, which then stops
/// what it has started in the order it wants.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// A shell that waits for this process's death; a pipe tells it, so even `kill -9` does.
    guard: Child,
}

impl Process {
    /// Starts a program; what it prints goes wherever `command` says.
    ///
    /// # Errors
    /// Names the program that could not be started.
    pub fn spawn(command: &mut Command) -> Result<Self, String> {
        Self::spawn_in(command, None)
    }

    /// As [`Process::spawn`], with a program that is told something on its standard input.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn_with_input(command: &mut Command) -> Result<(Self, ChildStdin), String> {
        let mut process = Self::launch(command.stdin(Stdio::piped()), None)?;
        let input = process.child.stdin.take().ok_or("the program has no standard input")?;
        Ok((process, input))
    }

    /// As [`Process::spawn`]; `dir` goes too when this process ends without cleaning up.
    pub(crate) fn spawn_in(command: &mut Command, dir: Option<&Path>) -> Result<Self, String> {
        Self::launch(command.stdin(Stdio::null()), dir)
    }

    fn launch(command: &mut Command, dir: Option<&Path>) -> Result<Self, String> {
        let mut child = command
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{} did not start: {error}", command.get_program().display()))?;
        match guard(child.id(), dir) {
            Ok(guard) => Ok(Self { child, guard }),
            Err(error) => {
                end(&mut child);
                Err(format!("no shell to watch over it: {error}"))
            }
        }
    }

    /// The process's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten()?;
        end(&mut self.guard);
        Some(status)
    }

    /// Ends it as `kill -9` does, and waits until it is gone; nothing happens if it has ended.
    pub fn kill(&mut self) {
        // Both fail where it has ended already, which is what they are for.
        self.child.kill().ok();
        // The guard goes before the process's id can be somebody else's.
        end(&mut self.guard);
        self.child.wait().ok();
    }

    /// Asks it to stop, as SIGTERM does, and waits until it has; one that does not within 20 seconds is killed.
    pub fn stop(&mut self) {
        // A paused one takes the request when it runs on.
        if self.ended().is_none() && self.signal("TERM").is_ok() && self.signal("CONT").is_ok() {
            wait_for(GRACE, || self.ended());
        }
        self.kill();
    }

    /// Stops it from running without ending it, as SIGSTOP does: its connections stay, and nobody answers on them.
    ///
    /// # Errors
    /// If it has ended.
    pub fn pause(&mut self) -> Result<(), String> {
        self.signal("STOP")?;
        // The signal reaches one thread after the other, and those that still run may answer.
        wait_for(GRACE, || is_stopped(self.child.id()).then_some(()))
            .ok_or_else(|| format!("it did not stop within {GRACE:?}"))
    }

    /// Lets a paused one run on.
    ///
    /// # Errors
    /// If it has ended.
    pub fn resume(&mut self) -> Result<(), String> {
        self.signal("CONT")
    }

    fn signal(&mut self, name: &str) -> Result<(), String> {
        if let Some(status) = self.ended() {
            return Err(format!("it has ended ({status}), and takes no {name}"));
        }
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        match sent {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("`kill -{name}` failed ({status})")),
            Err(error) => Err(format!("`kill -{name}` did not start: {error}")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether none of a process's threads runs any more.
fn is_stopped(id: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { return false };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // `1234 (nats-server) T 1 …`; a name may hold anything but is followed by the last parenthesis.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    })
}

fn guard(watched: u32, dir: Option<&Path>) -> std::io::Result<Child> {
    Command::new("sh")
        .args(["-c", WATCH, "sh", &watched.to_string()])
        .args(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

fn end(child: &mut Child) {
    child.kill().ok(); // It may have ended already.
    child.wait().ok();
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::{GRACE, Process};
    use crate::dir::Dir;
    use crate::wait::wait_for;

    #[test]
    fn a_child_whose_parent_is_gone_is_killed_and_its_directory_removed() {
        let dir = Dir::fresh().expect("a directory can be made");
        let mut child = Process::spawn_in(Command::new("sleep").arg("600"), dir.ours()).expect("it starts");
        // What happens to every pipe of a process that ends, however it ends.
        drop(child.guard.stdin.take());
        // The guard's last act; to see the child end ends its guard.
        wait_for(GRACE, || (!dir.path().exists()).then_some(())).expect("the directory is removed");
        let status = wait_for(GRACE, || child.ended()).expect("it is killed");
        assert_eq!(status.signal(), Some(9));
    }

    #[test]
    fn a_child_that_is_paused_does_not_run() {
        let mut child =
            Process::spawn(Command::new("sh").args(["-c", "while :; do :; done"])).expect("it starts");
        child.pause().expect("it stops");
        assert!(super::is_stopped(child.id()));
        child.resume().expect("it runs on");
        wait_for(GRACE, || (!super::is_stopped(child.id())).then_some(())).expect("it runs on");
    }

    #[test]
    fn a_child_that_is_dropped_is_gone() {
        let child = Process::spawn(Command::new("sleep").arg("600")).expect("it starts");
        let id = child.id();
        drop(child);
        assert!(!Command::new("kill").args(["-0", &id.to_string()]).status().expect("kill starts").success());
    }
}
