//! What the seeds found once, as scenarios that say it plainly.

use std::time::Duration;

use tokio::time::sleep;
use via_backplane::{
    AppendOptions, Rules, Waited,
    fault::{Kind, Plan},
};

use super::{
    facts::{Book as _, Noted, Tag, Tally},
    stage,
};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_position_is_not_reached_before_reads_show_it() {
    stage::play(Rules::ALL, |stage| async move {
        let pod = stage.enter(1).await;
        let append =
            |op| pod.notes.append_with(Noted { tag: Tag { op, index: 0 } }, AppendOptions::default());
        let first = append(0).await.expect("nothing goes wrong");
        for op in 1..300 {
            append(op).await.expect("nothing goes wrong");
        }
        let late = stage.enter_with(2, Plan::seeded(2).odds(Kind::Delay, 1.0));
        assert_eq!(late.notes.wait_for(&first, PATIENCE).await, Waited::Reached);
        let shown = late.notes.read().map(|view| view.lines().len());
        assert_eq!(shown, Some(300), "what is reached is read");
        pod.leave().await;
        late.leave().await;
    });
}

#[test]
fn a_log_recreated_while_its_tail_opens_is_noticed() {
    for after in (0..300).step_by(10) {
        let shown = stage::play(Rules::ALL, |stage| async move {
            let pod = stage.enter_with(after, Plan::seeded(after).odds(Kind::Delay, 1.0));
            for op in 0..5 {
                assert!(pod.append(op).await, "a delay is no failure");
            }
            pod.shows(&[0, 1, 2, 3, 4]).await?;
            stage.link.interrupt();
            stage.link.restore();
            sleep(Duration::from_millis(after)).await;
            stage.memory.recreate_log(&stage.family());
            pod.shows(&[]).await?;
            pod.leave().await;
            Ok::<_, String>(())
        });
        assert_eq!(shown, Ok(()), "the log was recreated {after} ms after the tail broke off");
    }
}

#[test]
fn a_cell_that_a_recreated_store_does_not_have_is_forgotten() {
    stage::play(Rules::ALL, |stage| async move {
        let pod = stage.enter(1).await;
        let mut changes = pod.tally.changes();
        assert!(pod.count(1).await, "nothing goes wrong");
        stage.memory.recreate_store();
        while pod.holds(&[]).is_err() {
            assert!(changes.changed().await, "the pod is still there");
        }
        pod.leave().await;
    });
}

#[test]
fn a_cell_declared_late_is_right_although_its_load_is_stale() {
    stage::play(Rules::ALL, |stage| async move {
        let writer = stage.enter(1).await;
        let written = writer.engine.cell::<Tally>("late").expect("a valid declaration");
        let pod = stage.enter_with(2, Plan::seeded(2).odds(Kind::StaleLoad, 1.0));
        pod.tally.loaded().await;
        // The watch is past its replay, and passes over changes of cells that nobody has declared.
        sleep(PATIENCE).await;
        for total in 1..3 {
            written.set(Tally { total, ops: Vec::new() }).await.expect("nothing goes wrong");
            // What a pod has seen is what a stale answer is made of.
            pod.engine.backplane().store().load(written.key()).await.expect("nothing goes wrong");
        }
        sleep(PATIENCE).await;
        let late = pod.engine.cell::<Tally>("late").expect("a valid declaration");
        let mut changes = late.changes();
        let right = async {
            while late.read().is_none_or(|tally| tally.total != 2) {
                changes.changed().await;
            }
        };
        tokio::time::timeout(PATIENCE, right).await.expect("the present value is shown in the end");
        pod.leave().await;
        writer.leave().await;
    });
}
