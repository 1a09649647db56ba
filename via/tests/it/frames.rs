//! What tabs see: frames over the stream, rendered when something changed and shared by all that may.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::support::{Tab, answer};
use futures_util::future::join_all;
use maud::html;
use via::prelude::*;
use via_backplane::{Backplane as _, Envelope, Family, Offset, ReadRange, Selector, TraceContext};
use via_inmem::InMemory;

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "test.counted", version = 1)]
struct Counted {
    by: i64,
}

impl Fold<i64> for Counted {
    fn fold(self, total: &mut i64, _at: &Recorded) {
        *total += self.by;
    }
}

/// How often the counter's view ran, per parameter.
static RENDERS: AtomicUsize = AtomicUsize::new(0);

#[derive(State)]
struct Counter {
    total: StateAppEvents<Counted, i64>,
}

#[derive(Serialize, Deserialize)]
enum Act {
    Count { by: i64 },
}

impl Component for Counter {
    type Action = Act;

    async fn act(&self, cx: &Cx, action: Act) -> via::Result<()> {
        let Act::Count { by } = action;
        self.total.append(cx, Counted { by }).await?;
        Ok(())
    }
}

impl Page for Counter {
    fn view(&self, cx: &View) -> Html {
        RENDERS.fetch_add(1, Ordering::SeqCst);
        html! {
            p { "total " (self.total.text(cx)) "." }
            button data-on:click=(cx.on(self, Act::Count { by: 1 })) {}
            button data-on:click=(cx.on(self, Act::Count { by: 0 })) {}
        }
    }
}

const UP: usize = 0;
const NOTHING: usize = 1;

/// A page that reads other state, and one that panics when it is told to.
#[derive(State)]
struct Fragile {
    fuse: StateApp<u32>,
}

#[derive(Serialize, Deserialize)]
enum Burn {
    To(u32),
}

impl Component for Fragile {
    type Action = Burn;

    async fn act(&self, cx: &Cx, action: Burn) -> via::Result<()> {
        let Burn::To(fuse) = action;
        self.fuse.set(cx, fuse).await
    }
}

impl Page for Fragile {
    fn view(&self, cx: &View) -> Html {
        assert!(*self.fuse.read(cx) != 1, "the fuse is burnt");
        html! {
            p { "fuse " (self.fuse.text(cx)) }
            @for to in [1, 2] { button data-on:click=(cx.on(self, Burn::To(to))) {} }
        }
    }
}

/// A page whose view has no answer for state that is not there, and whose action decides.
#[derive(State)]
struct Strict {
    total: StateAppEvents<Counted, i64>,
}

#[derive(Serialize, Deserialize)]
struct TakeOne;

impl Component for Strict {
    type Action = TakeOne;

    async fn act(&self, cx: &Cx, _: TakeOne) -> via::Result<()> {
        let decide = |total: &i64| match total {
            0 => Err(via::reject("Nothing left.")),
            _ => Ok(vec![Counted { by: -1 }]),
        };
        self.total.decide(cx, decide).await?;
        Ok(())
    }
}

impl Page for Strict {
    fn view(&self, cx: &View) -> Html {
        let left = *self.total.read(cx);
        assert!(left > 0, "nothing left");
        html! { p { "of " (100 / left) } button data-on:click=(cx.on(self, TakeOne)) {} }
    }
}

async fn app(backplane: &InMemory) -> via::Running {
    App::new()
        .with_backplane(backplane.clone())
        .page::<Counter>("/")
        .page::<Counter>("/counters/{id}")
        .page::<Fragile>("/fragile")
        .page::<Strict>("/strict")
        .start()
        .await
        .expect("the app starts")
}

/// Tests of one process share the render counter, so each that looks at it holds this.
static COUNTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn the_first_stream_sends_nothing_until_something_changes() {
    let _alone = COUNTING.lock().await;
    let app = app(&InMemory::new()).await;
    let tab = Tab::open(&app.router(), "/").await;
    assert!(tab.html.contains("total 0."), "{}", tab.html);
    let mut events = tab.follow().await;
    assert!(tab.click(UP).await.is(200, "ok"));
    assert!(events.frame().await.contains("total 1."), "the first event is the change");
    let mut resumed = tab.follow_from("").await;
    assert!(resumed.frame().await.contains("total 1."), "a tab that shows nothing gets the present");
}

#[tokio::test]
async fn a_change_is_rendered_once_for_all_tabs_of_a_page() {
    let _alone = COUNTING.lock().await;
    let app = app(&InMemory::new()).await;
    let tab = Tab::open(&app.router(), "/").await;
    let mut streams = join_all((0..200).map(|_| tab.follow())).await;
    let before = RENDERS.load(Ordering::SeqCst);
    assert!(tab.click(UP).await.is(200, "ok"));
    for events in &mut streams {
        assert!(events.frame().await.contains("total 1."));
    }
    let renders = RENDERS.load(Ordering::SeqCst) - before;
    assert!(renders <= 2, "{renders} renders for 200 tabs");
}

