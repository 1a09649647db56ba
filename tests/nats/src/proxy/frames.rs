//! The NATS client protocol, as far as telling one message from the next takes.

use std::io::{self, Read, Write};

/// What is held of a stream at once; more than any line of the protocol, and than any block of headers.
const CAPACITY: usize = 256 * 1024;

/// What becomes of a frame: a line and the message that follows it, if its kind has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    Drop,
    /// It cannot be told before more of the message is there.
    Wait,
}

/// Copies one direction of a connection until it ends, leaving out the frames `judge` drops.
///
/// `judge` gets a frame's line and whatever has come of the bytes after it.
pub(crate) fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    judge: impl FnMut(&[u8], &[u8]) -> Fate,
) -> io::Result<()> {
    let mut copier = Copier { judge, left: 0, is_dropping: false };
    let mut buffer = vec![0; CAPACITY];
    let mut filled = 0;
    loop {
        let read = from.read(&mut buffer[filled..])?;
        if read == 0 {
            return to.write_all(&buffer[..filled]);
        }
        filled += read;
        let taken = copier.take(&buffer[..filled], to)?;
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
        if filled == buffer.len() {
            return Err(io::Error::other("a line longer than the protocol has"));
        }
    }
}

struct Copier<J> {
    judge: J,
    /// How much of the current message is still to come.
    left: usize,
    is_dropping: bool,
}

impl<J: FnMut(&[u8], &[u8]) -> Fate> Copier<J> {
    /// Takes what can be judged, and writes what passes in as few pieces as can be; returns how much it took.
    fn take(&mut self, bytes: &[u8], to: &mut impl Write) -> io::Result<usize> {
        // Everything before `kept` is written or dropped; everything between passes.
        let (mut kept, mut at) = (0, 0);
        while at < bytes.len() {
            if self.left == 0 {
                let Some(line) = line(&bytes[at..]) else { break };
                let fate = (self.judge)(line, &bytes[at + line.len()..]);
                if fate == Fate::Wait {
                    break;
                }
                self.is_dropping = fate == Fate::Drop;
                // The line goes the way of its message.
                self.left = line.len() + message_len(line);
            }
            let step = self.left.min(bytes.len() - at);
            if self.is_dropping {
                to.write_all(&bytes[kept..at])?;
                kept = at + step;
            }
            self.left -= step;
            at += step;
        }
        to.write_all(&bytes[kept..at])?;
        Ok(at)
    }
}

/// A message a client publishes and wants answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) subject: &'a [u8],
    pub(crate) reply: &'a [u8],
    /// How many of the message's first bytes are headers.
    pub(crate) headers: usize,
}

/// `PUB <subject> <reply> <bytes>` and `HPUB <subject> <reply> <header bytes> <bytes>`.
pub(crate) fn request(line: &[u8]) -> Option<Request<'_>> {
    let mut words = words(line);
    let verb = words.next()?;
    let has_headers = match verb.len() {
        3 if verb.eq_ignore_ascii_case(b"PUB") => false,
        4 if verb.eq_ignore_ascii_case(b"HPUB") => true,
        _ => return None,
    };
    let (subject, reply, first) = (words.next()?, words.next()?, words.next()?);
    if !has_headers {
        return Some(Request { subject, reply, headers: 0 });
    }
    // Without a reply, what was taken for it is the length of the headers, and nothing follows `first`.
    words.next()?;
    Some(Request { subject, reply, headers: number(first)? })
}

/// The subject of a `MSG` or `HMSG` line.
pub(crate) fn delivered_to(line: &[u8]) -> Option<&[u8]> {
    let mut words = words(line);
    let verb = words.next()?;
    (verb.eq_ignore_ascii_case(b"MSG") || verb.eq_ignore_ascii_case(b"HMSG")).then(|| words.next()).flatten()
}

/// The first line with its end, if all of it is there.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some(&bytes[..=end])
}

/// How many bytes follow this line before the next.
fn message_len(line: &[u8]) -> usize {
    let mut words = words(line);
    let verb = words.next().unwrap_or_default();
    if ![&b"PUB"[..], b"HPUB", b"MSG", b"HMSG"].iter().any(|with| verb.eq_ignore_ascii_case(with)) {
        return 0;
    }
    // Whatever else the line holds, the length of the message is its last word; a line end follows the message.
    words.next_back().and_then(number).map_or(0, |bytes| bytes + b"\r\n".len())
}

fn words(line: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn number(word: &[u8]) -> Option<usize> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Fate, Request, copy, delivered_to, request};

    /// Hands out its bytes in pieces of this size, as a network may.
    struct Pieces<'a>(&'a [u8], usize);

    impl std::io::Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let (piece, rest) = self.0.split_at(self.1.min(self.0.len()));
            self.0 = rest;
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn only_the_judged_frame_is_left_out_however_the_bytes_arrive() {
        let stream =
            b"PING\r\nMSG a 1 4\r\nMSG \r\nMSG b 1 r 2\r\n\r\n\r\nHMSG a 1 2 4\r\nabcd\r\n+OK\r\nMSG a";
        let expected = b"PING\r\nMSG b 1 r 2\r\n\r\n\r\n+OK\r\nMSG a";
        for size in 1..=stream.len() {
            let mut passed = Vec::new();
            let judge = |line: &[u8], _: &[u8]| {
                if delivered_to(line) == Some(b"a") { Fate::Drop } else { Fate::Pass }
            };
            copy(&mut Pieces(stream, size), &mut passed, judge).expect("memory takes all of it");
            assert_eq!(passed, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_frame_waits_until_enough_of_its_message_is_there() {
        let mut passed = Vec::new();
        let mut judged = 0;
        let judge = |line: &[u8], after: &[u8]| match request(line) {
            Some(request) if after.len() < request.headers => Fate::Wait,
            Some(_) => {
                judged += 1;
                assert!(after.starts_with(b"head"), "{after:?}");
                Fate::Pass
            }
            None => Fate::Pass,
        };
        let stream = b"HPUB s r 4 8\r\nheadbody\r\n";
        copy(&mut Pieces(stream, 3), &mut passed, judge).expect("memory takes all of it");
        assert_eq!((&passed[..], judged), (&stream[..], 1));
    }

    #[test]
    fn only_a_publish_with_a_reply_is_a_request() {
        assert_eq!(request(b"PUB s r 2\r\n"), Some(Request { subject: b"s", reply: b"r", headers: 0 }));
        assert_eq!(request(b"hpub s r 12 20\r\n"), Some(Request { subject: b"s", reply: b"r", headers: 12 }));
        assert_eq!(request(b"PUB s 2\r\n"), None);
        assert_eq!(request(b"HPUB s 12 20\r\n"), None);
        assert_eq!(request(b"SUB s r 2\r\n"), None);
    }
}
