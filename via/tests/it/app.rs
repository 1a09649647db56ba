//! What an app promises around its pages: starting, nesting, headers, files, health, metrics, secrets.

use std::sync::Arc;

use crate::support::{HOST, Tab, get, text};
use axum::{Router, extract::Request, middleware, response::IntoResponse as _};
use http::{StatusCode, header};
use maud::html;
use tokio::sync::Notify;
use via::prelude::*;
use via_inmem::InMemory;

#[derive(State)]
struct Switch {
    on: StateApp<bool>,
}

#[derive(Serialize, Deserialize)]
enum Act {
    Toggle,
}

impl Component for Switch {
    type Action = Act;

    async fn act(&self, cx: &Cx, _: Act) -> via::Result<()> {
        self.on
            .update(cx, |on| {
                *on = !*on;
                Ok(())
            })
            .await
    }
}

impl Page for Switch {
    fn title(&self) -> String {
        "A <switch>".into()
    }

    fn view(&self, cx: &View) -> Html {
        html! { p { "on: " (self.on.text(cx)) } button data-on:click=(cx.on(self, Act::Toggle)) {} }
    }
}

async fn start(app: App) -> via::Running {
    app.start().await.expect("the app starts")
}

/// The addresses in a document's head.
fn addresses(html: &str) -> Vec<&str> {
    let marks =
        html.split([' ', '>']).filter_map(|it| it.strip_prefix("href=\"").or(it.strip_prefix("src=\"")));
    marks.map(|it| it.trim_end_matches('"')).collect()
}

#[tokio::test]
async fn a_document_names_its_files_and_runs_nothing_inline() {
    let app = start(App::new().page::<Switch>("/").stylesheet("p { color: red }")).await;
    let tab = Tab::open(&app.router(), "/").await;
    assert!(tab.html.contains("<title>A &lt;switch&gt;</title>"), "{}", tab.html);
    assert!(!tab.html.contains("<style") && !tab.html.contains("onclick"), "{}", tab.html);
    assert_eq!(tab.html.matches("<script").count(), 1, "one script, external: {}", tab.html);
    let files = addresses(&tab.html);
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        let response = get(&app.router(), file).await;
        assert_eq!(response.status(), StatusCode::OK, "{file}");
        let kind = response.headers()[header::CONTENT_TYPE].to_str().expect("ASCII");
        assert!(
            ["text/javascript; charset=utf-8", "text/css; charset=utf-8", "image/svg+xml"].contains(&kind),
            "{file}: {kind}"
        );
        assert_eq!(
            response.headers()[header::CACHE_CONTROL],
            "public, max-age=31536000, immutable",
            "{file}"
        );
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{file}");
    }
}

#[tokio::test]
async fn every_answer_is_guarded() {
    let app = start(App::new().page::<Switch>("/")).await;
    let tab = Tab::open(&app.router(), "/").await;
    assert_eq!(
        tab.headers[header::CONTENT_SECURITY_POLICY],
        "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src-attr 'unsafe-inline'; object-src 'none'; \
         base-uri 'self'; frame-ancestors 'self'"
    );
    assert_eq!(tab.headers[header::CACHE_CONTROL], "no-store");
    let cookie = tab.headers[header::SET_COOKIE].to_str().expect("ASCII");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
    let loopback = start(App::new().page::<Switch>("/").on_loopback()).await;
    let tab = Tab::open(&loopback.router(), "/").await;
    assert!(!tab.headers[header::SET_COOKIE].to_str().expect("ASCII").contains("Secure"));
}

