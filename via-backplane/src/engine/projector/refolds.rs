//! Values that are computed anew while the ones there are serve.

use tokio::sync::oneshot;

use super::{Projector, loading::Job};
use crate::{
    Batch, Event, Fold, FoldState, Key,
    engine::{
        keys::{Buffer, KeyId, Refolding},
        loader::{Findings, From, Load, Loaded},
        projection::{Halt, HaltReason},
        refold::{Answer, Refolded},
        supervisor::{JobError, OnStop},
    },
};

/// Values of one family that are computed anew at the same time.
pub(super) const MAX_REFOLDS: usize = 4;

impl<E, S> Projector<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    /// Begins to compute a key's value anew.
    ///
    /// From here on its records are kept for the new value as well as folded into the old one.
    pub(super) fn refold(&mut self, key: &Key, reply: oneshot::Sender<Answer>) {
        let found = self.keys.find(key).and_then(|id| Some((id, self.keys.get_mut(id)?)));
        let answer = match found {
            None => Answer::NotHere,
            Some((_, keyed)) if keyed.refolding.is_some() => Answer::UnderWay,
            Some((id, keyed)) => match keyed.copies.shared.halted() {
                // The tail is over: nothing would follow what comes.
                Some(halt) if halt.reason == HaltReason::Lost => Answer::Halted(halt),
                _ => {
                    keyed.refolding = Some(Box::new(Refolding { buffer: Buffer::new(), reply }));
                    self.refolds += 1;
                    return self.load_anew(id, Load::of(key.clone()).from(From::Oldest));
                }
            },
        };
        reply.send(answer).ok(); // The asker may have left.
    }

    fn load_anew(&mut self, key: KeyId, load: Load<S>) {
        let core = self.core.clone();
        let name = format!("refold {}", self.family.name);
        self.jobs.push(Box::pin(async move {
            let for_load = core.clone();
            let job = async move { load.run::<E>(&for_load).await };
            match core.supervisor.run(name, OnStop::Abort, job).await {
                Ok(loaded) => Job::Refolded { key, loaded: Ok(loaded) },
                Err(JobError::Panicked(message)) => Job::Refolded { key, loaded: Err(message) },
                // The engine stops, and this projector with it.
                Err(JobError::Stopped) => std::future::pending().await,
            }
        }));
    }

    /// Shows a value that was computed anew, once it has caught up with the one there is.
    pub(super) fn use_refolded(&mut self, id: KeyId, loaded: Result<(Loaded<S>, Findings), String>) {
        let Some(keyed) = self.keys.get_mut(id) else { return self.refolds -= 1 };
        let Some(mut refolding) = keyed.refolding.take() else { return self.refolds -= 1 };
        let key = keyed.copies.shared.key.clone();
        let (loaded, findings) = match loaded {
            Ok(loaded) => loaded,
            Err(message) => {
                let halt = Halt { at: crate::Offset::BEGIN, reason: HaltReason::Panicked { message } };
                return self.end_refold(*refolding, Answer::Halted(halt));
            }
        };
        if loaded.epoch != self.cursor.epoch && self.core.ambient.rules().compare_epochs {
            keyed.refolding = Some(refolding);
            return self.load_anew(id, Load::of(key).from(From::Oldest).after(super::loading::DOUBT));
        }
        if let Some(halt) = loaded.halt {
            // What is served may be further already.
            return self.end_refold(*refolding, Answer::Halted(halt));
        }
        // Another load would show what it comes to after this one.
        let is_busy = keyed.loading.is_some() || keyed.copies.shared.is_rebuilding();
        let buffer = std::mem::replace(&mut refolding.buffer, Buffer::new());
        let records = buffer.above(loaded.complete_to).filter(|_| !is_busy);
        let Some(records) = records else {
            // What was not kept is in the log.
            keyed.refolding = Some(refolding);
            let load = Load::of(key).from(From::Oldest).on_from(loaded).after(super::loading::DOUBT);
            return self.load_anew(id, load);
        };
        match loaded.on::<E>(&Batch::of(self.cursor.epoch, records)) {
            Ok(loaded) => {
                let answer = match &loaded.halt {
                    Some(halt) => Answer::Halted(halt.clone()),
                    None => Answer::Refolded(Refolded::new(&loaded)),
                };
                if loaded.halt.is_none() {
                    self.swap(id, loaded, findings);
                }
                self.end_refold(*refolding, answer);
            }
            Err(halt) => self.end_refold(*refolding, Answer::Halted(halt)),
        }
    }

    /// Shows a complete value instead of the one there is.
    fn swap(&mut self, id: KeyId, mut loaded: Loaded<S>, findings: Findings) {
        let Some(keyed) = self.keys.get_mut(id) else { return };
        let (key, before) = (keyed.copies.shared.key.clone(), keyed.copies.shared.halted());
        keyed.halted = false;
        keyed.complete_to = keyed.complete_to.max(loaded.complete_to);
        keyed.saving.refolded(findings);
        let (passed, lacks) = (loaded.passed(), loaded.lacks());
        self.waiting -= keyed.copies.replace(loaded.value.take(), None, passed, lacks);
        self.keys.touch(id);
        self.shadow(id);
        for (offset, error) in std::mem::take(&mut loaded.skipped) {
            self.skip(id, offset, &error);
        }
        if let Some(before) = before {
            self.tell_of_recovery(&key, &before);
        }
        self.count_folded(id, 0);
        tracing::info!(%key, from = ?loaded.origin, "a value was folded anew");
    }

    fn end_refold(&mut self, refolding: Refolding, answer: Answer) {
        self.refolds -= 1;
        refolding.reply.send(answer).ok(); // The asker may have left.
    }
}
