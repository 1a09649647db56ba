//! Encrypted connections, with certificates made for the occasion.

use std::{fs, path::PathBuf, time::Duration};

use nats_servers::{Config, Server};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use via_backplane::{Backplane, ErrorKind};

use crate::notes::{Pod, builder};

/// A certificate authority, and what it has certified, as PEM files.
struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    fn make() -> Self {
        let dir = std::env::temp_dir().join(format!(
            "vianats-tls-{}-{}",
            std::process::id(),
            nats_servers::free_port()
        ));
        fs::create_dir_all(&dir).expect("created");
        let mut authority = CertificateParams::new(Vec::new()).expect("valid");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("a key");
        let certificate = authority.self_signed(&authority_key).expect("signed");
        fs::write(dir.join("ca.pem"), certificate.pem()).expect("written");
        let issuer = Issuer::new(authority, authority_key);
        for name in ["server", "client"] {
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let key = KeyPair::generate().expect("a key");
            let certificate =
                CertificateParams::new(names).expect("valid").signed_by(&key, &issuer).expect("signed");
            fs::write(dir.join(format!("{name}.pem")), certificate.pem()).expect("written");
            fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("written");
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A server that shows its certificate and asks for the client's.
    fn server(&self) -> Server {
        let path = |name| self.path(name).display().to_string();
        let config = format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
            path("server.pem"),
            path("server.key"),
            path("ca.pem")
        );
        Server::start(Config::new().extra(config)).expect("a server")
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok(); // What is left in the temporary directory harms nobody.
    }
}

#[tokio::test]
async fn a_pod_and_a_server_that_trust_each_other_talk() {
    let certificates = Certificates::make();
    let server = certificates.server();
    let trusting = builder(&server.url())
        .require_tls()
        .root_certificates(certificates.path("ca.pem"))
        .client_certificate(certificates.path("client.pem"), certificates.path("client.key"));
    let pod = Pod::with(trusting).await;
    let position = pod.note("over TLS").await;
    pod.reaches(&position).await;
    pod.stop().await;
}

#[tokio::test]
async fn a_server_nobody_vouches_for_is_not_trusted() {
    let certificates = Certificates::make();
    let server = certificates.server();
    let careful =
        vianats::Builder::new(server.url()).require_tls().connect_timeout(Duration::from_millis(500));
    match careful.connect().await {
        Ok(connected) => {
            connected.close().await;
            panic!("it trusted a stranger");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
    }
}
