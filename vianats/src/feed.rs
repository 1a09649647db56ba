//! Broadcast over core NATS: no stream holds these messages.

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use via_backplane::{BackendError, Feed, Messages, PublishError, Reply, TooLarge, Topic};

use crate::{
    link::{Link, Moment, unavailable},
    names,
    pod::Pod,
};

impl Feed for Pod {
    fn publish<'a>(&'a self, topic: &'a Topic, message: Bytes) -> Reply<'a, Result<(), PublishError>> {
        Reply::later(async move {
            let (size, limit) = (message.len(), self.limits().max_message);
            if size > limit {
                return Err(PublishError::TooLarge(TooLarge { what: "message", size, limit }));
            }
            let subject = names::topic(self.prefix(), topic);
            self.link().send(subject, None, message).await.map_err(PublishError::Backend)
        })
    }

    fn subscribe<'a>(&'a self, topic: &'a Topic) -> Reply<'a, Result<Messages, BackendError>> {
        Reply::later(async move {
            let listener = Listener::open(self, topic).await?;
            let messages = stream::unfold(Some(listener), |listener| async move {
                let mut listener = listener?;
                let message = listener.next().await;
                let goes_on = message.is_ok();
                Some((message, goes_on.then_some(listener)))
            });
            Ok(messages.boxed())
        })
    }
}

/// A subscription to a topic. The client holds a bounded number of messages for it and drops what comes then, so one that
/// is slow loses messages and delays nobody.
struct Listener {
    link: Link,
    subject: String,
    opened: Moment,
    inbox: Subscriber,
}

impl Listener {
    async fn open(pod: &Pod, topic: &Topic) -> Result<Self, BackendError> {
        let link = pod.link().clone();
        link.connected().await?;
        let opened = link.now();
        let subject = names::topic(pod.prefix(), topic);
        let inbox = link.listen(subject.clone()).await?;
        pod.presence().is_known(&link).await?;
        match link.refused(opened, &subject) {
            Some(refused) => Err(refused),
            None => Ok(Self { link, subject, opened, inbox }),
        }
    }

    async fn next(&mut self) -> Result<Bytes, BackendError> {
        if self.link.closed().is_cancelled() {
            return Err(BackendError::closed());
        }
        // What has arrived was sent while there was a connection.
        if let Some(Some(message)) = self.inbox.next().now_or_never() {
            return Ok(message.payload);
        }
        tokio::select! {
            biased;
            over = self.link.over(self.opened, &self.subject) => Err(over),
            message = self.inbox.next() => match message {
                Some(message) => Ok(message.payload),
                None => Err(unavailable("the client ended the subscription")),
            },
        }
    }
}
