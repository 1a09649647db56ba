//! One page, and what a person does with it.

use std::thread;
use std::time::Duration;

use chromiumoxide::Page;
use chromiumoxide::cdp::browser_protocol::emulation::{MediaFeature, SetDeviceMetricsOverrideParams};
use chromiumoxide::cdp::browser_protocol::input::InsertTextParams;
use chromiumoxide::cdp::browser_protocol::page::CaptureScreenshotFormat;
use chromiumoxide::cdp::js_protocol::runtime::EvaluateParams;
use chromiumoxide::error::CdpError;
use chromiumoxide::layout::Point;
use chromiumoxide::page::ScreenshotParams;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::browser::Session;
use crate::complaints::{Complaint, Ear};
use crate::script;

/// How long a page may take to show what is waited for: far more than it needs, so that only a fault takes it all.
const PATIENCE: Duration = Duration::from_secs(15);

/// A page in a browser.
///
/// [`close`](Window::close) it at the end of the test: that is when its complaints count. Dropping it unclosed
/// panics, because a test that does not look at them proves less than it seems to.
#[must_use = "a window's complaints count when it is closed"]
pub struct Window {
    page: Page,
    session: Session,
    ear: tokio::sync::Mutex<Ear>,
    excused: Mutex<Vec<String>>,
    closed: bool,
}

