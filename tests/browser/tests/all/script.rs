//! What via's own script promises beside Datastar: clicks in order, one stream, and a page that only it may change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use browser_tests::{Browser, Window};
use tokio::{sync::Semaphore, time::timeout};
use via::Running;
use via_inmem::InMemory;

use crate::{
    live::{enter, wait_until_live},
    pod::{self, Front},
};

/// Holds a page's actions back until they are let through, and counts how many were under way at a time.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Gate {
    fn shut() -> Self {
        Self { open: Arc::new(Semaphore::new(0)), waiting: Arc::default(), most: Arc::default() }
    }

    fn before(&self, room: &Running) -> Router {
        let gate = self.clone();
        room.router().layer(from_fn(move |request, next| gate.clone().pass(request, next)))
    }

    async fn pass(self, request: Request, next: Next) -> Response {
        if request.method() != Method::POST {
            return next.run(request).await;
        }
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(waiting, Ordering::SeqCst);
        drop(self.open.acquire().await.expect("the gate is never closed"));
        let answer = next.run(request).await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn open(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS);
    }
}

async fn leave(window: Window, browser: Browser, room: Running, front: Front) {
    window.close().await;
    browser.close().await;
    pod::stop(room).await;
    front.close().await;
}

#[tokio::test]
async fn quick_clicks_are_sent_one_at_a_time_and_none_is_lost() {
    let room = pod::start(&InMemory::new()).await;
    let gate = Gate::shut();
    let front = Front::open(gate.before(&room)).await;
    let browser = Browser::launch().await;
    let window = enter(&browser, &front).await;

    for _ in 0..3 {
        window.click("#click").await;
    }
    gate.open();
    window.wait_for_text("#clicks", "3").await;
    assert_eq!(gate.most.load(Ordering::SeqCst), 1, "a click waits for the answer to the one before it");

    leave(window, browser, room, front).await;
}

#[tokio::test]
async fn what_is_typed_while_an_action_is_under_way_stays() {
    let room = pod::start(&InMemory::new()).await;
    let gate = Gate::shut();
    let front = Front::open(gate.before(&room)).await;
    let browser = Browser::launch().await;
    let window = enter(&browser, &front).await;

    window.type_into("#draft", "said").await;
    window.click("#say").await;
    window.type_into("#draft", " and more").await;
    // Behind the first in the tab's queue: once it has run, the first one's answer has been acted on.
    window.click("#click").await;
    gate.open();
    window.wait_for_text("#clicks", "1").await;
    assert_eq!(window.text("#lines").await, "said", "what was there at the click was sent");
    assert_eq!(window.text("#draft").await, "said and more");

    leave(window, browser, room, front).await;
}

#[tokio::test]
async fn a_hidden_tab_gives_its_stream_back_and_catches_up_when_shown() {
    let room = pod::start(&InMemory::new()).await;
    let front = Front::open(room.router()).await;
    let browser = Browser::launch().await;
    let supervisor = room.engine().supervisor().clone();
    let frames = || supervisor.names().iter().any(|name| name.starts_with("frames "));
    let window = enter(&browser, &front).await;
    assert!(frames());

    window.hide().await;
    window.wait_until("document.documentElement.getAttribute('data-via-stream') === 'hidden'").await;
    let given_back = async {
        while frames() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), given_back).await.expect("the server sees that nobody watches any more");
    // What is clicked in a hidden tab still counts; the page just is not told yet.
    let _: Option<bool> = window.eval("void document.querySelector('#click').click()").await;
    window.show().await;
    wait_until_live(&window).await;
    window.wait_for_text("#clicks", "1").await;

    leave(window, browser, room, front).await;
}

#[tokio::test]
async fn a_stream_that_is_answered_503_is_asked_for_again() {
    let room = pod::start(&InMemory::new()).await;
    let refusals = Arc::new(AtomicUsize::new(0));
    let counted = refusals.clone();
    let busy = from_fn(move |request: Request, next: Next| {
        let is_stream = request.uri().query().is_some_and(|query| query.contains("_via=stream"));
        let refused = is_stream && counted.fetch_add(1, Ordering::SeqCst) < 2;
        async move {
            if refused { StatusCode::SERVICE_UNAVAILABLE.into_response() } else { next.run(request).await }
        }
    });
    let front = Front::open(room.router().layer(busy)).await;
    let browser = Browser::launch().await;
    let window = browser.window(&front.url()).await;
    // Chromium logs every answer that is a failure; that is all it may say.
    window.excuse("503");
    wait_until_live(&window).await;
    assert_eq!(refusals.load(Ordering::SeqCst), 3, "two refusals, and then a stream");
    window.click("#click").await;
    window.wait_for_text("#clicks", "1").await;

    leave(window, browser, room, front).await;
}

#[tokio::test]
async fn a_script_put_into_the_page_does_not_run() {
    let room = pod::start(&InMemory::new()).await;
    let front = Front::open(room.router()).await;
    let browser = Browser::launch().await;
    let window = enter(&browser, &front).await;
    window.excuse("Content Security Policy");
    let ran: bool = window
        .eval(
            "(() => {
                const script = document.createElement('script')
                script.textContent = 'window.injected = true'
                document.body.append(script)
                document.body.insertAdjacentHTML('beforeend', '<button id=evil onclick=\"window.injected = true\"></button>')
                document.querySelector('#evil').click()
                return window.injected === true
            })()",
        )
        .await;
    assert!(!ran);
    leave(window, browser, room, front).await;
}
