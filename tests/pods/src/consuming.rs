//! The consumer as this pod runs it, and its handler, which does as the test says.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use pods::{CONSUMER, Consuming, Delivered, Noted, Said, Stored};
use tokio::{sync::watch, time::timeout};
use via_backplane::{Consumer, ConsumerError, Delivery, Engine, Events, NamedConsumer, Offset, Standing};

use crate::{Failure, PATIENCE, say};

/// How long a handler may wait for the test: longer than any test runs, so that none is cut short.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The consumer of notes, which this pod may run.
pub(crate) struct Consumed {
    consumer: Option<Consumer>,
    named: NamedConsumer,
    /// The texts whose handler waits.
    held: Arc<watch::Sender<BTreeSet<String>>>,
}

impl Consumed {
    pub(crate) fn new(engine: &Engine) -> Result<Self, Failure> {
        Ok(Self { consumer: None, named: engine.consumer("notes", CONSUMER)?, held: Arc::default() })
    }

    pub(crate) async fn run(
        &mut self,
        notes: &Events<Noted, Vec<String>>,
        how: Consuming,
    ) -> Result<(), Failure> {
        self.held.send_replace(how.held.into_iter().collect());
        let held = self.held.clone();
        let mut consumer = notes
            .on_event(CONSUMER, move |delivery| handle(delivery, held.subscribe()))
            .handler_timeout(HANDLER_TIMEOUT)
            .lease(Duration::from_millis(how.lease_ms));
        if let Some((events, ms)) = how.commit_every {
            consumer = consumer.commit_every(events, Duration::from_millis(ms));
        }
        self.consumer = Some(consumer.await?);
        Ok(())
    }

    pub(crate) fn let_go(&self, which: impl Fn(&str) -> bool) {
        self.held.send_modify(|held| held.retain(|text| !which(text)));
    }

    /// The term under which it does.
    pub(crate) async fn owns(&self) -> Result<u64, Failure> {
        let owns = self.consumer()?.stands(|standing| matches!(standing, Standing::Owning { .. }));
        match timeout(PATIENCE, owns).await? {
            Standing::Owning { term } => Ok(term),
            other => Err(format!("the consumer stands as {other:?}").into()),
        }
    }

    pub(crate) async fn stands_by(&self) -> Result<(), Failure> {
        let stands_by = self.consumer()?.stands(|standing| *standing == Standing::Contending);
        match timeout(PATIENCE, stands_by).await? {
            Standing::Contending => Ok(()),
            other => Err(format!("the consumer stands as {other:?}").into()),
        }
    }

    pub(crate) async fn commits(&self, offset: u64) -> Result<(), Failure> {
        if timeout(PATIENCE, self.consumer()?.commits(Offset(offset))).await? {
            return Ok(());
        }
        Err(format!("it ended before it had committed {offset}").into())
    }

    pub(crate) async fn stored(&self) -> Result<Stored, ConsumerError> {
        let state = self.named.state().await?;
        Ok(Stored {
            owner: state.owner,
            is_owned_here: state.is_owned_here,
            term: state.term,
            committed: state.committed.offset.0,
            head: state.head.offset.0,
        })
    }

    fn consumer(&self) -> Result<&Consumer, Failure> {
        self.consumer.as_ref().ok_or_else(|| "this pod runs no consumer".into())
    }
}

async fn handle(
    delivery: Delivery<Noted>,
    mut held: watch::Receiver<BTreeSet<String>>,
) -> Result<(), Failure> {
    let delivered = Delivered {
        offset: delivery.offset.0,
        id: delivery.id.to_string(),
        attempt: delivery.attempt,
        term: delivery.term,
        text: delivery.event.text,
    };
    say(&Said::Delivered(delivered.clone()))?;
    held.wait_for(|held| !held.contains(&delivered.text)).await?;
    say(&Said::Handled(delivered))?;
    Ok(())
}
