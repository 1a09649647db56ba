//! Connecting: to which servers, as whom, and with which streams.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions};
use tokio::time::{Instant, timeout_at};
use via_backplane::{BackendError, ErrorKind};

use crate::{
    checks,
    generation::Known,
    link::{Events, Link},
    names,
    pod::{Nats, Pod},
    reach::Presence,
    servers::{self, Credentials, Servers},
    streams::{self, Kind, Storage, Wish},
};

/// What the server sends a reader before it has read any of it: its flow control's window, a constant of nats-server.
const WINDOW: usize = 32 << 20;
/// The least that a message counts for in that window: its subject, the one for its acknowledgement, and a record of 40 bytes.
const SMALLEST_MESSAGE: usize = 128;
/// Messages the client holds per subscription before it drops some; readers notice and read them again. It is never less than the
/// server sends: a reader that is a little slower than the connection would be sent everything twice, and be slower for that.
const SUBSCRIPTION_CAPACITY: usize = WINDOW / SMALLEST_MESSAGE;
/// How often a quiet server is asked whether it is there. The client leaves one that missed two for another one: a server
/// that is stopped or cut off keeps its connections open, and nothing else tells.
const PING_EVERY: Duration = Duration::from_secs(3);
/// The shortest and the longest wait between two attempts to connect.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Connects to a NATS server or cluster, with the usual settings.
///
/// `url` is one address or several, separated by commas: `nats://127.0.0.1:4222`, `tls://nats-1:4222,tls://nats-2:4222`.
/// An address may carry a user and password, or a token: `nats://user:password@127.0.0.1:4222`.
///
/// # Errors
/// As [`Builder::connect`].
pub async fn connect(url: impl AsRef<str>) -> Result<Nats, BackendError> {
    Builder::new(url).connect().await
}

/// Configures a backplane on NATS JetStream.
///
/// ```no_run
/// # async fn doc() -> Result<(), via_backplane::BackendError> {
/// use std::time::Duration;
/// let backplane = vianats::Builder::new("nats://nats-1:4222,nats://nats-2:4222")
///     .prefix("shop")
///     .replicas(3)
///     .credentials_file("/run/secrets/shop.creds")
///     .connect_timeout(Duration::from_secs(30))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    target: Target,
    prefix: String,
    wish: Wish,
    auth: Auth,
    tls: Tls,
    name: String,
    monitoring: Option<String>,
    connect_timeout: Duration,
    request_timeout: Duration,
}

enum Target {
    Url(String),
    Client(Client),
}

#[derive(Default)]
enum Auth {
    #[default]
    None,
    User(String, String),
    Token(String),
    Nkey(String),
    CredentialsFile(PathBuf),
}

#[derive(Default)]
struct Tls {
    required: bool,
    roots: Option<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
}

impl Builder {
    /// Connects to these servers; see [`connect`] for the form of `url`.
    pub fn new(url: impl AsRef<str>) -> Self {
        Self::of(Target::Url(url.as_ref().to_owned()))
    }

    /// Uses a client that exists, with whatever credentials and TLS it has. Closing the backplane leaves it open.
    ///
    /// The client should hold 262,144 messages per subscription, four times its default: readers read again what it drops, which is most
    /// of what they are sent if they are slower than the connection, and an answer that it drops is an unknown outcome.
    ///
    /// What the servers report goes to the client's own event callback and not here: a call that lacks a permission then ends
    /// with the request timeout, and its error does not name the permission.
    pub fn with_client(client: Client) -> Self {
        Self::of(Target::Client(client))
    }

    fn of(target: Target) -> Self {
        Self {
            target,
            prefix: "via".to_owned(),
            wish: Wish::default(),
            auth: Auth::default(),
            tls: Tls::default(),
            name: "via".to_owned(),
            monitoring: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(12),
        }
    }

