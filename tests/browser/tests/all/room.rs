//! The page the scenarios drive: a shared count, lines said, and a field to type in.

use maud::html;
use via::prelude::*;

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "room.clicked")]
pub(crate) struct Clicked;

impl Fold<u64> for Clicked {
    fn fold(self, clicks: &mut u64, _at: &Recorded) {
        *clicks += 1;
    }
}

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "room.said")]
pub(crate) struct Said {
    line: String,
}

impl Fold<Vec<String>> for Said {
    fn fold(self, lines: &mut Vec<String>, _at: &Recorded) {
        lines.push(self.line);
    }
}

#[derive(State)]
pub(crate) struct Room {
    clicks: StateAppEvents<Clicked, u64>,
    lines: StateAppEvents<Said, Vec<String>>,
    draft: Signal<String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Act {
    Click,
    Say,
}

impl Component for Room {
    type Action = Act;

    async fn act(&self, cx: &Cx, action: Act) -> via::Result<()> {
        match action {
            Act::Click => self.clicks.append(cx, Clicked).await?,
            Act::Say => self.lines.append(cx, Said { line: self.draft.take(cx)? }).await?,
        };
        Ok(())
    }
}

impl Page for Room {
    fn view(&self, cx: &View) -> Html {
        html! {
            main {
                // Above the field on purpose: what is added here moves it.
                ul #lines { @for line in self.lines.read(cx).iter() { li { (line) } } }
                p #clicks { (self.clicks.text(cx)) }
                input #draft data-bind=(self.draft.key());
                button #say data-on:click=(cx.on(self, Act::Say)) { "Say" }
                button #click data-on:click=(cx.on(self, Act::Click)) { "Click" }
            }
        }
    }
}
