//! The proxy's configuration.

use std::path::Path;
use std::process::Command;

use crate::compose::{Compose, port_of};
use crate::{check, deploy, text};

fn haproxy() -> Command {
    let program = std::env::var_os("VIA_HAPROXY").unwrap_or_else(|| {
        // Debian keeps it where only administrators look for programs.
        let administrators = "/usr/sbin/haproxy";
        if Path::new(administrators).is_file() { administrators.into() } else { "haproxy".into() }
    });
    let mut command = Command::new(program);
    command.arg("-c").arg("-f").arg(deploy("haproxy.cfg"));
    command
}

#[test]
fn haproxy_accepts_its_configuration_as_in_compose() {
    check(&mut haproxy());
}

#[test]
fn haproxy_accepts_its_configuration_on_loopback() {
    let mut haproxy = haproxy();
    haproxy.env("VIA_LISTEN", "127.0.0.1:8080");
    for number in 1..=3 {
        haproxy.env(format!("VIA_POD_{number}"), format!("127.0.0.1:300{number}"));
    }
    check(&mut haproxy);
}

#[test]
fn the_proxy_finds_the_pods_of_the_compose_file() {
    let (text, compose) = (text("haproxy.cfg"), Compose::load());
    let presets: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("presetenv ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("VIA_POD_"))
        .collect();
    assert_eq!(presets.len(), compose.pods().len());
    for (name, addr) in presets {
        let (service, port) = port_of(addr);
        assert!(compose.listens(service, port), "{name} is {addr}, where no pod listens");
    }
}