#[tokio::test]
async fn a_nested_app_finds_its_files_and_a_layer_covers_all_of_a_page() {
    let app = start(App::new().page::<Switch>("/switch")).await;
    let guard = middleware::from_fn(|request: Request, next: middleware::Next| async move {
        match request.headers().contains_key("x-login") || request.uri().path().contains("/_via/") {
            true => next.run(request).await,
            false => StatusCode::UNAUTHORIZED.into_response(),
        }
    });
    let open = Router::new().nest("/inner/app", app.router());
    let tab = Tab::open(&open, "/inner/app/switch").await;
    for file in addresses(&tab.html) {
        assert!(file.starts_with("/inner/app/_via/"), "{file}");
        assert_eq!(get(&open, file).await.status(), StatusCode::OK, "{file}");
    }
    assert!(tab.click(0).await.is(200, "ok"));
    let mut events = tab.follow().await;
    assert!(events.frame().await.contains("on: true"));

    let guarded = Tab { router: open.layer(guard), ..tab };
    assert_eq!(get(&guarded.router, "/inner/app/switch").await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(guarded.click(0).await.status, StatusCode::UNAUTHORIZED);
    let stream = guarded.streaming().body(axum::body::Body::empty()).expect("a request");
    assert_eq!(crate::support::send(&guarded.router, stream).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn pods_share_a_secret_that_the_first_of_them_made() {
    let backplane = InMemory::new();
    let apps = tokio::join!(
        start(App::new().with_backplane(backplane.clone()).page::<Switch>("/")),
        start(App::new().with_backplane(Arc::new(backplane.clone())).page::<Switch>("/")),
    );
    let tab = Tab::open(&apps.0.router(), "/").await;
    let elsewhere = Tab { router: apps.1.router(), ..tab.clone() };
    assert!(elsewhere.click(0).await.is(200, "ok"), "session, tab and action tokens hold on the other pod");
    let stranger = start(App::new().page::<Switch>("/")).await;
    let lost = Tab { router: stranger.router(), ..tab };
    assert!(lost.click(0).await.is(409, "reload"), "another secret asks for a fresh document");
}

#[tokio::test]
async fn an_action_goes_on_when_its_browser_leaves() {
    static ENTERED: Notify = Notify::const_new();
    static LEAVE: Notify = Notify::const_new();
    #[derive(State)]
    struct Slow {
        done: StateApp<bool>,
    }
    impl Component for Slow {
        type Action = ();
        async fn act(&self, cx: &Cx, (): ()) -> via::Result<()> {
            ENTERED.notify_one();
            LEAVE.notified().await;
            self.done.set(cx, true).await
        }
    }
    impl Page for Slow {
        fn view(&self, cx: &View) -> Html {
            html! { p { "done: " (self.done.text(cx)) } button data-on:click=(cx.on(self, ())) {} }
        }
    }
    let app = start(App::new().page::<Slow>("/")).await;
    let tab = Tab::open(&app.router(), "/").await;
    let mut events = tab.follow().await;
    tokio::select! {
        biased;
        answer = tab.click(0) => panic!("the action waits: {answer:?}"),
        () = ENTERED.notified() => {}
    }
    LEAVE.notify_one();
    assert!(events.frame().await.contains("done: true"));
}

#[tokio::test]
async fn a_stop_waits_for_the_actions_under_way() {
    static ENTERED: Notify = Notify::const_new();
    #[derive(State)]
    struct Slow {
        done: StateApp<u32>,
    }
    impl Component for Slow {
        type Action = ();
        async fn act(&self, cx: &Cx, (): ()) -> via::Result<()> {
            ENTERED.notify_one();
            cx.engine().supervisor().stopping().cancelled().await;
            self.done.set(cx, 7).await
        }
    }
    impl Page for Slow {
        fn view(&self, cx: &View) -> Html {
            html! { p { "done: " (self.done.text(cx)) } button data-on:click=(cx.on(self, ())) {} }
        }
    }
    let backplane = InMemory::new();
    let app = start(App::new().with_backplane(backplane.clone()).page::<Slow>("/")).await;
    let tab = Tab::open(&app.router(), "/").await;
    let stop = async {
        ENTERED.notified().await;
        app.shutdown().await.expect("a clean stop");
    };
    let (answer, ()) = tokio::join!(tab.click(0), stop);
    assert!(answer.is(200, "ok"), "{answer:?}");
    let after = start(App::new().with_backplane(backplane).page::<Slow>("/")).await;
    assert!(Tab::open(&after.router(), "/").await.html.contains("done: 7"));
}

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "app.noted", version = 1)]
struct Noted {}

impl Fold<u32> for Noted {
    fn fold(self, notes: &mut u32, _: &Recorded) {
        *notes += 1;
    }
}

/// Another type under the same name.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "app.noted", version = 1)]
struct NotedToo {}

impl Fold<u32> for NotedToo {
    fn fold(self, _: &mut u32, _: &Recorded) {}
}

macro_rules! page {
    ($name:ident { $($field:tt)* }) => {
        #[derive(State)]
        #[expect(dead_code, reason = "only how its fields are bound is looked at")]
        struct $name { $($field)* }

        impl Component for $name {
            type Action = ();
            async fn act(&self, _: &Cx, (): ()) -> via::Result<()> {
                Ok(())
            }
        }

        impl Page for $name {
            fn view(&self, _: &View) -> Html {
                html! {}
            }
        }
    };
}

page!(Texts { theme: StateApp<String> });
page!(Numbers { theme: StateApp<u32> });
page!(Notes { log: StateAppEvents<Noted, u32> });
page!(Clashing { other: StateAppEvents<NotedToo, u32> });
page!(Renamed { #[state(key = "log")] entries: StateAppEvents<Noted, u32> });
page!(Named { age: Signal<u32>, #[state(key = "age")] years: Signal<String> });

#[tokio::test]
async fn one_key_with_two_types_is_an_error_at_start_that_names_both_places() {
    let error = App::new().page::<Texts>("/a").page::<Numbers>("/b").start().await.expect_err("two types");
    let error = format!("{error:?}");
    for part in ["app::Texts.theme", "app::Numbers.theme", "key"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = App::new().page::<Named>("/").start().await.expect_err("two types of one signal").to_string();
    for part in ["app::Named.age", "app::Named.years", "#[state(key"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn an_event_name_of_two_types_is_an_error_at_start_that_names_both_places() {
    let error = App::new().page::<Notes>("/a").page::<Clashing>("/b").start().await.expect_err("two types");
    let error = format!("{error:?}");
    for part in ["app.noted", "app::Notes.log", "app::Clashing.other"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn one_key_and_type_is_one_state_wherever_it_is_declared() {
    drop(
        start(App::new().page::<Notes>("/a").page::<Renamed>("/b").page::<Texts>("/c").page::<Texts>("/d"))
            .await,
    );
}

#[tokio::test]
async fn a_start_that_cannot_be_says_what_to_do() {
    for (app, says) in [
        (App::new().with_secret([1; 31]), "at least 32"),
        (App::new().page::<Switch>("switch"), "start it with `/`"),
        (App::new().page::<Switch>("/").page::<Texts>("/"), "choose another"),
    ] {
        let error = format!("{:?}", app.start().await.expect_err(says));
        assert!(error.contains(says) && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn health_is_answered() {
    let app = start(App::new().page::<Switch>("/")).await;
    assert_eq!(get(&app.router(), "/livez").await.status(), StatusCode::OK);
    assert_eq!(get(&app.router(), "/readyz").await.status(), StatusCode::OK);
    assert_eq!(get(&app.router(), "/metrics").await.status(), StatusCode::NOT_FOUND, "off unless asked for");
    app.shutdown().await.expect("a clean stop");
    assert_eq!(get(&app.router(), "/livez").await.status(), StatusCode::OK);
    assert_eq!(get(&app.router(), "/readyz").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn two_apps_in_one_process_both_export_metrics() {
    // Other tests of this process count too, at other pages.
    let apps = [
        start(App::new().page::<Switch>("/metered").with_prometheus()).await,
        start(App::new().page::<Notes>("/notes").with_prometheus()).await,
    ];
    let tab = Tab::open(&apps[0].router(), "/metered").await;
    assert!(tab.click(0).await.is(200, "ok"));
    drop(tab.follow().await);
    drop(Tab::open(&apps[1].router(), "/notes").await);
    for app in &apps {
        let page = text(get(&app.router(), "/metrics").await).await;
        for line in [
            "via_action_total{page=\"/metered\",outcome=\"ok\"} 1",
            "via_tab_documents_total{page=\"/notes\"} 1",
            "via_tab_streams_opened_total{page=\"/metered\"} 1",
            "via_action_seconds_bucket{page=\"/metered\",le=\"+Inf\"} 1",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        let types: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let mut once = types.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), types.len(), "each metric is described once: {types:?}");
    }
}

#[tokio::test]
async fn every_metric_of_a_page_moves_with_what_it_names() {
    #[derive(State)]
    struct Frail {
        broken: StateApp<bool>,
    }
    impl Component for Frail {
        type Action = ();
        async fn act(&self, cx: &Cx, (): ()) -> via::Result<()> {
            self.broken.set(cx, true).await
        }
    }
    impl Page for Frail {
        fn view(&self, cx: &View) -> Html {
            assert!(!*self.broken.read(cx), "broken");
            html! { button data-on:click=(cx.on(self, ())) {} }
        }
    }
    let app = start(App::new().page::<Switch>("/moves").page::<Frail>("/frail").with_prometheus()).await;
    let (tab, frail) = (Tab::open(&app.router(), "/moves").await, Tab::open(&app.router(), "/frail").await);
    let (mut events, mut notices) = (tab.follow().await, frail.follow().await);
    assert!(tab.click(0).await.is(200, "ok"));
    assert!(events.frame().await.contains("on: true"));
    assert!(frail.click(0).await.is(200, "ok"));
    notices.next().await.expect("a notice");
    let page = text(get(&app.router(), "/metrics").await).await;
    for line in [
        "via_tab_documents_total{page=\"/moves\"} 1",
        "via_tab_streams{page=\"/moves\"} 1",
        "via_tab_streams_opened_total{page=\"/moves\"} 1",
        "via_action_total{page=\"/moves\",outcome=\"ok\"} 1",
        "via_action_seconds_count{page=\"/moves\"} 1",
        "via_action_running{page=\"/moves\"} 0",
        "via_frame_tasks{page=\"/moves\"} 1",
        "via_frame_rendered_total{page=\"/moves\"} ",
        "via_frame_render_seconds_count{page=\"/moves\"} ",
        "via_frame_published_total{page=\"/moves\"} ",
        "via_frame_bytes_count{page=\"/moves\"} ",
        "via_frame_sent_total{page=\"/moves\"} 1",
        "via_frame_failed_total{page=\"/frail\",reason=\"panicked\"} ",
    ] {
        let moved = page.lines().any(|it| it.starts_with(line) && !it.ends_with("} 0") || it == line);
        assert!(moved, "{line} in {page}");
    }
    drop((events, notices));
    while !text(get(&app.router(), "/metrics").await).await.contains("via_tab_streams{page=\"/moves\"} 0") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_head_request_has_no_body() {
    let app = start(App::new().page::<Switch>("/")).await;
    let head =
        http::Request::head("/").header("host", HOST).body(axum::body::Body::empty()).expect("a request");
    let response = crate::support::send(&app.router(), head).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, "");
}
