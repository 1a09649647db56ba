//! The few lines of JavaScript the tests run inside a page.

use serde::Serialize;

/// A call of a function with arguments, as an expression; what is passed cannot become code.
pub(crate) fn call(function: &str, arguments: impl Serialize) -> String {
    let arguments = serde_json::to_string(&arguments).expect("arguments are strings and numbers");
    format!("({function})(...{arguments})")
}

/// Resolves to null once `condition(...arguments)` holds, else to what `shown(...)` gives after `milliseconds`.
///
/// Asked again at every change of the document, every input and every frame: a page may also change what is
/// true without touching its document (a value typed, a focus moved).
pub(crate) fn wait(condition: &str, shown: &str, arguments: impl Serialize, milliseconds: u128) -> String {
    let arguments = serde_json::to_string(&arguments).expect("arguments are strings and numbers");
    format!(
        "new Promise(resolve => {{
            const holds = () => ({condition})(...{arguments});
            const shown = () => String(({shown})(...{arguments}));
            const end = answer => {{ observer.disconnect(); clearInterval(timer); resolve(answer); }};
            const deadline = performance.now() + {milliseconds};
            const look = () => {{
                if (holds()) end(null);
                else if (performance.now() >= deadline) end(shown());
            }};
            const observer = new MutationObserver(look);
            observer.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }});
            const timer = setInterval(look, 20);
            look();
        }})"
    )
}

/// The text an element shows; a field shows what is typed in it.
pub(crate) const TEXT: &str = "selector => {
    const element = document.querySelector(selector);
    return element ? element.value ?? element.innerText : null;
}";

/// The middle of an element in the viewport, or why it cannot be clicked.
pub(crate) const MIDDLE: &str = "selector => {
    const element = document.querySelector(selector);
    if (!element) return { trouble: 'there is no such element' };
    element.scrollIntoView({ block: 'center', inline: 'center', behavior: 'instant' });
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height) return { trouble: 'it is not visible' };
    const x = box.x + box.width / 2, y = box.y + box.height / 2;
    const top = document.elementFromPoint(x, y);
    if (!top || !(element.contains(top) || top.contains(element))) {
        return { trouble: 'it is covered by ' + (top ? top.outerHTML.slice(0, 120) : 'nothing') };
    }
    return { x, y };
}";

/// The focused element, as a selector a person recognises.
pub(crate) const FOCUSED: &str = "() => {
    const element = document.activeElement;
    if (!element || element === document.body) return null;
    if (element.id) return '#' + element.id;
    return element.localName + (element.name ? `[name=\"${element.name}\"]` : '');
}";

/// Makes the page believe it is hidden or shown; a headless Chromium hides nothing by itself.
pub(crate) const VISIBILITY: &str = "state => {
    Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => state });
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => state === 'hidden' });
    document.dispatchEvent(new Event('visibilitychange', { bubbles: true }));
}";
