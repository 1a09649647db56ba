//! Drives a real Chromium, so that a test sees what a person would see.
//!
//! A [`Browser`] is one Chromium with a profile of its own; a [`Window`] is one page in it, with its own session
//! unless it is opened beside another. Everything a page complains about (console errors, uncaught exceptions,
//! resources that were refused) is recorded from its first byte on and fails the test when the window is closed.
//!
//! Tests wait for facts inside the page, with a bound; nothing here sleeps. What goes wrong is a panic that says
//! what was waited for and what the page showed instead: these are tests, nobody handles their errors.
//!
//! ```no_run
//! # async fn example() {
//! let browser = browser_tests::Browser::launch().await;
//! let window = browser.window("http://127.0.0.1:3000/").await;
//! window.type_into("input", "hello").await;
//! window.press("Enter").await;
//! window.wait_for_text("main", "hello").await;
//! window.close().await;
//! browser.close().await;
//! # }
//! ```

#![allow(clippy::print_stderr, reason = "what a program under test says belongs to the test's output")]

mod browser;
mod complaints;
mod profile;
mod script;
mod served;
mod window;

pub use browser::Browser;
pub use complaints::Complaint;
pub use served::Served;
pub use window::{Scheme, Window};
