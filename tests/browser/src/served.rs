//! A program that serves a page, run as a person would run it.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, ExitStatus};
use std::thread;

/// A running program and the address it printed; killed when dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    url: String,
}

impl Served {
    /// Starts a program and waits until it prints the address it serves.
    ///
    /// What it prints besides goes to this process's standard error.
    ///
    /// # Panics
    /// If it cannot be started, or ends before it printed an address.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let (output, input) = io::pipe().expect("a pipe can be made");
        command.stdout(input.try_clone().expect("a pipe can be shared")).stderr(input);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
        // The command holds the pipe's other end as well; reading would never end.
        drop(command);

        let mut lines = BufReader::new(output).lines();
        let mut said = String::new();
        let url = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("it ended before it printed an address:\n{said}")
            };
            if let Some(url) = address(&line) {
                break url;
            }
            said += &line;
            said.push('\n');
        };
        // Somebody has to read on, or the program waits for room in the pipe.
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Self { child, url }
    }

    /// The address it printed.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks it to stop, as Ctrl-C does, and waits until it has.
    ///
    /// # Panics
    /// If it cannot be asked or waited for.
    #[must_use = "the status says whether it stopped cleanly"]
    pub fn stop(mut self) -> ExitStatus {
        let asked = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
        assert!(asked.is_ok_and(|status| status.success()), "`kill -INT` failed");
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is what they are for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn address(line: &str) -> Option<String> {
    let start = line.find("http://")?;
    let url = line[start..].split_whitespace().next()?;
    Some(url.trim_end_matches(['.', ',', ')']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn the_address_is_found_in_what_a_person_reads() {
        let line = "Listening: open http://127.0.0.1:3000/ in two windows.";
        assert_eq!(address(line).as_deref(), Some("http://127.0.0.1:3000/"));
        assert_eq!(address("open http://[::1]:3000.").as_deref(), Some("http://[::1]:3000"));
        assert_eq!(address("starting"), None);
    }
}
