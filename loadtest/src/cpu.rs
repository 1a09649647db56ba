//! Processor time of this program and of the server it has started: what a busy machine distorts least.

use std::{fmt, fs, time::Duration};

use serde::Serialize;

/// The unit of `/proc/<pid>/stat`, the same on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// Whose time is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processes {
    server: Option<u32>,
}

/// Processor time, of this program and of the server's process where that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    client: Duration,
    server: Option<Duration>,
}

/// Microseconds of processor time per operation.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CpuEach {
    client_us: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_us: Option<f64>,
}

impl Processes {
    pub(crate) fn new(server: Option<u32>) -> Self {
        Self { server }
    }

    /// What they have used so far; nothing where the system does not say.
    pub(crate) fn used(self) -> Option<Cpu> {
        Some(Cpu { client: used("self")?, server: self.server.and_then(|pid| used(&pid.to_string())) })
    }

    /// What they have used since then.
    pub(crate) fn used_since(self, before: Option<Cpu>) -> Option<Cpu> {
        let (now, before) = self.used().zip(before)?;
        let server = now.server.zip(before.server).map(|(now, then)| now.saturating_sub(then));
        Some(Cpu { client: now.client.saturating_sub(before.client), server })
    }
}

/// What several runs have used; nothing once one of them could not say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Total {
    used: Cpu,
    operations: usize,
    is_unknown: bool,
}

impl Total {
    pub(crate) fn add(&mut self, used: Option<Cpu>, operations: usize) {
        self.is_unknown |= used.is_none();
        let used = used.unwrap_or_default();
        let server = if self.operations == 0 { Some(Duration::ZERO) } else { self.used.server };
        self.used.client += used.client;
        self.used.server = server.zip(used.server).map(|(before, more)| before + more);
        self.operations += operations;
    }

    pub(crate) fn each(self) -> Option<CpuEach> {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / self.operations as f64;
        (!self.is_unknown && self.operations > 0)
            .then(|| CpuEach { client_us: each(self.used.client), server_us: self.used.server.map(each) })
    }
}

impl fmt::Display for CpuEach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {:.1} µs", self.client_us)?;
        self.server_us.map_or(Ok(()), |us| write!(f, ", server {us:.1} µs"))
    }
}

fn used(process: &str) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    ticks(&stat).map(|ticks| TICK * ticks)
}

/// User and system time: the fields 14 and 15. The second one, the program's name, may hold anything but ends with the
/// last parenthesis.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_found_whatever_a_program_is_called() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 17 4 0 0 20 0 3 0 12345 1 1";
        assert_eq!(ticks(stat), Some(21));
        assert_eq!(ticks("nonsense"), None);
    }
}