#[tokio::test]
async fn an_unchanged_view_is_not_sent_and_another_pages_change_does_not_render() {
    let _alone = COUNTING.lock().await;
    let app = app(&InMemory::new()).await;
    let tab = Tab::open(&app.router(), "/").await;
    let mut events = tab.follow().await;
    assert!(tab.click(NOTHING).await.is(200, "ok"));
    assert!(tab.click(UP).await.is(200, "ok"));
    assert!(events.frame().await.contains("total 1."), "adding nothing sent nothing");

    let fragile = Tab::open(&app.router(), "/fragile").await;
    let mut others = fragile.follow().await;
    let before = RENDERS.load(Ordering::SeqCst);
    assert!(fragile.click(1).await.is(200, "ok"));
    assert!(others.frame().await.contains("fuse 2"));
    assert_eq!(RENDERS.load(Ordering::SeqCst), before, "the counter does not read the fuse");
    assert!(events.is_silent());
}

#[tokio::test]
async fn a_burst_reaches_a_slow_tab_as_its_end() {
    let _alone = COUNTING.lock().await;
    let app = app(&InMemory::new()).await;
    let tab = Tab::open(&app.router(), "/").await;
    let mut slow = tab.follow().await;
    for _ in 0..300 {
        assert!(tab.click(UP).await.is(200, "ok"));
    }
    let mut quick = tab.follow_from("").await;
    quick.until("total 300.").await;
    let skipped = slow.until("total 300.").await;
    assert!(skipped <= 1, "the slow tab was shown {skipped} frames it had missed");
}

#[tokio::test]
async fn a_burst_renders_no_more_often_than_a_screen_shows() {
    let _alone = COUNTING.lock().await;
    let app = app(&InMemory::new()).await;
    let tab = Tab::open(&app.router(), "/").await;
    let mut events = tab.follow().await;
    let (before, started) = (RENDERS.load(Ordering::SeqCst), Instant::now());
    let reading = async { while !events.frame().await.contains("total 300.") {} };
    let clicking = async {
        for _ in 0..300 {
            assert!(tab.click(UP).await.is(200, "ok"));
        }
    };
    tokio::join!(reading, clicking);
    let renders = RENDERS.load(Ordering::SeqCst) - before;
    // The first may come at once, and the last one's gap need not be over.
    let most = started.elapsed().as_millis() / 16 + 2;
    assert!(renders as u128 <= most, "{renders} renders where {most} fit");
}

#[tokio::test]
async fn parameters_have_frames_of_their_own() {
    let _alone = COUNTING.lock().await;
    let app = app(&InMemory::new()).await;
    let (one, two) =
        (Tab::open(&app.router(), "/counters/1").await, Tab::open(&app.router(), "/counters/2").await);
    assert_ne!(one.token(UP), two.token(UP));
    let (mut ones, mut twos) = (one.follow().await, two.follow().await);
    assert!(one.click(UP).await.is(200, "ok"));
    assert!(ones.frame().await.contains(&one.token(UP)));
    assert!(twos.frame().await.contains(&two.token(UP)));
}

#[tokio::test]
async fn a_panic_in_a_view_is_a_notice_for_its_tabs_and_ends_with_its_cause() {
    let _alone = COUNTING.lock().await;
    let app = app(&InMemory::new()).await;
    let (fragile, counter) =
        (Tab::open(&app.router(), "/fragile").await, Tab::open(&app.router(), "/").await);
    let (mut events, mut others) = (fragile.follow().await, counter.follow().await);
    assert!(fragile.click(0).await.is(200, "ok"));
    let notice = events.next().await.expect("a notice");
    assert_eq!(notice, "event: via-notice\ndata: text Something went wrong here. It has been noted.");

    let opened = Tab::open(&app.router(), "/fragile").await;
    assert_eq!(opened.status, 500);
    assert!(opened.html.contains("Something went wrong here."), "{}", opened.html);
    assert!(!opened.html.contains("burnt"), "the detail is the log's");
    let mut healing = opened.follow().await;

    assert!(counter.click(UP).await.is(200, "ok"));
    assert!(others.frame().await.contains("total 1."), "other tabs are unharmed");
    assert!(fragile.click(1).await.is(200, "ok"), "an old button still works");
    assert!(events.frame().await.contains("fuse 2"));
    while !healing.next().await.expect("a frame").contains("fuse 2") {}
}

#[tokio::test]
async fn two_apps_over_one_backplane_are_one() {
    let _alone = COUNTING.lock().await;
    let backplane = InMemory::new();
    let (one, two) = (app(&backplane).await, app(&backplane).await);
    let tab = Tab::open(&one.router(), "/").await;
    let elsewhere = Tab { router: two.router(), ..tab.clone() };
    let mut events = tab.follow().await;
    assert!(elsewhere.click(UP).await.is(200, "ok"), "the other app answers this one's button");
    assert!(events.frame().await.contains("total 1."));
    elsewhere.follow_from("").await.until("total 1.").await;
    let theirs = Tab::open(&two.router(), "/").await;
    assert!(theirs.html.contains(&tab.token(UP)), "tokens are the same on every pod");
}

