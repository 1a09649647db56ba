//! One pod, told what to do by the test that started it.

use std::{error::Error, sync::Arc, time::Duration};

use pods::{Answered, Asked, Life, Noted};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Stdout};
use via_backplane::{Backplane, Engine, Events, Retry, Waited};

/// How long a fact may take on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the server may take for a request: short, because what it refuses by silence is waited for.
const REQUEST: Duration = Duration::from_secs(3);

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let life = std::env::args().nth(1).ok_or("how to live is the first argument, as JSON")?;
    let life: Life = serde_json::from_str(&life)?;
    let backplane: Arc<dyn Backplane> = Arc::new(
        vianats::Builder::new(&life.url).connect_timeout(PATIENCE).request_timeout(REQUEST).connect().await?,
    );
    let engine = Engine::builder(backplane)
        .with_snapshot_interval(life.snapshot_interval)
        .with_snapshot_pause(Duration::ZERO)
        .with_compaction_grace(Duration::from_millis(life.compaction_grace_ms))
        .start();
    let notes: Events<Noted, Vec<String>> = engine.events("notes")?;
    notes.loaded().await;
    let mut out = tokio::io::stdout();
    answer(&mut out, &Answered::Ready).await?;
    let mut asked = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = asked.next_line().await? {
        let answered = match serde_json::from_str(&line)? {
            Asked::Note(text) => match notes.append(Noted { text }).await {
                Ok(position) => match notes.wait_for(&position, PATIENCE).await {
                    Waited::Reached => Answered::Noted(position.cursor.offset.0),
                    waited => return Err(format!("the note is not folded: {waited:?}").into()),
                },
                Err(error) => Answered::Unacknowledged {
                    may_be_there: error.retry() == Retry::MayDuplicate,
                    why: format!("{error}: {:?}", error.source().map(ToString::to_string)),
                },
            },
            Asked::Notes(count) => Answered::Notes(shown(&notes, count).await?),
            Asked::Floor => {
                let compactor = engine.backplane().compactor().ok_or("JetStream compacts")?;
                Answered::Floor(compactor.floor(notes.key()).await?.0)
            }
            Asked::Leave => {
                engine.shutdown(PATIENCE).await?;
                Answered::Left
            }
        };
        answer(&mut out, &answered).await?;
    }
    Ok(())
}

/// The notes, once there are so many.
async fn shown(notes: &Events<Noted, Vec<String>>, count: usize) -> Result<Vec<String>, Failure> {
    let mut changes = notes.changes();
    let reached = async {
        loop {
            if let Some(view) = notes.read().filter(|view| view.len() >= count) {
                return view.to_vec();
            }
            changes.changed().await;
        }
    };
    let Ok(shown) = tokio::time::timeout(PATIENCE, reached).await else {
        return Err(format!("it shows {:?} of {count} notes", notes.read().map(|notes| notes.len())).into());
    };
    Ok(shown)
}

async fn answer(out: &mut Stdout, answered: &Answered) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(answered)?;
    line.push(b'\n');
    out.write_all(&line).await?;
    out.flush().await?;
    Ok(())
}
