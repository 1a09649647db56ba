use via::prelude::*;

struct Room;

#[derive(Serialize, Deserialize)]
enum Act {
    Greet,
}

impl Component for Room {
    type Action = Act;

    async fn act(&self, _cx: &Cx, _action: Act) -> via::Result<()> {
        Ok(())
    }
}

fn main() {}
