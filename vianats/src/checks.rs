//! What is said at start about servers that are weaker than they could be.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    link::Link,
    streams::{Info, Storage, Wish},
};

/// The oldest server whose atomic batches and time to live are as the contract needs them.
const OLDEST: (i64, i64, i64) = (2, 12, 0);
/// What snapshots are cut into; smaller messages mean more of them.
const WANTED_PAYLOAD: usize = 1 << 20;
/// Replicas of which one can be lost without losing the quorum.
const SAFE_REPLICAS: usize = 3;

/// Warns of every setting that makes an ack worth less, with what to change.
pub(crate) async fn warn(link: &Link, wish: &Wish, streams: [&Info; 2], monitoring: Option<&str>) {
    for warning in warnings(link, wish, streams) {
        tracing::warn!("{warning}");
    }
    match monitoring {
        Some(url) => match syncs_always(url).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                "JetStream acknowledges before it syncs: a power failure can lose acknowledged appends; set `sync_interval: \
                 always` in the server's jetstream block"
            ),
            Err(error) => {
                tracing::warn!(url, error, "the server's monitoring did not say whether JetStream syncs");
            }
        },
        None => tracing::info!(
            "whether JetStream syncs before it acknowledges is not visible to clients: set `sync_interval: always` in the \
             server's jetstream block, and give the monitoring address to have it checked"
        ),
    }
}

fn warnings(link: &Link, wish: &Wish, streams: [&Info; 2]) -> Vec<String> {
    let mut warnings = Vec::new();
    let server = link.client().server_info();
    let (major, minor, patch) = OLDEST;
    if !link.client().is_server_compatible(major, minor, patch) {
        warnings.push(format!("the server is {}, run {major}.{minor}.{patch} or newer", server.version));
    }
    let max_payload = link.client().max_payload();
    if max_payload < WANTED_PAYLOAD {
        warnings.push(format!(
            "the server takes messages of {max_payload} bytes: snapshots are cut into more pieces; set `max_payload` to \
             {WANTED_PAYLOAD} or more"
        ));
    }
    for Info { config, .. } in streams {
        let name = &config.name;
        if config.storage == Storage::Memory {
            warnings.push(format!(
                "the stream `{name}` is kept in memory: it is lost when its servers stop; create it with storage `file`"
            ));
        }
        if config.persist_mode == "async" {
            warnings.push(format!(
                "the stream `{name}` acknowledges before it writes; set `persist_mode` to `default`"
            ));
        }
        if server.cluster.is_some() && config.num_replicas < SAFE_REPLICAS {
            warnings.push(format!(
                "the stream `{name}` has {} of {SAFE_REPLICAS} replicas its cluster could hold: it stops with its server; set \
                 `num_replicas` to {SAFE_REPLICAS}",
                config.num_replicas
            ));
        }
        if wish.replicas.is_some_and(|wished| wished != config.num_replicas) {
            warnings.push(format!(
                "the stream `{name}` exists with {} replicas, not with the {} asked for; change `num_replicas`",
                config.num_replicas,
                wish.replicas.unwrap_or_default()
            ));
        }
    }
    warnings
}

/// Asks a server's monitoring whether JetStream syncs each write.
async fn syncs_always(url: &str) -> Result<bool, String> {
    let host = url.strip_prefix("http://").ok_or("expected http://host:port")?.trim_end_matches('/');
    let asked = async {
        let mut server = TcpStream::connect(host).await?;
        let request = format!("GET /jsz?config=1 HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        server.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        server.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(Duration::from_secs(5), asked)
        .await
        .map_err(|_| "no answer within 5 s")?
        .map_err(|error| error.to_string())?;
    says_always(&answer)
}

/// Monitoring answers some KiB; a server that says more is not the one that was meant.
const MAX_ANSWER: u64 = 1 << 20;

fn says_always(answer: &[u8]) -> Result<bool, String> {
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("the answer is no HTTP")?;
    let answer: serde_json::Value =
        serde_json::from_slice(&answer[body + 4..]).map_err(|error| error.to_string())?;
    let config = answer.get("config").ok_or("the answer has no JetStream configuration")?;
    Ok(config.get("sync_always").and_then(serde_json::Value::as_bool).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monitorings_answer_is_read() {
        let answer = |body: &str| format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
        assert_eq!(says_always(answer(r#"{"config":{"sync_always":true}}"#).as_bytes()), Ok(true));
        assert_eq!(says_always(answer(r#"{"config":{"sync_interval":120}}"#).as_bytes()), Ok(false));
        assert!(says_always(answer("{}").as_bytes()).is_err());
        assert!(says_always(b"nonsense").is_err());
    }
}
