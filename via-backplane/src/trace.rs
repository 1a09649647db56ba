//! The trace a record belongs to.

use std::fmt;

/// A W3C trace context: which trace a click or an append belongs to, and which span caused it.
///
/// It rides in the envelope, from the click to every fold and consumer. Its text form is the `traceparent` header
/// of <https://www.w3.org/TR/trace-context/>.
///
/// ```
/// use via_backplane::TraceContext;
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let trace = TraceContext::parse(header).expect("a valid traceparent");
/// assert!(trace.is_sampled());
/// assert_eq!(trace.to_string(), header);
/// assert_eq!(TraceContext::parse("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// Which trace.
    pub trace_id: [u8; 16],
    /// The span that caused what carries this context.
    pub span_id: [u8; 8],
    /// The trace flags; bit 0 is *sampled*.
    pub flags: u8,
}

/// The length of a version 00 `traceparent`: later versions may only append to it.
const TRACEPARENT_BYTES: usize = 55;

/// The flags version 00 defines, *sampled* and *random*; those of later versions may mean something else.
const KNOWN_FLAGS: u8 = 0b11;

impl TraceContext {
    /// Reads a `traceparent` header; `None` for anything the specification tells a reader to ignore.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let (fields, rest) = traceparent.as_bytes().split_at_checked(TRACEPARENT_BYTES)?;
        let version = hex::<1>(fields.get(0..2)?)?[0];
        let dashes = [2, 35, 52].iter().all(|&at| fields[at] == b'-');
        let ends = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        if !dashes || !ends {
            return None;
        }
        let trace_id = hex(&fields[3..35])?;
        let span_id = hex(&fields[36..52])?;
        let flags = hex::<1>(&fields[53..55])?[0];
        if trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        let flags = if version == 0 { flags } else { flags & KNOWN_FLAGS };
        Some(Self { trace_id, span_id, flags })
    }

    /// Whether the caller records this trace.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace_id = u128::from_be_bytes(self.trace_id);
        let span_id = u64::from_be_bytes(self.span_id);
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

/// Lower-case digits only, as the specification asks: `u8::from_str_radix` would also take `+f` and `FF`.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_survives_being_read_and_written() {
        let trace = TraceContext::parse(VALID).expect("a valid header");
        assert_eq!(trace.trace_id[0], 0x4b);
        assert_eq!(trace.span_id[7], 0xb7);
        assert_eq!(trace.to_string(), VALID);
    }

    #[test]
    fn malformed_headers_are_ignored() {
        let upper = VALID.to_uppercase();
        let longer = format!("{VALID}-extra");
        let zero_span = VALID.replace("00f067aa0ba902b7", "0000000000000000");
        let forbidden_version = VALID.replacen("00", "ff", 1);
        let signed = VALID.replace("-01", "-+1");
        let underscores = VALID.replace('-', "_");
        let not_ascii = VALID.replacen("4b", "é", 1);
        for header in [
            "",
            "00",
            &VALID[..54],
            &upper,
            &longer,
            &zero_span,
            &forbidden_version,
            &signed,
            &underscores,
            &not_ascii,
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = format!("cc{}-what-comes-later", &VALID[2..]).replace("-01-", "-ff-");
        let trace = TraceContext::parse(&later).expect("a later version");
        assert_eq!(trace.flags, KNOWN_FLAGS);
        assert_eq!(TraceContext::parse(&format!("cc{}x", &VALID[2..])), None);
    }
}