#[tokio::test]
async fn a_stop_ends_streams_with_a_hint_and_what_comes_after_goes_on() {
    let _alone = COUNTING.lock().await;
    let backplane = InMemory::new();
    let before = app(&backplane).await;
    let tab = Tab::open(&before.router(), "/").await;
    assert!(tab.click(UP).await.is(200, "ok"));
    let mut events = tab.follow().await;
    assert!(events.frame().await.contains("total 1."));
    let asked = Instant::now();
    before.shutdown().await.expect("a clean stop");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "no stream is waited for until the grace period is over"
    );
    assert_eq!(events.next().await.as_deref(), Some("retry: 1000"));
    assert_eq!(events.next().await, None);
    assert_eq!(before.engine().supervisor().tasks(), 0, "{:?}", before.engine().supervisor().names());
    assert!(tab.click(UP).await.is(503, "unavailable"));
    assert_eq!(crate::support::get(&before.router(), "/readyz").await.status(), 503);
    before.shutdown().await.expect("stopping twice is stopping once");

    let after = app(&backplane).await;
    let tab = Tab { router: after.router(), ..tab };
    let mut events = tab.follow().await;
    assert!(events.frame().await.contains("total 1."), "the stream shows the present");
    assert!(tab.click(UP).await.is(200, "ok"), "the old button still works");
    assert!(events.frame().await.contains("total 2."));
}

#[tokio::test]
async fn a_page_nobody_shows_is_not_rendered() {
    let _alone = COUNTING.lock().await;
    let app = app(&InMemory::new()).await;
    let tab = Tab::open(&app.router(), "/").await;
    let idle = app.engine().supervisor().tasks();
    let events = tab.follow().await;
    assert_eq!(app.engine().supervisor().tasks(), idle + 1);
    drop(events);
    while app.engine().supervisor().tasks() > idle {
        tokio::task::yield_now().await;
    }
    let before = RENDERS.load(Ordering::SeqCst);
    assert!(tab.click(UP).await.is(200, "ok"));
    assert_eq!(RENDERS.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn a_render_of_state_that_is_not_loaded_is_thrown_away_panics_included() {
    let _alone = COUNTING.lock().await;
    let backplane = InMemory::new();
    let first = app(&backplane).await;
    let tab = Tab::open(&first.router(), "/").await;
    assert!(tab.click(UP).await.is(200, "ok"));
    // Nothing is loaded in the second app yet; the view panics on the default.
    let second = app(&backplane).await;
    let strict = Tab::open(&second.router(), "/strict").await;
    assert_eq!(strict.status, 200);
    assert!(strict.html.contains("of 100"), "{}", strict.html);
}

#[tokio::test]
async fn a_decision_takes_what_is_there_and_refuses_in_its_own_words() {
    let _alone = COUNTING.lock().await;
    let app = app(&InMemory::new()).await;
    let tab = Tab::open(&app.router(), "/").await;
    assert!(tab.click(UP).await.is(200, "ok"));
    let mut events = tab.follow_from("").await;
    events.until("total 1.").await;
    let strict = Tab::open(&app.router(), "/strict").await;
    let (one, two) = tokio::join!(strict.click(0), strict.click(0));
    let refused =
        [&one, &two].into_iter().find(|answer| answer.is(200, "rejected")).expect("one comes too late");
    assert_eq!(refused.body["notice"], "Nothing left.");
    assert!([one, two].iter().any(|answer| answer.is(200, "ok")));
    events.until("total 0.").await;
}

/// The trace of the newest record of the total.
async fn newest_trace(backplane: &InMemory) -> TraceContext {
    let selector = Selector::Family(Family::new("total").expect("a valid name"));
    let head = backplane.log().head(&selector).await.expect("a head").offset;
    let range = ReadRange { after: Offset::BEGIN, up_to: head, limit: 100 };
    let batch = backplane.log().read(&selector, range).await.expect("the records");
    let newest = batch.iter().last().expect("a record");
    Envelope::decode(newest.bytes).expect("an envelope").trace.expect("every click has a trace")
}

#[tokio::test]
async fn what_a_click_appends_carries_its_trace() {
    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let _alone = COUNTING.lock().await;
    let backplane = InMemory::new();
    let app = app(&backplane).await;
    let tab = Tab::open(&app.router(), "/").await;
    let traced = |tab: &Tab| tab.action(&tab.token(0)).header("traceparent", SENT);

    assert!(answer(&app.router(), traced(&tab), "{}").await.is(200, "ok"));
    assert_eq!(newest_trace(&backplane).await.to_string(), SENT, "an append");
    assert!(tab.click(UP).await.is(200, "ok"));
    let own = newest_trace(&backplane).await;
    assert!(tab.click(UP).await.is(200, "ok"));
    assert_ne!(newest_trace(&backplane).await.trace_id, own.trace_id, "a click without a trace starts one");

    let strict = Tab::open(&app.router(), "/strict").await;
    assert!(answer(&app.router(), traced(&strict), "{}").await.is(200, "ok"));
    assert_eq!(newest_trace(&backplane).await.to_string(), SENT, "a decision");
}
