//! Programs that must not compile, each beside what the compiler says about it.
//!
//! A case is a file in `cases/`: one thing a user may try, and next to it a `.stderr` with the message they get, which
//! says what to do instead. `cargo test -p compile-fail` compiles them all; after a message was changed on purpose,
//! `TRYBUILD=overwrite cargo test -p compile-fail` writes the new ones, to be read before they are committed.
