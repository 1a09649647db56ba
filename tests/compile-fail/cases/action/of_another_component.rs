use via::prelude::*;

#[derive(State)]
struct Lamp {
    lit: StateApp<bool>,
}

#[derive(Serialize, Deserialize)]
enum Switch {
    On,
}

<<<<<<< HEAD
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

=======
impl Component for Lamp {
    type Action = Switch;

    async fn act(&self, _cx: &Cx, _action: Switch) -> via::Result<()> {
        Ok(())
    }
}

#[derive(State)]
struct Door {
    open: StateApp<bool>,
}

#[derive(Serialize, Deserialize)]
enum Push {
    Open,
}

impl Component for Door {
    type Action = Push;

    async fn act(&self, _cx: &Cx, _action: Push) -> via::Result<()> {
        Ok(())
    }
}

fn asks_a_lamp_to_open(cx: &View, lamp: &Lamp) {
    let _expression = cx.on(lamp, Push::Open);
}

>>>>>>> tools
fn main() {}
