//! JSON, for logs that people read.

use serde::{Serialize, de::DeserializeOwned};

use super::{Codec, CodecId, DecodeError, EncodeError, MAX_DEPTH, encode_with};

/// JSON without insignificant whitespace.
///
/// It has no `NaN` and no infinities: `serde_json` writes them as `null`, which does not decode as a number. Map keys
/// have to be strings or numbers.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    const ID: CodecId = CodecId::JSON;

    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        encode_with(CodecId::JSON, out, |out| serde_json::to_writer(out, value))?;
        if too_deep(&out[start..]) {
            out.truncate(start);
            return Err(EncodeError::TooDeep);
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<T, DecodeError> {
        // `from_slice` refuses anything but whitespace after the value, and nesting above 127 levels.
        serde_json::from_slice(bytes).map_err(|error| DecodeError::payload(CodecId::JSON, error))
    }
}

/// Whether JSON that `serde_json` wrote nests deeper than [`MAX_DEPTH`].
fn too_deep(json: &[u8]) -> bool {
    json.len() > MAX_DEPTH && depth(json) > MAX_DEPTH
}

fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth -= 1,
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

fn skip_string<'a>(bytes: &mut impl Iterator<Item = &'a u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}
