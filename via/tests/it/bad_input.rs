//! What a page answers to input that is not what it rendered: each row stops before user code, or says which field.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{HOST, Tab, answer, get, send};
use axum::body::Body;
use http::{Request, StatusCode};
use maud::html;
use parking_lot::Mutex;
use via::prelude::*;

const SECRET: [u8; 32] = [9; 32];

/// How often user code ran.
static RUNS: AtomicUsize = AtomicUsize::new(0);

#[derive(State)]
struct Form {
    total: StateApp<u64>,
    age: Signal<u8>,
    note: Signal<String>,
    size: Signal<Option<i32>>,
}

#[derive(Serialize, Deserialize)]
enum Act {
    Read,
    Reject,
    Fail,
    Panic,
}

impl Component for Form {
    type Action = Act;

    async fn act(&self, cx: &Cx, action: Act) -> via::Result<()> {
        RUNS.fetch_add(1, Ordering::SeqCst);
        match action {
            Act::Read => {
                let age = self.age.get(cx)?;
                self.size.get(cx)?;
                self.note.take(cx)?;
                self.total
                    .update(cx, |total| {
                        *total += u64::from(age);
                        Ok(())
                    })
                    .await
            }
            Act::Reject => {
                self.note.take(cx)?;
                Err(via::reject("Not today."))
            }
            Act::Fail => Err(io::Error::other("the secret detail"))?,
            Act::Panic => panic!("the panic's detail"),
        }
    }
}

impl Page for Form {
    fn view(&self, cx: &View) -> Html {
        html! {
            p { "total " (self.total.text(cx)) }
            @for act in [Act::Read, Act::Reject, Act::Fail, Act::Panic] {
                button data-on:click=(cx.on(self, act)) {}
            }
        }
    }
}

const READ: usize = 0;
const REJECT: usize = 1;
const FAIL: usize = 2;
const PANIC: usize = 3;
/// The most bytes a body may have here.
const LIMIT: usize = 1024;
const GOOD: &str = r#"{"age":"7","note":"hi","size":""}"#;

async fn app() -> via::Running {
    App::new()
        .with_secret(SECRET)
        .page::<Form>("/form")
        .page::<Form>("/other")
        .page::<Form>("/forms/{id}")
        .with_body_limit(LIMIT)
        .start()
        .await
        .expect("the app starts")
}

