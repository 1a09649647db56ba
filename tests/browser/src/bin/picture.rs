//! Takes the README's picture: the chat in two browser windows, one light, one dark.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use browser_tests::{Browser, Scheme, Served, Window};

/// One window's content, and the picture, in CSS pixels; each is taken with two device pixels per CSS pixel.
const WINDOW: (u32, u32) = (560, 520);
const PICTURE: (u32, u32) = (1200, 600);

const NAME: &str = "[data-bind=name]";
const DRAFT: &str = "[data-bind=draft]";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut chat = Command::new("cargo");
    chat.args(["run", "--quiet", "--bin", "chat"]).current_dir(&root).env("VIA_ADDR", "127.0.0.1:0");
    let chat = Served::start(chat);
    let browser = Browser::launch().await;

    let ada = enter(&browser, &chat, Scheme::Light, "Ada").await;
    let grace = enter(&browser, &chat, Scheme::Dark, "Grace").await;
    for (who, line) in [
        (&ada, "Is anybody there?"),
        (&grace, "Here! And I did not reload anything."),
        (&ada, "Neither did I. The page just changes."),
        (&grace, "No script written, either."),
    ] {
        who.type_into(DRAFT, line).await;
        who.press("Enter").await;
        ada.wait_for_text("main", line).await;
        grace.wait_for_text("main", line).await;
    }
    ada.type_into(DRAFT, "And what I type stays while").await;

    let picture = side_by_side(&browser, [ada.screenshot().await, grace.screenshot().await]).await;
    let file = root.join("docs/chat.png");
    std::fs::write(&file, picture).unwrap_or_else(|error| panic!("{}: {error}", file.display()));

    ada.close().await;
    grace.close().await;
    browser.close().await;
    assert!(chat.stop().success(), "the chat stops cleanly when asked to");
}

async fn enter(browser: &Browser, chat: &Served, scheme: Scheme, name: &str) -> Window {
    let window = browser.window(chat.url()).await;
    window.resize(WINDOW.0, WINDOW.1, 2.0).await;
    window.prefer(scheme).await;
    window.type_into(NAME, name).await;
    window
}

async fn side_by_side(browser: &Browser, shots: [Vec<u8>; 2]) -> Vec<u8> {
    let image = |shot: &Vec<u8>| {
        format!("<figure><img src='data:image/png;base64,{}'></figure>", BASE64.encode(shot))
    };
    let style = "body { margin: 0; height: 100vh; display: flex; align-items: center; justify-content: space-evenly;
                        background: linear-gradient(135deg, #c7d2fe, #fbcfe8) }
                 figure { margin: 0; padding-top: 22px; border-radius: 10px; overflow: hidden; background: #d4d4d8;
                          box-shadow: 0 12px 32px #0004 }
                 img { display: block; width: 560px }";
    let html = format!("<style>{style}</style>{}{}", image(&shots[0]), image(&shots[1]));

    let page = browser.window("about:blank").await;
    page.resize(PICTURE.0, PICTURE.1, 2.0).await;
    page.set_html(&html).await;
    page.wait_until("[...document.images].every(image => image.complete && image.naturalWidth > 0)").await;
    let picture = page.screenshot().await;
    page.close().await;
    picture
}
