//! What the pods share: a memory of this process, or a server.

use std::{future::Future, sync::Arc};

use nats_servers::Config;
use serde::Serialize;
use tokio::runtime::Runtime;
use via_backplane::Backplane;
use via_inmem::InMemory;

use crate::{
    cpu::Processes,
    target::{Described, Failure, Target, Wanted, runtime},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Which {
    Memory,
    Nats,
}

impl Which {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Nats => "nats",
        }
    }
}

pub(super) enum Shared {
    Memory { runtime: Runtime, memory: InMemory },
    Nats(Box<Target>),
}

impl Shared {
    pub(super) fn new(which: Which, wanted: &Wanted) -> Result<Self, Box<Failure>> {
        Ok(match which {
            Which::Memory => Self::Memory { runtime: runtime(), memory: InMemory::new() },
            Which::Nats => Self::Nats(Box::new(Target::new(wanted, Config::new())?)),
        })
    }

    pub(super) fn which(&self) -> Which {
        match self {
            Self::Memory { .. } => Which::Memory,
            Self::Nats(_) => Which::Nats,
        }
    }

    pub(super) fn block_on<T>(&self, job: impl Future<Output = T>) -> T {
        match self {
            Self::Memory { runtime, .. } => runtime.block_on(job),
            Self::Nats(target) => target.block_on(job),
        }
    }

    /// A pod's own connection.
    pub(super) async fn connect(&self) -> Result<Arc<dyn Backplane>, Box<Failure>> {
        Ok(match self {
            Self::Memory { memory, .. } => Arc::new(memory.clone()),
            Self::Nats(target) => target.connect().await?,
        })
    }

    pub(super) fn processes(&self) -> Processes {
        match self {
            Self::Memory { .. } => Processes::new(None),
            Self::Nats(target) => target.processes(),
        }
    }

    pub(super) fn describe(&self) -> Result<Option<Described>, Box<Failure>> {
        let Self::Nats(target) = self else { return Ok(None) };
        target.block_on(async { target.describe(&target.connect_raw().await?).await.map(Some) })
    }

    pub(super) fn clean(&self) -> Result<(), Box<Failure>> {
        match self {
            Self::Memory { .. } => Ok(()),
            Self::Nats(target) => target.block_on(target.clean()),
        }
    }
}
