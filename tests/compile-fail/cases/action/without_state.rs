use via::prelude::*;

struct Lamp;

#[derive(Serialize, Deserialize)]
struct Switch;

impl Component for Lamp {
    type Action = Switch;

    async fn act(&self, _: &Cx, _: Switch) -> via::Result<()> {
        Ok(())
    }
}

fn main() {}