/// Tests of one process share the counter, so each that looks at it holds this.
static COUNTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn a_token_that_was_not_signed_for_here_never_reaches_user_code() {
    let _alone = COUNTING.lock().await;
    let app = app().await;
    let tab = Tab::open(&app.router(), "/form").await;
    let good = tab.token(READ);
    let before = RUNS.load(Ordering::SeqCst);
    let mut forged = good.clone().into_bytes();
    let last = forged.last_mut().expect("a token");
    *last = if *last == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("ASCII");
    for token in [forged.as_str(), &good[..good.len() - 4], &good[..8], "", "not base64!"] {
        assert!(tab.act(token, GOOD).await.is(403, "forbidden"), "{token}");
    }
    let elsewhere = Tab::open_as(&app.router(), "/other", &tab.cookie).await;
    assert!(elsewhere.act(&good, GOOD).await.is(403, "forbidden"), "another page");
    let seven = Tab::open_as(&app.router(), "/forms/7", &tab.cookie).await;
    let eight = Tab::open_as(&app.router(), "/forms/8", &tab.cookie).await;
    assert!(eight.act(&seven.token(READ), GOOD).await.is(403, "forbidden"), "another parameter");
    let without = tab.action(&good);
    let mut without = without.body(Body::from(GOOD)).expect("a request");
    without.headers_mut().remove("via-token");
    assert_eq!(send(&tab.router, without).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(RUNS.load(Ordering::SeqCst), before, "no user code ran");
    assert!(seven.act(&seven.token(READ), GOOD).await.is(200, "ok"));
}

#[tokio::test]
async fn a_request_from_another_origin_never_reaches_user_code() {
    let _alone = COUNTING.lock().await;
    let app = app().await;
    let tab = Tab::open(&app.router(), "/form").await;
    let before = RUNS.load(Ordering::SeqCst);
    let spoilt: [&[(&str, Option<&str>)]; 5] = [
        &[("origin", Some("https://evil.example"))],
        &[("origin", Some("null"))],
        &[("sec-fetch-site", Some("cross-site"))],
        &[("sec-fetch-site", Some("same-site"))],
        &[("origin", None), ("sec-fetch-site", None)],
    ];
    for headers in spoilt {
        let mut request = tab.action(&tab.token(READ)).body(Body::from(GOOD)).expect("a request");
        for (name, value) in headers {
            request.headers_mut().remove(*name);
            if let Some(value) = value {
                request.headers_mut().insert(*name, value.parse().expect("a value"));
            }
        }
        assert_eq!(send(&tab.router, request).await.status(), StatusCode::FORBIDDEN, "{headers:?}");
    }
    assert_eq!(RUNS.load(Ordering::SeqCst), before, "no user code ran");
}

#[tokio::test]
async fn a_foreign_tab_token_answers_reload_and_a_forged_one_is_refused() {
    let app = app().await;
    let (mine, theirs) = (Tab::open(&app.router(), "/form").await, Tab::open(&app.router(), "/form").await);
    let foreign = Tab { tab: theirs.tab, ..mine.clone() };
    assert!(foreign.click(READ).await.is(409, "reload"));
    let expired = Tab { cookie: String::new(), ..mine.clone() };
    assert!(expired.click(READ).await.is(409, "reload"));
    let forged = Tab { tab: format!("{}AAAA", mine.tab), ..mine.clone() };
    assert!(forged.click(READ).await.is(403, "forbidden"));
    for (tab, status, code) in [(foreign, 409, "reload"), (forged, 403, "forbidden")] {
        let refused = answer(&app.router(), tab.streaming(), Body::empty()).await;
        assert!(refused.is(status, code), "{refused:?}");
    }
}

#[tokio::test]
async fn a_signed_token_this_binary_cannot_decode_is_stale() {
    #[derive(State)]
    struct Newer {}
    #[derive(Serialize, Deserialize)]
    enum NewerAct {
        Read,
    }
    impl Component for Newer {
        type Action = NewerAct;
        async fn act(&self, _: &Cx, _: NewerAct) -> via::Result<()> {
            panic!("an old button must not run a new action")
        }
    }
    impl Page for Newer {
        fn view(&self, cx: &View) -> Html {
            html! { button data-on:click=(cx.on(self, NewerAct::Read)) {} }
        }
    }
    let (old, new) =
        (app().await, App::new().with_secret(SECRET).page::<Newer>("/form").start().await.expect("starts"));
    let tab = Tab::open(&old.router(), "/form").await;
    let after_the_deploy = Tab { router: new.router(), ..tab.clone() };
    assert!(after_the_deploy.click(READ).await.is(409, "stale_action"));
}

#[tokio::test]
async fn an_unknown_page_is_not_found() {
    let app = app().await;
    assert_eq!(get(&app.router(), "/nowhere").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&app.router(), "/_via/nothing.js").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_signal_that_is_not_its_type_names_its_field_and_is_never_a_default() {
    let app = app().await;
    let tab = Tab::open(&app.router(), "/form").await;
    for (signals, code, field) in [
        (r#"{"age":"256","note":"","size":""}"#, "signal_out_of_range", "age"),
        (r#"{"age":"-1","note":"","size":""}"#, "signal_out_of_range", "age"),
        (r#"{"age":"seven","note":"","size":""}"#, "signal_wrong_type", "age"),
        (r#"{"age":7,"note":"","size":""}"#, "signal_wrong_type", "age"),
        (r#"{"age":"","note":"","size":""}"#, "signal_empty", "age"),
        (r#"{"note":"","size":""}"#, "signal_missing", "age"),
        (r#"{"age":"7","note":"","size":"99999999999"}"#, "signal_out_of_range", "size"),
        (r#"{"age":"7","note":["x"],"size":""}"#, "signal_wrong_type", "note"),
    ] {
        let answer = tab.act(&tab.token(READ), signals).await;
        assert!(answer.is(422, code), "{signals}: {answer:?}");
        assert_eq!(answer.body["field"], field, "{signals}");
        assert_eq!(answer.body.get("clear"), None, "what failed clears nothing");
    }
    let answer = tab.act(&tab.token(READ), GOOD).await;
    assert!(answer.is(200, "ok"), "{answer:?}");
    assert_eq!(answer.body["clear"], serde_json::json!({ "note": "" }));
}

#[tokio::test]
async fn signals_that_are_no_object_are_malformed() {
    let app = app().await;
    let tab = Tab::open(&app.router(), "/form").await;
    for body in ["", "[]", "{", "null", "\u{0}"] {
        assert!(tab.act(&tab.token(READ), body).await.is(400, "malformed"), "{body:?}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large_however_it_is_sent() {
    let app = app().await;
    let tab = Tab::open(&app.router(), "/form").await;
    let around = GOOD.len() - "hi".len();
    for (size, status, code) in
        [(LIMIT, 200, "ok"), (LIMIT + 1, 413, "too_large"), (2 * LIMIT, 413, "too_large")]
    {
        let body = GOOD.replace("hi", &"x".repeat(size - around));
        assert_eq!(body.len(), size);
        let announced = tab.action(&tab.token(READ)).header("content-length", size);
        let announced = answer(&tab.router, announced, body.clone()).await;
        assert!(announced.is(status, code), "{size} announced: {announced:?}");
        let chunks =
            body.into_bytes().chunks(100).map(|it| Ok::<_, io::Error>(it.to_vec())).collect::<Vec<_>>();
        let chunks = Body::from_stream(futures_util::stream::iter(chunks));
        let unannounced = answer(&tab.router, tab.action(&tab.token(READ)), chunks).await;
        assert!(unannounced.is(status, code), "{size} unannounced: {unannounced:?}");
    }
}

#[tokio::test]
async fn a_rejection_is_what_people_read_and_clears_nothing() {
    let app = app().await;
    let tab = Tab::open(&app.router(), "/form").await;
    let answer = tab.act(&tab.token(REJECT), GOOD).await;
    assert!(answer.is(200, "rejected"), "{answer:?}");
    assert_eq!(answer.body["notice"], "Not today.");
    assert_eq!(answer.body.get("clear"), None);
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

#[tokio::test]
async fn a_failure_and_a_panic_are_generic_to_the_browser_and_whole_in_the_log() {
    let log = Log::default();
    let writer = log.clone();
    // For the whole process: one for this thread alone may miss what another test's thread was the first to log.
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let app = app().await;
    let (tab, bystander) = (Tab::open(&app.router(), "/form").await, Tab::open(&app.router(), "/form").await);
    for (act, detail) in [(FAIL, "the secret detail"), (PANIC, "the panic's detail")] {
        let answer = tab.act(&tab.token(act), GOOD).await;
        assert!(answer.is(500, "internal"), "{answer:?}");
        assert_eq!(answer.body["notice"], "Something went wrong here. It has been noted.");
        assert!(!answer.body.to_string().contains("detail"), "{answer:?}");
        assert!(log.text().contains(detail), "{}", log.text());
    }
    assert!(tab.act(&tab.token(READ), GOOD).await.is(200, "ok"), "the tab goes on");
    assert!(bystander.act(&bystander.token(READ), GOOD).await.is(200, "ok"), "and so do others");
}

#[tokio::test]
async fn a_malformed_cookie_is_replaced_and_a_good_one_is_kept() {
    let app = app().await;
    let tab = Tab::open_as(&app.router(), "/form", "via_session=junk").await;
    assert_ne!(tab.cookie, "via_session=junk");
    assert!(tab.act(&tab.token(READ), GOOD).await.is(200, "ok"), "the new cookie works");
    let again = Tab::open_as(&app.router(), "/form", &tab.cookie).await;
    assert_eq!(again.headers.get("set-cookie"), None);
    let stream =
        Request::get("/form?_via=stream").header("host", HOST).body(Body::empty()).expect("a request");
    assert_eq!(
        send(&app.router(), stream).await.headers().get("set-cookie"),
        None,
        "only a document makes a session"
    );
}

#[tokio::test]
async fn the_wrong_method_is_refused() {
    let app = app().await;
    let post = Request::post("/form").body(Body::empty()).expect("a request");
    assert_eq!(send(&app.router(), post).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get(&app.router(), "/form?_via=act").await.status(), StatusCode::METHOD_NOT_ALLOWED);
}
