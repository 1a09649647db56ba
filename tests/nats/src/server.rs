//! One nats-server.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::config::{Config, Place, STORE, log_file};
use crate::dir::Dir;
use crate::find::find;
use crate::lock::Lock;
use crate::monitor;
use crate::ports::free_port;
use crate::process::Process;
use crate::wait::wait_for;

/// How long a server may take until it serves: far more than it needs, also on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a server is started elsewhere because somebody took its port first.
const ATTEMPTS: usize = 5;

/// A nats-server with JetStream, on the loopback interface; killed when dropped.
///
/// Its methods take `&self`, so that a test can stop a server while others use it.
#[derive(Debug)]
pub struct Server {
    place: Place,
    /// The program, after what runs it.
    program: Vec<PathBuf>,
    process: Lock<Process>,
    // Dropped after the process, which writes here until it ends.
    dir: Dir,
}

/// Why a server did not come up.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Somebody else listens where it should.
    PortTaken(String),
    Other(String),
}

impl Server {
    /// Starts a server and waits until it accepts clients and its JetStream answers.
    ///
    /// # Errors
    /// If there is no nats-server, the configuration is wrong, or it is not up within 30 seconds; with its log.
    pub fn start(config: Config) -> Result<Self, String> {
        retried(config.port.is_some(), || {
            let place = Place {
                name: "n1".to_owned(),
                client: config.port.unwrap_or_else(free_port),
                monitor: free_port(),
                cluster: None,
            };
            let server = Self::launch(&config, place, config.dir.clone())?;
            server.wait_until_ready()?;
            Ok(server)
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.addr())
    }

    /// Where clients connect, for a [`Proxy`](crate::Proxy).
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.place.client).into()
    }

    /// The port clients connect to; it stays the same through restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.place.client
    }

    /// The port that serves `/healthz`, `/jsz` and the like.
    #[must_use]
    pub fn monitor_port(&self) -> u16 {
        self.place.monitor
    }

    /// The id of its process, another one after every restart.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.lock().id()
    }

    /// The server's name in its cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Where its configuration, log and store are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its JetStream keeps everything; to be touched only while the server is down.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.dir().join(STORE)
    }

    /// Everything it has logged, and what it printed before it had a log.
    #[must_use]
    pub fn log(&self) -> String {
        let part = |file: PathBuf| fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        // Neither file need exist: a server that cannot start has no log, one that can prints nothing.
        part(printed_file(self.dir())).unwrap_or_default() + &part(log_file(self.dir())).unwrap_or_default()
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub fn kill(&self) {
        self.process.lock().kill();
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&self) {
        self.process.lock().stop();
    }

    /// Stops it from running without ending it, as SIGSTOP does.
    ///
    /// # Errors
    /// If it has ended.
    pub fn pause(&self) -> Result<(), String> {
        self.process.lock().pause()
    }

    /// Lets a paused one run on.
    ///
    /// # Errors
    /// If it has ended.
    pub fn resume(&self) -> Result<(), String> {
        self.process.lock().resume()
    }

    /// Starts it again on the same port and with the same store, after stopping it where it still runs.
    ///
    /// It is up when this returns; a server of a cluster has also caught up with the others.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&self) -> Result<(), String> {
        self.begin_restart()?;
        self.wait_until_ready().map_err(Trouble::into_text)
    }

    /// Starts it again as [`Server::restart`] does, without waiting until it is up.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn begin_restart(&self) -> Result<(), String> {
        let mut process = self.process.lock();
        process.stop();
        // What it logged so far would be taken for the new one's.
        let log = log_file(self.dir());
        fs::rename(&log, log.with_extension("before")).ok(); // It may not have come to have one.
        *process = spawn(&self.program, &self.dir)?;
        Ok(())
    }

    pub(crate) fn launch(config: &Config, place: Place, dir: Option<PathBuf>) -> Result<Self, Trouble> {
        let runner = config.runner.iter().map(PathBuf::from);
        let program: Vec<_> = runner.chain([find().map_err(Trouble::Other)?]).collect();
        let dir = dir.map_or_else(Dir::fresh, Dir::given).map_err(Trouble::Other)?;
        let file = config_file(dir.path());
        fs::write(&file, config.text(dir.path(), &place))
            .map_err(|error| Trouble::Other(format!("cannot write {}: {error}", file.display())))?;
        fs::remove_file(log_file(dir.path())).ok(); // A directory that was given may hold a former server's.
        let process = spawn(&program, &dir).map_err(Trouble::Other)?;
        Ok(Self { place, program, process: Lock::new(process), dir })
    }

    pub(crate) fn wait_until_ready(&self) -> Result<(), Trouble> {
        let ready = wait_for(PATIENCE, || {
            if let Some(status) = self.process.lock().ended() {
                return Some(Err(self.trouble(&format!("ended ({status})"))));
            }
            // Its own log first: whoever has taken the monitoring port may call itself healthy too.
            (self.log().contains("Server is ready") && monitor::is_healthy(self.place.monitor))
                .then_some(Ok(()))
        });
        ready.unwrap_or_else(|| Err(self.trouble(&format!("was not up after {PATIENCE:?}"))))
    }

    fn trouble(&self, what: &str) -> Trouble {
        let log = self.log();
        let text = format!("nats-server {} {what}; its log:\n{log}", self.place.name);
        if log.contains("address already in use") { Trouble::PortTaken(text) } else { Trouble::Other(text) }
    }
}

impl Trouble {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::PortTaken(text) | Self::Other(text) => text,
        }
    }
}

/// Starts something again, on other ports, when somebody took one of its ports first.
pub(crate) fn retried<T>(is_fixed: bool, mut start: impl FnMut() -> Result<T, Trouble>) -> Result<T, String> {
    let attempts = if is_fixed { 1 } else { ATTEMPTS };
    for _ in 1..attempts {
        match start() {
            Err(Trouble::PortTaken(_)) => {}
            done => return done.map_err(Trouble::into_text),
        }
    }
    start().map_err(Trouble::into_text)
}

fn spawn(program: &[PathBuf], dir: &Dir) -> Result<Process, String> {
    let printed = printed_file(dir.path());
    let printed = fs::File::create(&printed)
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(|error| format!("cannot write {}: {error}", printed.display()));
    let (stdout, stderr) = printed?;
    let (first, rest) = program.split_first().expect("a program was found");
    let mut command = Command::new(first);
    command
        .args(rest)
        .arg("--config")
        .arg(config_file(dir.path()))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr));
    Process::spawn_in(&mut command, dir.ours())
}

fn config_file(dir: &Path) -> PathBuf {
    dir.join("nats.conf")
}

fn printed_file(dir: &Path) -> PathBuf {
    dir.join("printed")
}
