//! The backplane an example runs over, chosen by the environment.

use std::{env, str::FromStr, sync::Arc};

use via_backplane::Backplane;
use via_inmem::InMemory;

/// The variable that chooses.
pub const VARIABLE: &str = "VIA_BACKPLANE";

/// Where shared state lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// In this process, and gone with it.
    Memory,
    /// On a NATS JetStream server or cluster, at these addresses, separated by commas.
    Nats(String),
}

/// A choice that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{VARIABLE} is {0}: write `memory`, or the addresses of NATS servers such as `nats://127.0.0.1:4222`, separated by commas"
)]
pub struct NoChoice(String);

impl FromStr for Choice {
    type Err = NoChoice;

    fn from_str(given: &str) -> Result<Self, NoChoice> {
        let is_nats =
            |address: &str| address.trim().strip_prefix("nats://").is_some_and(|rest| !rest.is_empty());
        match given.trim() {
            "memory" => Ok(Self::Memory),
            addresses if addresses.split(',').all(is_nats) => Ok(Self::Nats(addresses.to_owned())),
            // An address may hold a password, which is not for the terminal.
            secret if secret.contains('@') => Err(NoChoice("no such address".to_owned())),
            other => Err(NoChoice(format!("`{other}`"))),
        }
    }
}

/// The backplane `VIA_BACKPLANE` names; in memory unless it is set.
///
/// # Errors
/// A value that is no choice, in one line that names the choices; a server that cannot be reached.
pub async fn from_env() -> via::Result<Arc<dyn Backplane>> {
    let given =
        env::var_os(VARIABLE).map_or_else(|| "memory".into(), |given| given.to_string_lossy().into_owned());
    Ok(match given.parse()? {
        Choice::Memory => Arc::new(InMemory::new()),
        Choice::Nats(addresses) => Arc::new(vianats::connect(&addresses).await?),
    })
}

#[cfg(test)]
mod tests {
    use super::{Choice, NoChoice};

    fn choose(given: &str) -> Result<Choice, NoChoice> {
        given.parse()
    }

    #[test]
    fn memory_and_nats_are_choices() {
        assert_eq!(choose("memory"), Ok(Choice::Memory));
        for addresses in ["nats://127.0.0.1:4222", "nats://a:1,nats://b:2, nats://user:secret@c"] {
            assert_eq!(choose(addresses), Ok(Choice::Nats(addresses.to_owned())));
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_choices() {
        for given in ["", "redis://a", "127.0.0.1:4222", "nats://", "nats://a,", "Memory"] {
            let error = choose(given).expect_err(given).to_string();
            assert!(error.starts_with(&format!("VIA_BACKPLANE is `{given}`: ")), "{error}");
            assert!(error.contains("`memory`") && error.contains("`nats://127.0.0.1:4222`"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let error = choose("nat://ada:secret@a").expect_err("no such scheme").to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
