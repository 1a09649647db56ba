//! Running an action: everything that is checked before user code, and the answer after it.

use std::{collections::BTreeMap, error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::Serialize;
use tokio::time::{Instant, timeout};
use via_backplane::{JobError, OnStop};

use crate::{
    Cx, Error, Result,
    error::Kind,
    metrics::Counted,
    origin,
    page::Mounted,
    refusal::{GENERIC, Refusal, json},
    signal::Signals,
    site::Site,
    token::{BadToken, Params},
    trace,
};

/// The header an action's token travels in.
pub(crate) const TOKEN: &str = "via-token";

/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);
/// How much of a body over the limit is still read, and for how long: a connection closed under a browser that is
/// sending shows it a network failure instead of our answer.
const SWALLOWED: usize = 4 * 1024 * 1024;
const SWALLOWING: Duration = Duration::from_secs(2);

/// What the acting tab gets back. The script beside Datastar reads it.
#[derive(Default, Serialize)]
struct Answer {
    code: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    clear: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

type Running = BoxFuture<'static, Result<()>>;

/// Answers a POST.
pub(crate) async fn respond(
    site: &Site,
    page: &Arc<Mounted>,
    params: &Params,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (code, response) = match prepare(site, page, params, &headers, body).await {
        Ok((cx, act)) => run(site, page, cx, act).await,
        Err(refusal) => (refusal.code(), refusal.into_response()),
    };
    page.metrics.answered(code);
    response
}

/// Everything that is checked before user code runs, cheapest first.
async fn prepare(
    site: &Site,
    page: &Mounted,
    params: &Params,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Arc<Cx>, Running), Refusal> {
    if !origin::is_same(headers) {
        // A proxy that rewrites `Host` ends here; it has to pass `X-Forwarded-Host`.
        let said = |name: &str| headers.get(name).cloned();
        let (origin, site, host) = (said("origin"), said("sec-fetch-site"), said("host"));
        tracing::warn!(page = &*page.path, ?origin, ?site, ?host, "refused an action from another origin");
        return Err(Refusal::Forbidden);
    }
    site.check_tab(headers)?;
    let token = headers.get(TOKEN).and_then(|token| token.to_str().ok()).ok_or(Refusal::Forbidden)?;
    let verified = page.target(params).verify(&site.keys, token)?;
    let body =
        timeout(ARRIVAL, read(body, headers, site.body_limit)).await.map_err(|_| Refusal::TooSlow)??;
    let signals = Signals::parse(&body).map_err(|_| Refusal::Malformed)?;
    let cx = Arc::new(Cx::new(site.engine.clone(), signals, trace::of(headers)));
    let act = page.component.clone().act(&verified, cx.clone())?;
    Ok((cx, act))
}

impl From<BadToken> for Refusal {
    fn from(bad: BadToken) -> Self {
        match bad {
            BadToken::Forged => Self::Forbidden,
            BadToken::Stale => Self::StaleAction,
        }
    }
}

/// Runs the action in a task that the request only waits for: a browser that leaves interrupts nothing.
async fn run(site: &Site, page: &Arc<Mounted>, cx: Arc<Cx>, act: Running) -> (&'static str, Response) {
    let Ok(permit) = site.actions.clone().try_acquire_owned() else {
        return (Refusal::Unavailable.code(), Refusal::Unavailable.into_response());
    };
    let at = page.clone();
    let job = async move {
        let _permit = permit;
        let _counted = Counted::new(&at.metrics.actions_running);
        let start = Instant::now();
        let outcome = act.await;
        at.metrics.action_seconds.record(start.elapsed().as_secs_f64());
        outcome
    };
    match site.engine.supervisor().run(format!("action {}", page.path), OnStop::Drain, job).await {
        Ok(outcome) => {
            let (status, answer) = answer(page, &cx, outcome);
            (answer.code, json(status, &answer))
        }
        Err(JobError::Stopped) => (Refusal::Unavailable.code(), Refusal::Unavailable.into_response()),
        Err(error) => {
            tracing::error!(page = &*page.path, error = %error, "an action panicked");
            let answer = Answer { code: "internal", notice: Some(GENERIC.into()), ..Answer::default() };
            (answer.code, json(StatusCode::INTERNAL_SERVER_ERROR, &answer))
        }
    }
}

fn answer(page: &Mounted, cx: &Cx, outcome: Result<()>) -> (StatusCode, Answer) {
    let Err(Error(kind)) = outcome else {
        let effects = cx.take_effects();
        let (clear, notice, redirect) = (effects.clear, effects.notice, effects.redirect);
        return (StatusCode::OK, Answer { code: "ok", clear, notice, redirect, field: None });
    };
    // What failed clears nothing in the browser: the text is still there to be sent again.
    match kind {
        // A rejection is an answer, not a failure of the request: browsers log failures as errors of the page.
        Kind::Rejected(text) => {
            (StatusCode::OK, Answer { code: "rejected", notice: Some(text), ..Answer::default() })
        }
        Kind::Signal(error) => {
            let notice = Some(error.to_string());
            let code = error.problem.code();
            let field = Some(error.field);
            (StatusCode::UNPROCESSABLE_ENTITY, Answer { code, notice, field, ..Answer::default() })
        }
        Kind::Internal(error) => {
            tracing::error!(
                page = &*page.path,
                error = &*error as &(dyn StdError + 'static),
                "an action failed"
            );
            let answer = Answer { code: "internal", notice: Some(GENERIC.into()), ..Answer::default() };
            (StatusCode::INTERNAL_SERVER_ERROR, answer)
        }
    }
}

async fn read(mut body: Body, headers: &HeaderMap, limit: usize) -> Result<Bytes, Refusal> {
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    let mut bytes = BytesMut::new();
    let mut over = announced.is_some_and(|len| len > limit as u64);
    while !over && let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::Malformed)?.into_data() else { continue };
        over = bytes.len() + data.len() > limit;
        bytes.extend_from_slice(&data);
    }
    if over {
        drop(timeout(SWALLOWING, swallow(body)).await);
        return Err(Refusal::TooLarge);
    }
    Ok(bytes.freeze())
}

async fn swallow(mut body: Body) {
    let mut left = SWALLOWED;
    while let Some(Ok(frame)) = body.frame().await {
        let len = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(len) else { return };
        left = rest;
    }
}
