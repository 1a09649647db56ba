//! Chromium tests.