/// The colours a reader prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Window {
    pub(crate) async fn open(session: Session, url: &str) -> Self {
        let page = session.page().await;
        let ear = tokio::sync::Mutex::new(Ear::listen(&page).await);
        let window = Self { page, session, ear, excused: Mutex::default(), closed: false };
        window.go(url).await;
        window
    }

    /// Opens another page of the same session, as a second tab would.
    ///
    /// # Panics
    /// If the page does not load.
    pub async fn tab(&self, url: &str) -> Self {
        Self::open(self.session.clone(), url).await
    }

    /// Loads another page in this window.
    ///
    /// # Panics
    /// If the page does not load.
    pub async fn go(&self, url: &str) {
        self.page.goto(url).await.unwrap_or_else(|error| panic!("{url} did not load: {error}"));
    }

    /// Loads the page again, as a person would.
    ///
    /// # Panics
    /// If the page does not load.
    pub async fn reload(&self) {
        self.page.reload().await.unwrap_or_else(|error| panic!("the page did not load again: {error}"));
    }

    /// What an element shows, or what is typed in it.
    ///
    /// # Panics
    /// If there is no such element.
    pub async fn text(&self, selector: &str) -> String {
        let text: Option<String> = self.call(script::TEXT, [selector]).await;
        text.unwrap_or_else(|| panic!("there is no `{selector}`"))
    }

    /// Waits until an element exists and shows this text somewhere.
    ///
    /// # Panics
    /// If it does not within 15 seconds.
    pub async fn wait_for_text(&self, selector: &str, needle: &str) {
        let condition =
            format!("(selector, needle) => (({})(selector) ?? '').includes(needle)", script::TEXT);
        self.wait(&format!("`{selector}` shows `{needle}`"), &condition, script::TEXT, [selector, needle])
            .await;
    }

    /// Waits until an element exists.
    ///
    /// # Panics
    /// If it does not within 15 seconds.
    pub async fn wait_for(&self, selector: &str) {
        let condition = "selector => document.querySelector(selector) !== null";
        let shown = "() => document.body?.innerText";
        self.wait(&format!("there is a `{selector}`"), condition, shown, [selector]).await;
    }

    /// Waits until a JavaScript expression is true.
    ///
    /// # Panics
    /// If it is not within 15 seconds.
    pub async fn wait_until(&self, expression: &str) {
        let condition = format!("() => Boolean({expression})");
        self.wait(&format!("`{expression}`"), &condition, "() => document.body?.innerText", [(); 0]).await;
    }

    /// Clicks the middle of an element with the mouse, once the element is there.
    ///
    /// # Panics
    /// If it does not come, or is not visible, or something covers it.
    pub async fn click(&self, selector: &str) {
        self.wait_for(selector).await;
        let middle: Value = self.call(script::MIDDLE, [selector]).await;
        let (Some(x), Some(y)) = (middle["x"].as_f64(), middle["y"].as_f64()) else {
            panic!("`{selector}` cannot be clicked: {}", middle["trouble"]);
        };
        self.page
            .click(Point::new(x, y))
            .await
            .unwrap_or_else(|error| panic!("no click on `{selector}`: {error}"));
    }

    /// Clicks into a field and types, key by key.
    ///
    /// # Panics
    /// If the field cannot be clicked.
    pub async fn type_into(&self, selector: &str, text: &str) {
        self.click(selector).await;
        self.type_keys(text).await;
    }

    /// Types where the focus is, key by key; characters no key gives arrive as from an input method.
    ///
    /// # Panics
    /// If the browser is gone.
    pub async fn type_keys(&self, text: &str) {
        for character in text.chars() {
            if character.is_ascii() {
                self.press(&character.to_string()).await;
            } else {
                let inserted = self.page.execute(InsertTextParams::new(character)).await;
                inserted.unwrap_or_else(|error| panic!("`{character}` could not be typed: {error}"));
            }
        }
    }

    /// Presses and lets go of one key, by its name: `a`, `Enter`, `ArrowLeft`.
    ///
    /// # Panics
    /// If there is no such key.
    pub async fn press(&self, key: &str) {
        // Keys go to whatever is focused; the element is only the driver's way to send them.
        let pressed = async { self.page.find_element(":root").await?.press_key(key).await.map(|_| ()) };
        pressed.await.unwrap_or_else(|error| panic!("`{key}` could not be pressed: {error}"));
    }

    /// The value of a JavaScript expression; a promise is awaited.
    ///
    /// # Panics
    /// If the expression throws, or its value is of another type.
    pub async fn eval<T: DeserializeOwned>(&self, expression: &str) -> T {
        let value =
            self.evaluate(expression).await.unwrap_or_else(|error| panic!("`{expression}` failed: {error}"));
        serde_json::from_value(value.clone()).unwrap_or_else(|error| {
            panic!("`{expression}` is {value}, of another type than asked for: {error}")
        })
    }

    /// The focused element: `#id`, or its name; `None` if nothing is.
    ///
    /// # Panics
    /// If the browser is gone.
    pub async fn focused(&self) -> Option<String> {
        self.call(script::FOCUSED, [(); 0]).await
    }

    /// Where the caret stands in the focused field, in UTF-16 units from its start.
    ///
    /// # Panics
    /// If no text field has the focus.
    pub async fn caret(&self) -> u64 {
        self.eval("document.activeElement.selectionStart").await
    }

    /// Makes the page believe its tab went to the background.
    ///
    /// # Panics
    /// If the browser is gone.
    pub async fn hide(&self) {
        self.call::<Value>(script::VISIBILITY, ["hidden"]).await;
    }

    /// Makes the page believe its tab came back.
    ///
    /// # Panics
    /// If the browser is gone.
    pub async fn show(&self) {
        self.call::<Value>(script::VISIBILITY, ["visible"]).await;
    }

    /// Gives the window this size in CSS pixels, and so many device pixels for each.
    ///
    /// # Panics
    /// If the browser is gone.
    pub async fn resize(&self, width: u32, height: u32, scale: f64) {
        let size = SetDeviceMetricsOverrideParams::new(width, height, scale, false);
        self.page
            .execute(size)
            .await
            .unwrap_or_else(|error| panic!("no window of {width} by {height}: {error}"));
    }

    /// Makes the page see that its reader prefers this scheme of colours.
    ///
    /// # Panics
    /// If the browser is gone.
    pub async fn prefer(&self, scheme: Scheme) {
        let value = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let preferred =
            self.page.emulate_media_features(vec![MediaFeature::new("prefers-color-scheme", value)]).await;
        preferred.unwrap_or_else(|error| panic!("no {value} scheme: {error}"));
    }

    /// Replaces what the page shows by this HTML; its scripts do not run.
    ///
    /// # Panics
    /// If the browser is gone.
    pub async fn set_html(&self, html: &str) {
        self.call::<Value>("html => { document.documentElement.innerHTML = html; return null }", [html])
            .await;
    }

    /// The window's content as a PNG.
    ///
    /// # Panics
    /// If the browser is gone.
    pub async fn screenshot(&self) -> Vec<u8> {
        let png = ScreenshotParams::builder().format(CaptureScreenshotFormat::Png).build();
        self.page.screenshot(png).await.unwrap_or_else(|error| panic!("no screenshot: {error}"))
    }

    /// Lets complaints that contain this text pass: for what the test provokes itself, such as a server that is
    /// away for a while.
    pub fn excuse(&self, text: &str) {
        self.excused.lock().push(text.to_owned());
    }

    /// What the page has complained about so far and nobody excused.
    ///
    /// # Panics
    /// If the browser is gone.
    pub async fn complaints(&self) -> Vec<Complaint> {
        let mut ear = self.ear.lock().await;
        let fence = format!("everything until {:?}", Instant::now());
        let _: Value = self.call("fence => console.debug(fence)", [&fence]).await;
        let heard = ear.until(&fence).await;
        let excused = self.excused.lock();
        let counts = |complaint: &&Complaint| !excused.iter().any(|text| complaint.text().contains(text));
        heard.iter().filter(counts).cloned().collect()
    }

    /// Closes the page.
    ///
    /// # Panics
    /// If it complained about anything that was not excused.
    pub async fn close(self) {
        let complaints = self.close_with_complaints().await;
        let list: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        assert!(list.is_empty(), "the page complained:\n{}", list.join("\n"));
    }

    /// Closes the page and hands out its complaints, for tests that expect some.
    ///
    /// # Panics
    /// If the browser is gone.
    pub async fn close_with_complaints(mut self) -> Vec<Complaint> {
        let complaints = self.complaints().await;
        self.closed = true;
        self.page.clone().close().await.unwrap_or_else(|error| panic!("the page did not close: {error}"));
        complaints
    }

    async fn call<T: DeserializeOwned>(&self, function: &str, arguments: impl Serialize) -> T {
        self.eval(&script::call(function, arguments)).await
    }

    /// Waits inside the page; a page that is being replaced is asked again once the new one is there.
    async fn wait(&self, what: &str, condition: &str, shown: &str, arguments: impl Serialize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let script = script::wait(condition, shown, &arguments, left.as_millis());
            match self.evaluate(&script).await {
                Ok(Value::Null) => return,
                Ok(shown) => panic!("waited {PATIENCE:?} until {what}; shown is {shown}"),
                Err(error) if left.is_zero() || !is_replaced(&error) => {
                    panic!("waited until {what}; the page failed: {error}")
                }
                Err(_) => {}
            }
        }
    }

    async fn evaluate(&self, expression: &str) -> Result<Value, CdpError> {
        let expression =
            EvaluateParams::builder().expression(expression).await_promise(true).return_by_value(true);
        let expression = expression.build().expect("the one required parameter, the expression, is given");
        let answer = self.page.execute(expression).await?.result;
        match answer.exception_details {
            Some(exception) => Err(CdpError::JavascriptException(Box::new(exception))),
            None => Ok(answer.result.value.unwrap_or(Value::Null)),
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        assert!(
            self.closed || thread::panicking(),
            "close the window: its complaints have not been looked at"
        );
    }
}

/// Whether the page a script ran in was replaced by another before it answered.
fn is_replaced(error: &CdpError) -> bool {
    matches!(error, CdpError::Chrome(error) if error.message.contains("context") || error.message.contains("navigated"))
}
