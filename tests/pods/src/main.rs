//! One pod, told what to do by the test that started it.

mod consuming;

use std::{
    error::Error,
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use consuming::Consumed;
use pods::{Answered, Asked, Life, Noted, Said};
use tokio::io::{AsyncBufReadExt as _, BufReader};
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
    let mut consumed = Consumed::new(&engine)?;
    say(&Said::Answered(Answered::Ready))?;
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
            Asked::Consume(how) => {
                consumed.run(&notes, how).await?;
                Answered::Consumes
            }
            Asked::LetGo(text) => {
                consumed.let_go(|held| held == text);
                Answered::LetGo
            }
            Asked::Owns => Answered::Owns(consumed.owns().await?),
            Asked::StandsBy => {
                consumed.stands_by().await?;
                Answered::StandsBy
            }
            Asked::Commits(offset) => {
                consumed.commits(offset).await?;
                Answered::Commits
            }
            Asked::Consumer => Answered::Consumer(consumed.stored().await.map_err(|error| error.to_string())),
            Asked::Leave => {
                // In this order, so that what is let go ends on a pod that stops.
                let (stopped, ()) =
                    tokio::join!(biased; engine.shutdown(PATIENCE), async { consumed.let_go(|_| true) });
                stopped?;
                Answered::Left
            }
        };
        say(&Said::Answered(answered))?;
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

/// Says one thing; it is said once this returns, even if the process is killed then.
fn say(said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}
