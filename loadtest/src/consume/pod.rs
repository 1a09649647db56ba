//! A pod that runs a consumer, or would.
//!
//! It has a runtime of its own where it shares a memory; else it is this same program, in a process of its own.

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader, Read as _, pipe, stdin},
    process::{ChildStdin, Command},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant, SystemTime},
};

use nats_servers::Process;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use via_backplane::{Backplane, Delivery, Engine, Event, Fold, Recorded};

use super::{absence::Ending, shared::Shared};
use crate::{
    cold_start::GRACE,
    print::{print, print_json},
    target::{Failure, Target, runtime},
};

const CONSUMER: &str = "ticks";
/// What it says when it contends for the consumer.
const READY: &str = "ready";

#[derive(Serialize, Deserialize, Event)]
#[event(name = "bench.ticked")]
pub(super) struct Ticked {
    pub(super) number: u64,
}

impl Fold<u64> for Ticked {
    fn fold(self, ticks: &mut u64, _at: &Recorded) {
        *ticks += 1;
    }
}

/// What a handler was given, and when.
#[derive(Serialize, Deserialize)]
struct Handled {
    number: u64,
    at: u64,
}

/// By the clock that all processes have, in nanoseconds.
pub(super) fn now() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970");
    u64::try_from(now.as_nanos()).expect("it is before 2554")
}

pub(super) struct Pod {
    handled: Receiver<Handled>,
    body: Body,
}

/// What a pod consists of.
enum Body {
    Runtime { runtime: Runtime, engine: Engine },
    Process { process: Process, stops: ChildStdin },
}

impl Pod {
    /// Starts it, and waits until it contends for the consumer.
    pub(super) fn start(shared: &Shared, family: &str, lease: Duration) -> Result<Self, Box<Failure>> {
        let (tell, handled) = channel();
        let body = match shared {
            Shared::Memory { .. } => Body::in_this_process(shared, family, lease, tell)?,
            Shared::Nats(target) => Body::in_another_process(target, family, lease, tell)?,
        };
        Ok(Self { handled, body })
    }

    /// When its handler was given an event of this number or a higher one.
    pub(super) fn handles(&self, number: u64, within: Duration) -> Result<u64, Box<Failure>> {
        let deadline = Instant::now() + within;
        loop {
            match self.handled.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(handled) if handled.number >= number => return Ok(handled.at),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("a pod has ended by itself".into()),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("event {number} came to no handler within {within:?}").into());
                }
            }
        }
    }

    pub(super) fn has_handled(&self) -> bool {
        self.handled.try_recv().is_ok()
    }

    /// Ends it, and waits until it has.
    pub(super) fn end(self, ending: Ending) -> Result<(), Box<Failure>> {
        match (self.body, ending) {
            // Every task is dropped at its next await, and nothing is said to anybody.
            (Body::Runtime { runtime, .. }, Ending::Killed) => runtime.shutdown_background(),
            (Body::Runtime { runtime, engine }, Ending::Stopped) => {
                runtime.block_on(engine.shutdown(GRACE))?;
            }
            (Body::Process { mut process, .. }, Ending::Killed) => process.kill(),
            (Body::Process { stops, process: _process }, Ending::Stopped) => {
                drop(stops);
                // Its output ends with it.
                self.handled.into_iter().for_each(drop);
            }
        }
        Ok(())
    }
}

impl Body {
    fn in_this_process(
        shared: &Shared,
        family: &str,
        lease: Duration,
        tell: Sender<Handled>,
    ) -> Result<Self, Box<Failure>> {
        let runtime = runtime();
        // Nobody listens to a pod that was ended.
        let tell = move |handled| tell.send(handled).unwrap_or_default();
        let engine =
            runtime.block_on(async { contend(shared.connect().await?, family, lease, tell).await })?;
        Ok(Self::Runtime { runtime, engine })
    }

    fn in_another_process(
        target: &Target,
        family: &str,
        lease: Duration,
        tell: Sender<Handled>,
    ) -> Result<Self, Box<Failure>> {
        let (says, said) = pipe()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["consume", "--backplane", target.url(), "--prefix", target.prefix()])
            .args(["--pod", family, "--lease-ms", &lease.as_millis().to_string()])
            .stdout(said);
        let (process, stops) = Process::spawn_with_input(&mut command)?;
        // Reading ends once nobody else can write.
        drop(command);
        let mut lines = BufReader::new(says).lines();
        match lines.next().transpose()?.as_deref() {
            Some(READY) => {}
            said => return Err(format!("the pod did not come to contend: {said:?}").into()),
        }
        // All along, so that no pod ever waits for its output to be read.
        std::thread::spawn(move || {
            let handled = lines.map_while(|line| serde_json::from_str(&line.ok()?).ok());
            handled.for_each(|handled| tell.send(handled).unwrap_or_default());
        });
        Ok(Self::Process { process, stops })
    }
}

/// What the other process does, until its input ends.
pub(super) fn run(target: &Target, family: &str, lease: Duration) -> Result<(), Box<Failure>> {
    let engine = target.block_on(async {
        let tell = |handled| print_json(&handled);
        contend(target.connect().await?, family, lease, tell).await
    })?;
    print(READY);
    stdin().read_to_end(&mut Vec::new())?;
    target.block_on(engine.shutdown(GRACE))?;
    Ok(())
}

async fn contend(
    backplane: Arc<dyn Backplane>,
    family: &str,
    lease: Duration,
    tell: impl Fn(Handled) + Send + Sync + 'static,
) -> Result<Engine, Box<Failure>> {
    let engine = Engine::start(backplane);
    let handler = move |delivery: Delivery<Ticked>| {
        tell(Handled { number: delivery.event.number, at: now() });
        async { Ok::<_, Infallible>(()) }
    };
    engine.events::<Ticked, u64>(family)?.on_event(CONSUMER, handler).lease(lease).await?;
    Ok(engine)
}
