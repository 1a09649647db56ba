//! Who a pod says it is, in every way it can be said, and that it is said to nobody else.

use std::{fs, path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use nats_servers::{Config, Server};
use nkeys::KeyPair;
use serde_json::{Value, json};
use via_backplane::{BackendError, Backplane, ErrorKind};
use vianats::Builder;

use crate::{notes::builder, told::Log};

/// A user's way to say who it is, and a server that takes nobody else.
struct Way {
    name: &'static str,
    server: Server,
    /// What must be told to nobody.
    secret: String,
    right: Box<dyn Fn(&str) -> Builder>,
    wrong: Box<dyn Fn(&str) -> Builder>,
    _file: Option<CredentialsFile>,
}

fn way(
    name: &'static str,
    config: &str,
    secret: &str,
    right: impl Fn(&str) -> Builder + 'static,
    wrong: impl Fn(&str) -> Builder + 'static,
) -> Way {
    let server = Server::start(Config::new().extra(config)).expect("a server");
    Way { name, server, secret: secret.into(), right: Box::new(right), wrong: Box::new(wrong), _file: None }
}

fn carrying(url: &str, who: &str) -> Builder {
    builder(&url.replace("nats://", &format!("nats://{who}@")))
}

fn ways() -> Vec<Way> {
    let password = "authorization { user: via, password: \"s3cret/pass\" }";
    let token = "authorization { token: s3crettoken }";
    let (user, stranger) = (KeyPair::new_user(), seed(&KeyPair::new_user()));
    let nkey = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key());
    let own = seed(&user);
    vec![
        way(
            "a user",
            password,
            "s3cret",
            |url| builder(url).user_and_password("via", "s3cret/pass"),
            |url| builder(url).user_and_password("via", "s3cretwrong"),
        ),
        way(
            "an address with a user",
            password,
            "s3cret",
            |url| carrying(url, "via:s3cret%2Fpass"),
            |url| carrying(url, "via:s3cretwrong"),
        ),
        way(
            "a token",
            token,
            "s3cret",
            |url| builder(url).token("s3crettoken"),
            |url| builder(url).token("s3cretwrong"),
        ),
        way(
            "an address with a token",
            token,
            "s3cret",
            |url| carrying(url, "s3crettoken"),
            |url| carrying(url, "s3cretwrong"),
        ),
        way(
            "an nkey",
            &nkey,
            &own.clone(),
            move |url| builder(url).nkey(own.clone()),
            move |url| builder(url).nkey(stranger.clone()),
        ),
        credentials_file(),
    ]
}

fn seed(pair: &KeyPair) -> String {
    pair.seed().expect("a pair that was made here has a seed")
}

/// A JWT of the kind that NATS takes: claims about a subject, signed by whoever may make them.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: &Value) -> String {
    let part = |value: Value| BASE64URL.encode(value.to_string());
    let header = part(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let claims = part(json!({
        "jti": name, "iat": 1_764_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": name, "nats": nats,
    }));
    let signed = format!("{header}.{claims}");
    let signature = issuer.sign(signed.as_bytes()).expect("a pair that was made here signs");
    format!("{signed}.{}", BASE64URL.encode(signature))
}

/// A file as `nsc` writes it, gone with the test.
struct CredentialsFile(PathBuf);

impl CredentialsFile {
    fn write(jwt: &str, seed: &str) -> Self {
        let path = std::env::temp_dir().join(format!(
            "vianats-{}-{}.creds",
            std::process::id(),
            nats_servers::free_port()
        ));
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        fs::write(&path, text).expect("the temporary directory is writable");
        Self(path)
    }
}

impl Drop for CredentialsFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok(); // What is left in the temporary directory harms nobody.
    }
}

/// A server whose operator vouches for an account, which vouches for a user.
fn credentials_file() -> Way {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let unlimited = json!({
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1, "conn": -1, "subs": -1, "data": -1,
        "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "leaf": -1,
    });
    let account_jwt =
        jwt(&operator, &account, "app", &json!({ "type": "account", "version": 2, "limits": unlimited }));
    let user_jwt = jwt(
        &account,
        &user,
        "via",
        &json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 }),
    );
    let system = KeyPair::new_account();
    let system_jwt = jwt(
        &operator,
        &system,
        "sys",
        &json!({ "type": "account", "version": 2, "limits": {
            "conn": -1, "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "leaf": -1,
        } }),
    );
    let operator_jwt = jwt(&operator, &operator, "op", &json!({ "type": "operator", "version": 2 }));
    let config = format!(
        "operator: {operator_jwt}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt}, {}: {system_jwt} }}",
        system.public_key(),
        account.public_key(),
        system.public_key()
    );
    let file = CredentialsFile::write(&user_jwt, &seed(&user));
    // Whoever holds another seed cannot sign what the server asks.
    let stranger = CredentialsFile::write(&user_jwt, &seed(&KeyPair::new_user()));
    let path = file.0.clone();
    let way = way(
        "a credentials file",
        &config,
        &seed(&user),
        move |url| builder(url).credentials_file(&path),
        move |url| builder(url).credentials_file(&stranger.0),
    );
    Way { _file: Some(file), ..way }
}

async fn refused(builder: Builder) -> BackendError {
    match builder.connect().await {
        Ok(_) => panic!("it connected"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn every_way_to_say_who_a_pod_is_is_taken_and_told_to_nobody() {
    for Way { name, server, secret, right, wrong, _file } in ways() {
        let (log, _here) = Log::start();
        let url = server.url();
        let pod = right(&url).connect().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        pod.ping().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let mut errors = Vec::new();
        for stranger in [wrong(&url), builder(&url)] {
            let error = refused(stranger).await;
            assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {error:?}");
            errors.push(error);
        }
        server.kill();
        errors.push(pod.ping().await.expect_err("gone"));
        pod.close().await;
        errors.push(refused(right(&url).connect_timeout(Duration::from_millis(300))).await);
        let said = format!("{} {errors:?}", log.text());
        assert!(said.contains("127.0.0.1"), "{name}: nothing was said");
        assert!(!said.contains(&secret), "{name}: {said}");
    }
}

#[tokio::test]
async fn a_credentials_file_that_is_missing_is_named() {
    let error = refused(Builder::new("nats://127.0.0.1:1").credentials_file("/nowhere/app.creds")).await;
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("/nowhere/app.creds"), "{error}");
}
