//! The compose file, and what it mounts.

use std::collections::BTreeSet;

use yaml_rust2::{Yaml, YamlLoader};

use crate::{deploy, text, variables};

/// The compose file, with its merges done.
pub(crate) struct Compose(Yaml);

impl Compose {
    pub(crate) fn load() -> Self {
        Self(merged(&load("compose.yaml")))
    }

    pub(crate) fn services(&self) -> Vec<(&str, &Yaml)> {
        let services = self.0["services"].as_hash().expect("there are services");
        services.iter().map(|(name, service)| (name.as_str().expect("names are text"), service)).collect()
    }

    /// The names of those built from this repository.
    pub(crate) fn pods(&self) -> Vec<&str> {
        self.services()
            .iter()
            .filter(|(_, service)| !service["build"].is_badvalue())
            .map(|(name, _)| *name)
            .collect()
    }

    /// Whether this is a pod, and listens on this port.
    pub(crate) fn listens(&self, pod: &str, port: u16) -> bool {
        let addr = self.0["services"][pod]["environment"]["VIA_ADDR"].as_str();
        self.pods().contains(&pod) && addr.is_some_and(|addr| port_of(addr).1 == port)
    }
}

/// `pod-1:3000` → `pod-1`, 3000
pub(crate) fn port_of(addr: &str) -> (&str, u16) {
    let (host, port) = addr.rsplit_once(':').unwrap_or_else(|| panic!("`{addr}` has no port"));
    (host, port.parse().unwrap_or_else(|error| panic!("`{addr}`: {error}")))
}

fn load(file: &str) -> Yaml {
    let documents = YamlLoader::load_from_str(&text(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let [document] = &documents[..] else { panic!("{file} is one document") };
    document.clone()
}

/// Puts what `<<` names where it stands; what a mapping says itself counts more.
fn merged(yaml: &Yaml) -> Yaml {
    match yaml {
        Yaml::Hash(given) => {
            let mut own: Vec<(Yaml, Yaml)> =
                given.iter().map(|(key, value)| (key.clone(), merged(value))).collect();
            if let Some(place) = own.iter().position(|(key, _)| key.as_str() == Some("<<")) {
                let (_, below) = own.remove(place);
                let below = below.into_hash().expect("a mapping is merged");
                let missing: Vec<_> =
                    below.into_iter().filter(|(key, _)| own.iter().all(|(name, _)| name != key)).collect();
                own.extend(missing);
            }
            Yaml::Hash(own.into_iter().collect())
        }
        Yaml::Array(given) => Yaml::Array(given.iter().map(merged).collect()),
        other => other.clone(),
    }
}

fn list(yaml: &Yaml) -> impl Iterator<Item = &str> {
    yaml.as_vec().into_iter().flatten().map(|item| item.as_str().expect("a list of text"))
}

#[test]
fn three_servers_three_pods_a_proxy_and_prometheus() {
    let compose = Compose::load();
    let names: Vec<&str> = compose.services().iter().map(|(name, _)| *name).collect();
    let expected = ["nats-1", "nats-2", "nats-3", "pod-1", "pod-2", "pod-3", "proxy", "prometheus"];
    assert_eq!(names, expected);
    assert_eq!(compose.pods(), ["pod-1", "pod-2", "pod-3"]);
}

#[test]
fn every_image_has_a_version() {
    for (name, service) in Compose::load().services() {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
        let is_ours = !service["build"].is_badvalue();
        assert!(
            is_ours || image.split_once(':').is_some_and(|(_, tag)| tag != "latest"),
            "{name} runs `{image}`"
        );
    }
}

#[test]
fn the_servers_are_of_the_version_the_tests_run() {
    for (name, service) in Compose::load().services().iter().filter(|(name, _)| name.starts_with("nats-")) {
        let image = service["image"].as_str().unwrap_or_default();
        assert!(image.starts_with(&format!("nats:{}-", nats_servers::VERSION)), "{name} runs `{image}`");
    }
}

#[test]
fn every_mounted_file_and_volume_exists() {
    let compose = Compose::load();
    let mut mounted = BTreeSet::new();
    for (name, service) in compose.services() {
        for volume in list(&service["volumes"]) {
            let source = volume.split(':').next().expect("a part");
            match source.strip_prefix("./") {
                Some(file) => assert!(deploy(file).is_file(), "{name} mounts `{source}`, which is not there"),
                None => {
                    let declared = compose.0["volumes"].as_hash().expect("there are volumes");
                    assert!(
                        declared.contains_key(&Yaml::String(source.to_owned())),
                        "{name} mounts `{source}`"
                    );
                    assert!(mounted.insert(source.to_owned()), "`{source}` is two services' directory");
                }
            }
        }
        if let Some(dockerfile) = service["build"]["dockerfile"].as_str() {
            let context = deploy(service["build"]["context"].as_str().expect("a build has a context"));
            assert!(
                context.join(dockerfile).is_file(),
                "{name} is built by `{dockerfile}`, which is not there"
            );
        }
    }
}

#[test]
fn what_a_service_waits_for_exists() {
    let compose = Compose::load();
    let names: Vec<&str> = compose.services().iter().map(|(name, _)| *name).collect();
    for (name, service) in compose.services() {
        let listed = list(&service["depends_on"]);
        let keyed = service["depends_on"].as_hash().into_iter().flatten().filter_map(|(key, _)| key.as_str());
        for other in listed.chain(keyed) {
            assert!(names.contains(&other), "{name} waits for `{other}`");
        }
    }
}

#[test]
fn every_server_gets_the_variables_its_configuration_names() {
    let conf = text("nats/nats.conf");
    let needed: BTreeSet<&str> = variables(&conf).collect();
    assert_eq!(needed, BTreeSet::from(["VIA_NATS_NAME", "VIA_NATS_PASSWORD", "VIA_NATS_SYS_PASSWORD"]));
    for (name, service) in Compose::load().services().iter().filter(|(name, _)| name.starts_with("nats-")) {
        for variable in &needed {
            assert!(service["environment"][*variable].as_str().is_some(), "{name} has no {variable}");
        }
        assert_eq!(service["environment"]["VIA_NATS_NAME"].as_str(), Some(*name));
    }
}

#[test]
fn every_pod_is_given_every_server() {
    let compose = Compose::load();
    for pod in compose.pods() {
        let backplane =
            compose.0["services"][pod]["environment"]["VIA_BACKPLANE"].as_str().expect("a backplane");
        let hosts: Vec<&str> =
            backplane.split(',').filter_map(|url| url.rsplit_once('@')).map(|(_, at)| at).collect();
        assert_eq!(hosts, ["nats-1:4222", "nats-2:4222", "nats-3:4222"], "{pod}: {backplane}");
    }
}

#[test]
fn prometheus_scrapes_every_pod() {
    let (compose, prometheus) = (Compose::load(), load("prometheus.yml"));
    let targets: Vec<&str> = list(&prometheus["scrape_configs"][0]["static_configs"][0]["targets"]).collect();
    assert_eq!(targets.len(), compose.pods().len());
    for target in targets {
        let (pod, port) = port_of(target);
        assert!(compose.listens(pod, port), "{target} is scraped, where no pod listens");
    }
}

#[test]
fn what_needs_a_container_engine_says_so_first() {
    for file in ["compose.yaml", "Dockerfile"] {
        let text = text(file);
        let mut header = text.lines().take_while(|line| line.starts_with('#'));
        assert!(header.any(|line| line.to_lowercase().contains("needs a container engine")), "{file}");
    }
}
