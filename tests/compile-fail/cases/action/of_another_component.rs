use via::prelude::*;

#[derive(State)]
struct Lamp {
    lit: StateApp<bool>,
}

#[derive(Serialize, Deserialize)]
enum Switch {
    On,
}

#[derive(Serialize, Deserialize)]
enum Other {
    On,
}

impl Component for Lamp {
    type Action = Switch;

    async fn act(&self, cx: &Cx, _: Switch) -> via::Result<()> {
        self.lit.set(cx, true).await
    }
}

impl Page for Lamp {
    fn view(&self, cx: &View) -> Html {
        html! { button data-on:click=(cx.on(self, Other::On)) {} }
    }
}

fn main() {}