    /// Names the streams; apps with different prefixes share nothing. `A-Z a-z 0-9 - _`, at most 32 bytes; `via` unless set.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How many servers keep a copy, for streams that are created now. Three where the cluster has as many, unless set.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.wish.replicas = Some(replicas);
        self
    }

    /// Where servers keep messages, for streams that are created now. On disk unless set.
    pub fn storage(mut self, storage: Storage) -> Self {
        self.wish.storage = storage;
        self
    }

    /// How long an append id is remembered, for a stream that is created now. Two minutes unless set.
    pub fn duplicate_window(mut self, window: Duration) -> Self {
        self.wish.duplicate_window = window;
        self
    }

    /// Authenticates by user and password.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.auth = Auth::User(user.into(), password.into());
        self
    }

    /// Authenticates by token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.auth = Auth::Token(token.into());
        self
    }

    /// Authenticates by the seed of an NKey.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.auth = Auth::Nkey(seed.into());
        self
    }

    /// Authenticates by a credentials file (JWT and seed).
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.auth = Auth::CredentialsFile(path.into());
        self
    }

    /// Refuses a connection without TLS. Addresses that begin with `tls://` do so as well.
    pub fn require_tls(mut self) -> Self {
        self.tls.required = true;
        self
    }

    /// Trusts the certificate authorities in this PEM file, besides the system's.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.roots = Some(path.into());
        self
    }

    /// Shows this certificate to the servers; two PEM files.
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.client = Some((certificate.into(), key.into()));
        self
    }

    /// How this connection is called in the servers' lists.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// A server's monitoring address, `http://nats-1:8222`: whether JetStream syncs before it acknowledges is visible
    /// only there. It is asked once, at start.
    pub fn monitoring(mut self, url: impl Into<String>) -> Self {
        self.monitoring = Some(url.into());
        self
    }

    /// How long to try to reach the servers and their JetStream at start. Ten seconds unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call waits for its answer. Twelve seconds unless set: a cluster that has lost a stream's leader takes up
    /// to nine to choose another, and calls that wait for it then succeed.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Connects, creates the streams where they are missing, and checks them where they are not.
    ///
    /// # Errors
    /// - [`ErrorKind::Unavailable`] if no server answered within the connect timeout; the address is in the error.
    /// - [`ErrorKind::Denied`] if the credentials are wrong or lack a permission, which is named.
    /// - [`ErrorKind::Misconfigured`] if the prefix or the address is not valid, or a stream would lose data; the error
    ///   says what to change.
    ///
    /// # Cancel safety
    /// Dropping the future ends the connection; streams that were created stay.
    pub async fn connect(self) -> Result<Nats, BackendError> {
        if !names::is_valid_prefix(&self.prefix) {
            return Err(misconfigured(format!(
                "the prefix {:?} is not valid: 1 to {} of `A-Z a-z 0-9 - _`",
                self.prefix,
                names::MAX_PREFIX_BYTES
            )));
        }
        let deadline = Instant::now() + self.connect_timeout;
        let events = Arc::new(Events::default());
        let (client, supplied) = match &self.target {
            Target::Client(client) => (client.clone(), true),
            Target::Url(url) => (self.dial(url, &events, deadline).await?, false),
        };
        let link = Link::open(client, supplied, self.request_timeout, events).await?;
        let pod = self.provision(&link, deadline).await;
        if pod.is_err() {
            link.close().await;
        }
        pod.map(Nats::new)
    }

    /// Tries the servers until one takes the connection.
    async fn dial(&self, url: &str, events: &Arc<Events>, deadline: Instant) -> Result<Client, BackendError> {
        let Servers { addresses, credentials } = Servers::parse(url)?;
        let shown = servers::shown(&addresses);
        let mut delay = FIRST_DELAY;
        let mut last: Option<ConnectError> = None;
        loop {
            let options = self.options(events, credentials.as_ref()).await?;
            match timeout_at(deadline, options.connect(&addresses[..])).await {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) => {
                    if matches!(
                        error.kind(),
                        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication
                    ) {
                        // The source may quote what was sent.
                        return Err(BackendError::new(
                            ErrorKind::Denied,
                            format!("the servers at {shown} refused the credentials"),
                        ));
                    }
                    tracing::warn!(servers = shown, error = %error.kind(), "could not connect");
                    last = Some(error);
                }
                Err(_) => return Err(unreachable(&shown, self.connect_timeout, last)),
            }
            let jittered = delay.mul_f64(0.5 + rand::random::<f64>() / 2.0);
            delay = (delay * 2).min(LONGEST_DELAY);
            if Instant::now() + jittered >= deadline {
                return Err(unreachable(&shown, self.connect_timeout, last));
            }
            tokio::time::sleep(jittered).await;
        }
    }

    async fn options(
        &self,
        events: &Arc<Events>,
        credentials: Option<&Credentials>,
    ) -> Result<ConnectOptions, BackendError> {
        let events = events.clone();
        let mut options = ConnectOptions::new()
            .name(&self.name)
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .request_timeout(None)
            .ping_interval(PING_EVERY)
            .connection_timeout(self.connect_timeout.min(Duration::from_secs(5)))
            // Reconnecting never ends; every pod waits a different while, so that they do not all come at once.
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| {
                let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(6);
                let longest = (FIRST_DELAY * 2_u32.pow(doublings)).min(LONGEST_DELAY);
                longest.mul_f64(rand::random::<f64>())
            })
            .event_callback(move |event| {
                events.take(&event);
                std::future::ready(())
            });
        options = match &self.auth {
            Auth::None => match credentials {
                Some(Credentials::User(user, password)) => {
                    options.user_and_password(user.clone(), password.clone())
                }
                Some(Credentials::Token(token)) => options.token(token.clone()),
                None => options,
            },
            Auth::User(user, password) => options.user_and_password(user.clone(), password.clone()),
            Auth::Token(token) => options.token(token.clone()),
            Auth::Nkey(seed) => options.nkey(seed.clone()),
            Auth::CredentialsFile(path) => options.credentials_file(path).await.map_err(|error| {
                misconfigured(format!("the credentials file {} cannot be used", path.display()))
                    .with_source(error)
            })?,
        };
        if self.tls.required {
            options = options.require_tls(true);
        }
        if let Some(roots) = &self.tls.roots {
            options = options.add_root_certificates(roots.clone());
        }
        if let Some((certificate, key)) = &self.tls.client {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(options)
    }

    /// Creates or checks the streams. A cluster that has just started has no leader for a while, so what is temporary is
    /// tried again until the connect timeout is over.
    async fn provision(&self, link: &Link, deadline: Instant) -> Result<Pod, BackendError> {
        let mut delay = FIRST_DELAY;
        loop {
            match self.try_provision(link).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    let jittered = delay.mul_f64(0.5 + rand::random::<f64>() / 2.0);
                    if Instant::now() + jittered >= deadline {
                        let shown = link.client().server_info();
                        let message = format!(
                            "JetStream on {}:{} was not ready within {:?}",
                            shown.host, shown.port, self.connect_timeout
                        );
                        return Err(BackendError::new(ErrorKind::Unavailable, message).with_source(error));
                    }
                    tracing::warn!(%error, "JetStream is not ready");
                    delay = (delay * 2).min(LONGEST_DELAY);
                    tokio::time::sleep(jittered).await;
                }
                provisioned => return provisioned,
            }
        }
    }

    async fn try_provision(&self, link: &Link) -> Result<Pod, BackendError> {
        // First, so that the other servers know of it by the time that the streams are there.
        let presence = Presence::announce(link, &self.prefix).await?;
        let (log, log_info) = streams::ensure::<streams::Events>(link, &self.prefix, &self.wish).await?;
        let (cells, cells_info) = streams::ensure::<streams::Cells>(link, &self.prefix, &self.wish).await?;
        checks::warn(link, &self.wish, [&log_info, &cells_info], self.monitoring.as_deref()).await;
        let log = Known::new(streams::Events::name(&self.prefix), log);
        let cells = Known::new(streams::Cells::name(&self.prefix), cells);
        Ok(Pod::new(link.clone(), self.prefix.clone(), log, cells, presence))
    }
}

/// Never shows credentials.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("prefix", &self.prefix)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn misconfigured(message: String) -> BackendError {
    BackendError::new(ErrorKind::Misconfigured, message)
}

fn unreachable(shown: &str, waited: Duration, last: Option<ConnectError>) -> BackendError {
    let error = BackendError::new(
        ErrorKind::Unavailable,
        format!("no server at {shown} took the connection within {waited:?}"),
    );
    match last {
        Some(last) => error.with_source(last),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builder_shows_no_credentials() {
        let builder = Builder::new("nats://user:secret@host").user_and_password("user", "secret");
        assert!(!format!("{builder:?}").contains("secret"), "{builder:?}");
    }
}
