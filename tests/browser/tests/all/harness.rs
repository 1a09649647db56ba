//! The harness judges every other browser test, so it is shown to notice what it must.

use browser_tests::{Browser, Complaint};

use crate::site::{Answer, Site};

const QUIET: Answer = Answer {
    headers: "",
    body: r#"<!doctype html><link rel="icon" href="data:,"><title>quiet</title>
<p id="said">nothing</p>
<form onsubmit="event.preventDefault(); said.innerText = field.value; field.value = ''">
  <input id="field"><button>Say</button>
</form>
<p id="hidden"></p>
<script>
  document.addEventListener('visibilitychange', () => { document.getElementById('hidden').innerText += `[${document.visibilityState}]` });
</script>"#,
};

fn quiet() -> Site {
    Site::serve([("/", QUIET), ("/other", QUIET)])
}

async fn complaints_of(body: &'static str, headers: &'static str) -> Vec<Complaint> {
    let site = Site::serve([("/", Answer { headers, body })]);
    let browser = Browser::launch().await;
    let window = browser.window(&site.url("/")).await;
    window.wait_until("window.done === true").await;
    let complaints = window.close_with_complaints().await;
    browser.close().await;
    complaints
}

#[tokio::test]
async fn a_quiet_page_can_be_read_clicked_and_typed_into() {
    let site = quiet();
    let browser = Browser::launch().await;
    let window = browser.window(&site.url("/")).await;

    assert_eq!(window.text("#said").await, "nothing");
    window.type_into("#field", "Grüße, hello").await;
    assert_eq!(window.focused().await.as_deref(), Some("#field"));
    window.press("ArrowLeft").await;
    assert_eq!(window.caret().await, 11);
    window.click("button").await;
    window.wait_for_text("#said", "Grüße, hello").await;

    window.type_into("#field", "by Enter").await;
    window.press("Enter").await;
    window.wait_for_text("#said", "by Enter").await;
    assert_eq!(window.text("#field").await, "");

    window.hide().await;
    window.show().await;
    window.wait_for_text("#hidden", "[hidden][visible]").await;

    assert!(window.screenshot().await.starts_with(b"\x89PNG"));
    window.close().await;
    browser.close().await;
}

#[tokio::test]
async fn windows_are_sessions_and_tabs_share_theirs() {
    let site = quiet();
    let browser = Browser::launch().await;
    let window = browser.window(&site.url("/")).await;
    window.eval::<String>("document.cookie = 'who=me'").await;

    let tab = window.tab(&site.url("/other")).await;
    let stranger = browser.window(&site.url("/")).await;
    assert_eq!(tab.eval::<String>("document.cookie").await, "who=me");
    assert_eq!(stranger.eval::<String>("document.cookie").await, "");

    for window in [window, tab, stranger] {
        window.close().await;
    }
    browser.close().await;
}

#[tokio::test]
async fn a_wait_survives_the_page_being_replaced() {
    let site = quiet();
    let browser = Browser::launch().await;
    let window = browser.window(&site.url("/")).await;
    window.eval::<Option<bool>>("{ setTimeout(() => location.href = '/other', 50); null }").await;
    window.wait_until("location.pathname === '/other'").await;
    window.reload().await;
    window.wait_for_text("#said", "nothing").await;
    window.close().await;
    browser.close().await;
}

#[tokio::test]
async fn a_console_error_is_heard() {
    let complaints =
        complaints_of("<script>console.log('fine'); console.error('bad', 7); done = true</script>", "").await;
    assert!(complaints.contains(&Complaint::Console("bad 7".to_owned())), "{complaints:?}");
}

#[tokio::test]
async fn an_uncaught_exception_is_heard() {
    let page =
        "<script>setTimeout(() => { window.done = true; throw new Error('nobody caught me') })</script>";
    let complaints = complaints_of(page, "").await;
    let heard = |complaint: &Complaint| matches!(complaint, Complaint::Uncaught(text) if text.contains("nobody caught me"));
    assert!(complaints.iter().any(heard), "{complaints:?}");
}

#[tokio::test]
async fn a_rejected_promise_is_heard() {
    let page =
        "<script>Promise.reject(new Error('not handled')); setTimeout(() => window.done = true)</script>";
    let complaints = complaints_of(page, "").await;
    let heard = |complaint: &Complaint| matches!(complaint, Complaint::Uncaught(text) if text.contains("not handled"));
    assert!(complaints.iter().any(heard), "{complaints:?}");
}

#[tokio::test]
async fn what_the_content_security_policy_refuses_is_heard() {
    let page = "<p style='color: red'>red</p><script nonce='n'>window.done = true</script>";
    let policy = "content-security-policy: default-src 'self'; script-src 'nonce-n'\r\n";
    let complaints = complaints_of(page, policy).await;
    let heard = |complaint: &Complaint| matches!(complaint, Complaint::Browser(text) if text.contains("Content Security Policy"));
    assert!(complaints.iter().any(heard), "{complaints:?}");
}

#[tokio::test]
async fn a_failed_request_is_heard_unless_excused() {
    let site = Site::serve([("/", QUIET)]);
    let browser = Browser::launch().await;
    let window = browser.window(&site.url("/")).await;
    let status: u16 = window.eval("fetch('/missing').then(answer => answer.status)").await;
    assert_eq!(status, 404);
    let complaints = window.complaints().await;
    assert!(
        matches!(&complaints[..], [Complaint::Browser(text)] if text.contains("/missing")),
        "{complaints:?}"
    );
    window.excuse("/missing");
    window.close().await;
    browser.close().await;
}

#[tokio::test]
#[should_panic(expected = "the page complained:\nconsole error: bad")]
async fn closing_a_page_that_complained_fails_the_test() {
    let site = Site::serve([("/", Answer { headers: "", body: "<script>console.error('bad')</script>" })]);
    let browser = Browser::launch().await;
    browser.window(&site.url("/")).await.close().await;
}

#[tokio::test]
#[should_panic(expected = "close the window")]
async fn a_window_nobody_closed_fails_the_test() {
    let site = quiet();
    let browser = Browser::launch().await;
    drop(browser.window(&site.url("/")).await);
}
