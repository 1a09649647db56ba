//! Drives everything, breaks it piece by piece, and counts.

use std::time::{Duration, Instant};

use crate::demo::Demo;
use crate::ledger::Ledger;
use crate::pod::Pod;
use crate::visitors::Visitors;

/// Within this a page is live again, whatever died.
const LIVE_WITHIN: Duration = Duration::from_secs(2);

/// How many appends are acknowledged before the next thing dies, and in all at least. At the writers' pace the streams have
/// lived for longer than the five seconds after which a browser calls one healthy.
const BETWEEN_FAULTS: usize = 2_500;
const IN_ALL: usize = 10_000;

/// How long the pods may take to show the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything the demo promises, in order; stops at the first promise that is not kept.
pub(crate) async fn run(demo: &mut Demo) -> Result<(), String> {
    let start = Instant::now();
    print!("{demo}");
    let mut visitors = Visitors::none_yet().await;
    if let Err(error) = promises(demo, &mut visitors).await {
        visitors.abandon().await;
        return Err(error);
    }
    visitors.leave().await;
    println!("\nchecked in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

async fn promises(demo: &mut Demo, visitors: &mut Visitors) -> Result<(), String> {
    step("each request goes to the next pod");
    let order = demo.proxy.answering(2 * demo.pods.len())?;
    let (first, second) = order.split_at(demo.pods.len());
    require(first == second && distinct(first) == demo.pods.len(), || {
        format!("the pods answered {order:?}")
    })?;
    println!("  {}", order.join(", "));

    step("a visitor for each pod, behind the proxy");
    visitors.arrive(demo).await?;
    let ledger = Ledger::open(&demo.nats).await?;

    step("what is said through one pod appears on all");
    let mut said = Vec::new();
    click(visitors, &mut said, "hello").await;
    wait_for_page(&demo.pods, |pages| pages.iter().all(|page| page.contains(&said[0])))?;

    for number in 0..demo.pods.len() {
        ledger.more(BETWEEN_FAULTS).await?;
        kill_pod(demo, number, visitors, &mut said).await?;
    }
    ledger.more(BETWEEN_FAULTS).await?;
    kill_stream_leader(demo, visitors, &mut said).await?;

    ledger.more(BETWEEN_FAULTS.max(IN_ALL.saturating_sub(ledger.acked()))).await?;
    step("every acknowledged append is in the log, once");
    let audit = ledger.close(&demo.nats).await?;
    println!(
        "  {} acknowledged ({} repeated after a failure), {} missing, {} elsewhere, {} twice",
        audit.acked, audit.repeats, audit.missing, audit.elsewhere, audit.twice
    );
    require(audit.acked >= IN_ALL, || format!("fewer than {IN_ALL} appends"))?;
    require(audit.missing + audit.elsewhere + audit.twice == 0, || {
        "appends were lost or doubled".to_owned()
    })?;

    step("all pods serve the same state");
    let page = wait_for_page(&demo.pods, |pages| pages.windows(2).all(|pair| pair[0] == pair[1]))?;
    for text in &said {
        require(page.contains(text), || format!("`{text}` is gone:\n{page}"))?;
    }
    println!("  {} lines, the same on {} pods", said.len(), demo.pods.len());
    Ok(())
}

async fn kill_pod(
    demo: &mut Demo,
    number: usize,
    visitors: &mut Visitors,
    said: &mut Vec<String>,
) -> Result<(), String> {
    let pod = &mut demo.pods[number];
    step(&format!("{} is killed -9, with {} of the visitors' streams", pod.name(), pod.tabs()));
    let killed = Instant::now();
    pod.kill();
    still_working(&demo.pods, killed, visitors, said).await?;
    let pod = &mut demo.pods[number];
    pod.start()?;
    pod.wait_until_ready()?;
    demo.proxy.wait_for_all(&demo.pods)
}

async fn kill_stream_leader(
    demo: &mut Demo,
    visitors: &mut Visitors,
    said: &mut Vec<String>,
) -> Result<(), String> {
    let leader = demo.nats.stream_leader(EVENTS)?;
    step(&format!("the stream's leader, server {}, is killed -9", leader.name()));
    let killed = Instant::now();
    leader.kill();
    still_working(&demo.pods, killed, visitors, said).await?;
    println!("  server {} leads", demo.nats.stream_leader(EVENTS)?.name());
    leader.restart()
}

/// What "keeps working" means: live again within two seconds, and the next click succeeds.
async fn still_working(
    pods: &[Pod],
    since: Instant,
    visitors: &mut Visitors,
    said: &mut Vec<String>,
) -> Result<(), String> {
    let live = visitors.live_again(pods, since).await?;
    println!("  every page is live again after {:.2} s", live.as_secs_f64());
    require(live <= LIVE_WITHIN, || format!("that is more than {LIVE_WITHIN:?}"))?;
    click(visitors, said, "still here").await;
    Ok(())
}

async fn click(visitors: &mut Visitors, said: &mut Vec<String>, text: &str) {
    let (line, took) = visitors.click(text).await;
    println!("  the next click is on every screen after {:.2} s", took.as_secs_f64());
    said.push(line);
}

/// Waits until what all pods serve is as it should be; returns what the first serves.
fn wait_for_page(pods: &[Pod], is_right: impl Fn(&[String]) -> bool) -> Result<String, String> {
    let start = Instant::now();
    loop {
        let pages =
            pods.iter().map(|pod| pod.page().map(|page| lines(&page))).collect::<Result<Vec<_>, _>>()?;
        if is_right(&pages) {
            return Ok(pages.into_iter().next().expect("there are pods"));
        }
        require(start.elapsed() < PATIENCE, || {
            format!("after {PATIENCE:?} the pods serve:\n{}", pages.join("\n\n"))
        })?;
    }
}

/// What has been said, without what is each tab's own.
fn lines(page: &str) -> String {
    let (_, rest) = page.split_once("<ol id=\"lines\"").unwrap_or_default();
    rest.split("</ol>").next().unwrap_or_default().to_owned()
}

fn distinct(names: &[String]) -> usize {
    names.iter().collect::<std::collections::BTreeSet<_>>().len()
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn step(what: &str) {
    println!("\n{what}");
}

/// The stream of the default prefix.
const EVENTS: &str = "via-events";
