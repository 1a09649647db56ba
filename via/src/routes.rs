//! The routes of an app: pages, files, health, metrics.

use std::sync::Arc;

use axum::{
    Router,
    extract::{OriginalUri, Path, RawPathParams, Request},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, Uri, header, request::Parts};

use crate::{
    action,
    document::{Shell, prefix},
    frame::FrameId,
    page::Mounted,
    refusal::Refusal,
    render::render,
    security,
    session::Session,
    site::Site,
    stream, tab,
    token::Params,
};

/// The paths an app has beside its pages.
pub(crate) const RESERVED: [&str; 4] = ["/_via/{name}", "/livez", "/readyz", "/metrics"];

/// The header with the frame a tab shows.
const FRAME: &str = "via-frame";

/// What a request to a page's address asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Document,
    Stream,
    Act,
}

impl Wish {
    fn of(uri: &Uri) -> Self {
        let mut pairs = uri.query().unwrap_or_default().split('&');
        match pairs.find_map(|pair| pair.strip_prefix("_via=")) {
            Some("stream") => Self::Stream,
            Some("act") => Self::Act,
            _ => Self::Document,
        }
    }
}

/// The app as a router that nests in another.
pub(crate) fn router(site: &Arc<Site>, pages: &[Arc<Mounted>]) -> Router {
    let (filing, probed) = (site.clone(), site.clone());
    let mut router = Router::new()
        .route(RESERVED[0], get(move |Path(name): Path<String>| async move { file(&filing, &name) }))
        .route(RESERVED[1], get(|| async { "ok" }))
        .route(RESERVED[2], get(move || async move { ready(&probed) }));
    if let Some(prometheus) = site.prometheus.clone() {
        let scrape = move || async move {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], prometheus.render())
        };
        router = router.route(RESERVED[3], get(scrape));
    }
    for page in pages {
        router = router.route(&page.path, routes_of(site, page));
    }
    router.layer(map_response(security::guard))
}

fn routes_of(site: &Arc<Site>, page: &Arc<Mounted>) -> axum::routing::MethodRouter {
    let (reading, writing) = ((site.clone(), page.clone()), (site.clone(), page.clone()));
    get(move |params: RawPathParams, request: Request| {
        let (site, page) = reading.clone();
        async move { read(&site, &page, owned(&params), request).await }
    })
    .post(move |params: RawPathParams, request: Request| {
        let (site, page) = writing.clone();
        async move { write(&site, &page, owned(&params), request).await }
    })
}

/// The request's head is dropped before a stream begins: it would live as long as its tab.
async fn read(site: &Arc<Site>, page: &Arc<Mounted>, params: Arc<Params>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    match Wish::of(&head.uri) {
        Wish::Document => document(site, page, params, head).await,
        Wish::Stream => follow(site, page, params, &head.headers).into_response(),
        Wish::Act => method_not_allowed("POST"),
    }
}

async fn write(site: &Arc<Site>, page: &Arc<Mounted>, params: Arc<Params>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    match Wish::of(&head.uri) {
        Wish::Act => action::respond(site, page, &params, head.headers, body).await,
        Wish::Document | Wish::Stream => method_not_allowed("GET"),
    }
}

async fn document(site: &Arc<Site>, page: &Arc<Mounted>, params: Arc<Params>, head: Parts) -> Response {
    page.metrics.documents.increment(1);
    let known = Session::of(&head.headers, &site.keys);
    let session = known.unwrap_or_else(Session::new);
    let asked = head.extensions.get::<OriginalUri>().map_or(head.uri.path(), |original| original.0.path());
    let shell = Shell {
        title: &page.title,
        tab: &tab::issue(&site.keys, session),
        assets: &site.assets,
        prefix: prefix(asked, head.uri.path()),
    };
    let rendered = render(page, &params, &site.keys).await;
    let mut response = shell.respond(rendered.frame);
    if known.is_none() {
        response.headers_mut().insert(header::SET_COOKIE, session.set_cookie(&site.keys, site.transport));
    }
    response
}

fn follow(
    site: &Arc<Site>,
    page: &Arc<Mounted>,
    params: Arc<Params>,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    site.check_tab(headers)?;
    let shown = headers.get(FRAME).and_then(|id| FrameId::parse(id.to_str().ok()?));
    Ok(stream::respond(page, site.frames.follow(page, params), shown))
}

fn file(site: &Site, name: &str) -> Response {
    site.assets.find(name).map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

fn ready(site: &Site) -> (StatusCode, &'static str) {
    match site.is_stopping() {
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        false => (StatusCode::OK, "ok"),
    }
}

fn method_not_allowed(allowed: &'static str) -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, allowed)]).into_response()
}

fn owned(params: &RawPathParams) -> Arc<Params> {
    params.iter().map(|(name, value)| (name.into(), value.into())).collect()
}
