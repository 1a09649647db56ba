//! Feeds: a bounded queue per subscriber.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use parking_lot::{Mutex, RwLock};
use rapidhash::RapidHashMap;
use via_backplane::{BackendError, Feed, Messages, PublishError, Reply, TooLarge, Topic};

use crate::{
    pod::{Membership, Pod},
    signal::Signal,
};

/// How many messages wait for a subscriber. One more, and the oldest is lost: what is recent matters most.
const MAX_WAITING: usize = 256;

/// Who listens to what.
#[derive(Default)]
pub(crate) struct Topics(RwLock<RapidHashMap<Topic, Vec<Arc<Listener>>>>);

struct Listener {
    signal: Arc<Signal>,
    waiting: Mutex<VecDeque<Bytes>>,
}

impl Topics {
    fn publish(&self, topic: &Topic, message: &Bytes) {
        for listener in self.0.read().get(topic).into_iter().flatten() {
            listener.hear(message.clone());
        }
    }

    fn add(&self, topic: &Topic, listener: &Arc<Listener>) {
        self.0.write().entry(topic.clone()).or_default().push(listener.clone());
    }

    fn remove(&self, topic: &Topic, listener: &Arc<Listener>) {
        let mut topics = self.0.write();
        let Some(listeners) = topics.get_mut(topic) else { return };
        listeners.retain(|other| !Arc::ptr_eq(other, listener));
        if listeners.is_empty() {
            topics.remove(topic);
        }
    }
}

impl Listener {
    fn hear(&self, message: Bytes) {
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() == MAX_WAITING {
                waiting.pop_front();
            }
            waiting.push_back(message);
        }
        self.signal.ring();
    }
}

impl Feed for Pod {
    fn publish<'a>(&'a self, topic: &'a Topic, message: Bytes) -> Reply<'a, Result<(), PublishError>> {
        Reply::ready(self.publish_now(topic, &message))
    }

    fn subscribe<'a>(&'a self, topic: &'a Topic) -> Reply<'a, Result<Messages, BackendError>> {
        Reply::ready(self.open().map(|()| {
            let pod = self.enrol();
            let listener = Arc::new(Listener { signal: pod.signal().clone(), waiting: Mutex::default() });
            self.memory.topics.add(topic, &listener);
            Listening {
                topics: self.memory.topics.clone(),
                topic: topic.clone(),
                pod,
                listener,
                ended: false,
            }
            .boxed()
        }))
    }
}

impl Pod {
    fn publish_now(&self, topic: &Topic, message: &Bytes) -> Result<(), PublishError> {
        self.open().map_err(PublishError::Backend)?;
        let (size, limit) = (message.len(), self.memory.limits.max_message);
        if size > limit {
            return Err(PublishError::TooLarge(TooLarge { what: "message", size, limit }));
        }
        self.memory.topics.publish(topic, message);
        Ok(())
    }
}

/// A pod's side of a feed.
struct Listening {
    topics: Arc<Topics>,
    topic: Topic,
    pod: Membership,
    listener: Arc<Listener>,
    ended: bool,
}

impl Stream for Listening {
    type Item = Result<Bytes, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.pod.signal().register(cx.waker());
        if let Err(closed) = self.pod.open() {
            self.ended = true;
            return Poll::Ready(Some(Err(closed)));
        }
        match self.listener.waiting.lock().pop_front() {
            Some(message) => Poll::Ready(Some(Ok(message))),
            None => Poll::Pending,
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.topics.remove(&self.topic, &self.listener);
    }
}
