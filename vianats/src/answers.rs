//! Who waits for which answer.
//!
//! The client has requests of its own, and each takes a kibibyte while it waits; it would need a timer besides, and a place among
//! those who want to hear that the connection is over. Thousands of appends wait at the same time, and half of what one cost more
//! than a publish was that. So answers come to one inbox here, are handed out by its reader, and those that will not come are
//! told of by whoever looks at all of them.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use async_nats::{Message, StatusCode, Subject};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use crate::link::{Failed, Moment};

/// Digits of a request's number. There are always as many, so that where its answer goes is written without growing.
const NUMBER: usize = 16;

/// What a request comes to: of a message, nobody wants more than its payload, and thousands may wait.
pub(crate) type Answer = Result<Bytes, Failed>;

/// The requests that wait for an answer. None waits for longer than it wants to, so there are as many as callers ask.
#[derive(Debug)]
pub(crate) struct Answers {
    /// `<inbox>.`
    root: String,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The number of the last request. None is used twice, so an answer that comes too late is nobody's.
    last: u64,
    requests: HashMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    asked: Asked,
    answer: oneshot::Sender<Answer>,
}

/// A request, as far as whether it will be answered depends on it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) subject: Subject,
    pub(crate) since: Moment,
    pub(crate) until: Instant,
    pub(crate) patience: Duration,
}

impl Answers {
    pub(crate) fn new(inbox: &str) -> Self {
        Self { root: format!("{inbox}."), waiting: Mutex::default() }
    }

    /// What their reader listens to.
    pub(crate) fn all(&self) -> String {
        format!("{}*", self.root)
    }

    /// Enters a request; answers where its answer is to go, and where it then comes from.
    pub(crate) fn expect(&self, asked: Asked) -> (String, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting.lock();
            waiting.last += 1;
            let number = waiting.last;
            waiting.requests.insert(number, Waiter { asked, answer });
            number
        };
        let mut inbox = String::with_capacity(self.root.len() + NUMBER);
        inbox.push_str(&self.root);
        write!(inbox, "{number:0NUMBER$x}").expect("a string takes everything");
        (inbox, answered)
    }

    /// Hands a message to whoever waits for it.
    pub(crate) fn take(&self, message: Message) {
        let number = message.subject.strip_prefix(&*self.root);
        let number = number.and_then(|number| u64::from_str_radix(number, 16).ok());
        let waiter = number.and_then(|number| self.waiting.lock().requests.remove(&number));
        let Some(Waiter { answer, .. }) = waiter else { return };
        let told = match message.status {
            Some(StatusCode::NO_RESPONDERS) => Err(Failed::NoResponders),
            _ => Ok(message.payload),
        };
        answer.send(told).ok(); // The asker may have left; that is its right.
    }

    /// Tells those whose answer will not come, and forgets those who have left.
    pub(crate) fn end(&self, why: impl Fn(&Asked) -> Option<Failed>) {
        let mut waiting = self.waiting.lock();
        let over: Vec<_> = waiting
            .requests
            .iter()
            .filter_map(|(number, waiter)| match why(&waiter.asked) {
                None if waiter.answer.is_closed() => Some((*number, None)),
                None => None,
                Some(failed) => Some((*number, Some(failed))),
            })
            .collect();
        for (number, failed) in over {
            let waiter = waiting.requests.remove(&number);
            if let Some((waiter, failed)) = waiter.zip(failed) {
                waiter.answer.send(Err(failed)).ok(); // As above.
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::unavailable;

    fn asked(subject: &'static str) -> Asked {
        let since = Moment::default();
        Asked {
            subject: Subject::from_static(subject),
            since,
            until: Instant::now(),
            patience: Duration::ZERO,
        }
    }

    fn message(subject: &str, status: Option<StatusCode>) -> Message {
        let (subject, payload) = (subject.into(), subject.to_owned().into());
        Message { subject, payload, status, reply: None, headers: None, description: None, length: 0 }
    }

    fn waiting(answers: &Answers) -> usize {
        answers.waiting.lock().requests.len()
    }

    #[test]
    fn an_answer_goes_to_whoever_asked_for_it() {
        let answers = Answers::new("_INBOX.x");
        assert_eq!(answers.all(), "_INBOX.x.*");
        let (first, mut one) = answers.expect(asked("a"));
        let (second, mut two) = answers.expect(asked("a"));
        answers.take(message(&second, Some(StatusCode::NO_RESPONDERS)));
        assert!(matches!(two.try_recv(), Ok(Err(Failed::NoResponders))));
        one.try_recv().expect_err("nobody has answered that");
        answers.take(message(&first, None));
        assert!(matches!(one.try_recv(), Ok(Ok(payload)) if payload == first));
        assert_eq!(waiting(&answers), 0);
    }

    #[test]
    fn an_answer_that_comes_too_late_is_nobodys() {
        let answers = Answers::new("_INBOX.x");
        let (first, one) = answers.expect(asked("a"));
        drop(one);
        answers.end(|_| None);
        assert_eq!(waiting(&answers), 0, "who has left is forgotten");
        let (_, mut two) = answers.expect(asked("a"));
        for stray in [&*first, "_INBOX.x.", "_INBOX.x.zz", "_INBOX.y.2", "elsewhere"] {
            answers.take(message(stray, None));
        }
        two.try_recv().expect_err("none of these is its answer");
    }

    #[test]
    fn those_whose_answer_will_not_come_are_told() {
        let answers = Answers::new("_INBOX.x");
        let ((_, mut refused), (_, mut other)) = (answers.expect(asked("a")), answers.expect(asked("b")));
        answers.end(|asked| (&*asked.subject == "a").then(|| Failed::Unknown(unavailable("gone"))));
        assert!(matches!(refused.try_recv(), Ok(Err(Failed::Unknown(_)))));
        other.try_recv().expect_err("it may still come");
        assert_eq!(waiting(&answers), 1);
    }
}
