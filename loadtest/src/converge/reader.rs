//! The other process: this same program, told to read.

use std::{
    io::{BufRead as _, BufReader, PipeReader, pipe},
    process::Command,
};

use nats_servers::Process;

use super::{
    Reader,
    ours::{self, Took},
    raw,
};
use crate::{
    print::{print, print_json},
    target::{Failure, Target, side, subject_of},
};

/// What it says when it listens.
const READY: &str = "ready";

/// Another process that reads; it ends with this one.
pub(super) struct Other {
    says: BufReader<PipeReader>,
    _process: Process,
}

impl Other {
    /// Starts it, and waits until it listens.
    pub(super) fn start(
        target: &Target,
        reader: Reader,
        family: &str,
        count: usize,
    ) -> Result<Self, Box<Failure>> {
        let (says, said) = pipe()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([
                "converge",
                "--read",
                reader.name(),
                "--backplane",
                target.url(),
                "--prefix",
                target.prefix(),
            ])
            .args(["--family", family, "--appends", &count.to_string()])
            .stdout(said);
        let process = Process::spawn(&mut command)?;
        // It ends by itself when it is stuck, and reading ends with it once nobody else can write.
        drop(command);
        let mut other = Self { says: BufReader::new(says), _process: process };
        match other.line()?.as_str() {
            READY => Ok(other),
            said => Err(format!("the other process did not come to read: `{said}`").into()),
        }
    }

    /// How long each message was on its way.
    pub(super) fn took(mut self) -> Result<Took, Box<Failure>> {
        Ok(serde_json::from_str(&self.line()?)?)
    }

    fn line(&mut self) -> Result<String, Box<Failure>> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

/// What the other process does.
pub(super) async fn read(
    target: &Target,
    reader: Reader,
    family: String,
    count: usize,
) -> Result<(), Box<Failure>> {
    let ready = || print(READY);
    let took = match reader {
        Reader::Ours => side(ours::see(target.connect().await?, family, count, ready)).await?,
        Reader::Raw => {
            let context = target.connect_raw().await?;
            let stream = target.stream(&context).await?;
            let (inbox, subject) = (context.client().new_inbox(), subject_of(&stream, &family));
            let arrived = side(raw::receive(stream, inbox, subject, count, ready)).await?;
            Took { arrived, seen: Vec::new() }
        }
    };
    print_json(&took);
    Ok(())
}
