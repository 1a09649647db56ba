//! Feeds, with faults.

use bytes::Bytes;

use super::{Faulty, link::Sent, stream::faulty};
use crate::{BackendError, Feed, Messages, PublishError, Reply, Topic};

impl Feed for Faulty {
    fn publish<'a>(&'a self, topic: &'a Topic, message: Bytes) -> Reply<'a, Result<(), PublishError>> {
        Reply::later(async move {
            let feed = self.inner.feed().expect("`Faulty::feed` answered");
            match self.pod.send("publish", false).await {
                Sent::Through(then) => {
                    let answer = feed.publish(topic, message).await;
                    self.pod.answer(then).await;
                    answer
                }
                Sent::Refused | Sent::RequestLost | Sent::AckLost(_) => {
                    Err(PublishError::Backend(self.pod.unavailable()))
                }
            }
        })
    }

    fn subscribe<'a>(&'a self, topic: &'a Topic) -> Reply<'a, Result<Messages, BackendError>> {
        Reply::later(async move {
            let cut = self.pod.link.watch();
            let feed = self.inner.feed().expect("`Faulty::feed` answered");
            let messages = self.ask("listen", feed.subscribe(topic)).await?;
            Ok(faulty("messages", messages, self.pod.clone(), cut))
        })
    }
}
