//! What people see: live pages, in a real browser, with nothing to complain about.

use browser_tests::{Browser, Window};
use via_inmem::InMemory;

use crate::pod::{self, Front};

/// Opens the room in a session of its own and waits until its stream is live.
pub(crate) async fn enter(browser: &Browser, front: &Front) -> Window {
    let window = browser.window(&front.url()).await;
    wait_until_live(&window).await;
    window
}

pub(crate) async fn wait_until_live(window: &Window) {
    window.wait_until("document.documentElement.getAttribute('data-via-stream') === 'live'").await;
}

#[tokio::test]
async fn a_click_updates_two_windows() {
    let room = pod::start(&InMemory::new()).await;
    let front = Front::open(room.router()).await;
    let browser = Browser::launch().await;
    let (ada, bob) = (enter(&browser, &front).await, enter(&browser, &front).await);

    ada.click("#click").await;
    ada.wait_for_text("#clicks", "1").await;
    bob.wait_for_text("#clicks", "1").await;
    bob.click("#click").await;
    ada.wait_for_text("#clicks", "2").await;
    bob.wait_for_text("#clicks", "2").await;

    ada.close().await;
    bob.close().await;
    browser.close().await;
    pod::stop(room).await;
    front.close().await;
}

#[tokio::test]
async fn typing_survives_a_morph_around_it() {
    let room = pod::start(&InMemory::new()).await;
    let front = Front::open(room.router()).await;
    let browser = Browser::launch().await;
    let (ada, bob) = (enter(&browser, &front).await, enter(&browser, &front).await);

    ada.type_into("#draft", "half a sentence").await;
    for _ in 0.."sentence".len() {
        ada.press("ArrowLeft").await;
    }
    bob.type_into("#draft", "a line above the field").await;
    bob.click("#say").await;
    ada.wait_for_text("#lines", "a line above the field").await;
    // The line moves the button, also under the mouse.
    bob.wait_for_text("#lines", "a line above the field").await;
    bob.click("#click").await;
    ada.wait_for_text("#clicks", "1").await;

    assert_eq!(ada.text("#draft").await, "half a sentence");
    assert_eq!(ada.focused().await.as_deref(), Some("#draft"));
    assert_eq!(ada.caret().await, 7);
    ada.type_keys("long ").await;
    assert_eq!(ada.text("#draft").await, "half a long sentence");
    ada.click("#say").await;
    bob.wait_for_text("#lines", "half a long sentence").await;
    ada.wait_until("document.querySelector('#draft').value === ''").await;

    ada.close().await;
    bob.close().await;
    browser.close().await;
    pod::stop(room).await;
    front.close().await;
}

#[tokio::test]
async fn two_apps_over_one_backplane_show_each_others_changes() {
    let backplane = InMemory::new();
    let (left, right) = (pod::start(&backplane).await, pod::start(&backplane).await);
    let (left_front, right_front) = (Front::open(left.router()).await, Front::open(right.router()).await);
    let browser = Browser::launch().await;
    let (ada, bob) = (enter(&browser, &left_front).await, enter(&browser, &right_front).await);

    ada.click("#click").await;
    bob.wait_for_text("#clicks", "1").await;
    bob.type_into("#draft", "from the right").await;
    bob.click("#say").await;
    ada.wait_for_text("#lines", "from the right").await;

    ada.close().await;
    bob.close().await;
    browser.close().await;
    for (pod, front) in [(left, left_front), (right, right_front)] {
        pod::stop(pod).await;
        front.close().await;
    }
}

#[tokio::test]
async fn an_action_may_be_answered_by_another_pod_than_the_page() {
    let backplane = InMemory::new();
    let (shows, acts) = (pod::start(&backplane).await, pod::start(&backplane).await);
    let front = Front::open(pod::split(&shows, &acts)).await;
    let browser = Browser::launch().await;
    let window = enter(&browser, &front).await;

    window.click("#click").await;
    window.wait_for_text("#clicks", "1").await;
    window.type_into("#draft", "answered elsewhere").await;
    window.click("#say").await;
    window.wait_for_text("#lines", "answered elsewhere").await;
    window.wait_until("document.querySelector('#draft').value === ''").await;

    window.close().await;
    browser.close().await;
    pod::stop(shows).await;
    pod::stop(acts).await;
    front.close().await;
}

#[tokio::test]
async fn a_page_is_live_again_by_itself_after_a_restart() {
    let backplane = InMemory::new();
    let (first, other) = (pod::start(&backplane).await, pod::start(&backplane).await);
    let (front, other_front) = (Front::open(first.router()).await, Front::open(other.router()).await);
    let browser = Browser::launch().await;
    let (ada, bob) = (enter(&browser, &front).await, enter(&browser, &other_front).await);
    ada.click("#click").await;
    ada.wait_for_text("#clicks", "1").await;
    // Gone if the page were loaded again: it has to come back by itself.
    ada.eval::<bool>("window.neverReloaded = true").await;
    ada.type_into("#draft", "typed before").await;

    // Nobody listens for a while, and the browser says so; that is all it may say.
    ada.excuse("net::ERR_CONNECTION_REFUSED");
    pod::stop(first).await;
    let address = front.close().await;
    bob.click("#click").await;
    bob.wait_for_text("#clicks", "2").await;
    let second = pod::start(&backplane).await;
    let front = Front::open_at(second.router(), address).await;

    ada.wait_for_text("#clicks", "2").await;
    wait_until_live(&ada).await;
    // A button from before the restart, and a field typed into before it.
    ada.click("#click").await;
    ada.wait_for_text("#clicks", "3").await;
    bob.wait_for_text("#clicks", "3").await;
    ada.click("#say").await;
    bob.wait_for_text("#lines", "typed before").await;
    assert!(ada.eval::<bool>("window.neverReloaded === true").await);

    ada.close().await;
    bob.close().await;
    browser.close().await;
    for (pod, front) in [(second, front), (other, other_front)] {
        pod::stop(pod).await;
        front.close().await;
    }
}
