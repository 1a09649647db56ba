//! A directory of golden files: what is stored, and what it decodes to.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt::{Debug, Write},
    fs, io,
    path::{Path, PathBuf},
};

use super::difference;
use crate::error::described;

/// The variable that says what may be written.
const VARIABLE: &str = "VIA_GOLDEN";
/// Bytes of a stored value that are shown where it does not decode.
const SHOWN_BYTES: usize = 256;

/// What a check may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Nothing,
    /// What is missing.
    New,
    /// That, and texts that differ.
    Accept,
}

impl Mode {
    pub(super) fn of_environment() -> Self {
        match env::var(VARIABLE).as_deref() {
            Err(env::VarError::NotPresent) | Ok("") => Self::Nothing,
            Ok("new") => Self::New,
            Ok("accept") => Self::Accept,
            other => panic!("{VARIABLE} is `new` or `accept`, not {other:?}"),
        }
    }
}

/// A directory, and the files that have to be there.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    expected: BTreeMap<String, Vec<u8>>,
}

impl Dir {
    pub(super) fn new(path: &Path) -> Self {
        // Cargo runs tests in the package's directory and says which it is; a runner of another kind may do only one.
        let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
        Self { path: package.join(path), expected: BTreeMap::new() }
    }

    pub(super) fn expect(&mut self, version: u32, label: &str, extension: &str, bytes: Vec<u8>) {
        let speakable = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | ' ' | '.');
        assert!(
            label.chars().all(speakable) && !label.is_empty(),
            "the label {label:?} becomes part of a file's name: use letters, digits, `-`, `_` and spaces"
        );
        let name = format!("v{version}-{}.{extension}", label.replace(' ', "-"));
        assert!(
            self.expected.insert(name, bytes).is_none(),
            "version {version} has two examples with the label {label:?}"
        );
    }

    /// Checks every file, and panics with all that is wrong.
    #[track_caller]
    pub(super) fn check(self, mode: Mode, extension: &str, read: impl Fn(&str, &[u8]) -> Reading) {
        match self.problems(mode, extension, read) {
            Ok(problems) if problems.is_empty() => {}
            Ok(problems) => panic!("{}", problems.join("\n\n")),
            Err(error) => panic!("{}: {error}", self.path.display()),
        }
    }

    /// What is wrong, once what may be written was written.
    pub(super) fn problems(
        &self,
        mode: Mode,
        extension: &str,
        read: impl Fn(&str, &[u8]) -> Reading,
    ) -> io::Result<Vec<String>> {
        let mut stored = self.stored(extension)?;
        let mut problems = Vec::new();
        for (name, bytes) in &self.expected {
            if stored.contains_key(name) {
                continue;
            }
            if mode == Mode::Nothing {
                problems.push(self.missing(name));
                continue;
            }
            fs::create_dir_all(&self.path)?;
            fs::write(self.path.join(name), bytes)?;
            stored.insert(name.clone(), bytes.clone());
        }
        if stored.is_empty() && problems.is_empty() {
            problems.push(format!(
                "{} has no `.{extension}` file, so nothing was checked: give an `example`, or correct the directory",
                self.path.display()
            ));
        }
        for (name, bytes) in stored {
            problems.extend(self.judge(mode, &name, read(&name, &bytes))?);
        }
        Ok(problems)
    }

    /// The files with this extension, by name.
    fn stored(&self, extension: &str) -> io::Result<BTreeMap<String, Vec<u8>>> {
        let mut stored = BTreeMap::new();
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(stored),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if let (true, Some(name)) =
                (path.extension().is_some_and(|found| found == extension), path.file_name())
            {
                stored.insert(name.to_string_lossy().into_owned(), fs::read(&path)?);
            }
        }
        Ok(stored)
    }

    /// What is wrong with one file.
    fn judge(&self, mode: Mode, name: &str, reading: Reading) -> io::Result<Option<String>> {
        let path = self.path.join(name);
        let text_path = path.with_extension("txt");
        let now = match &reading.outcome {
            Ok(now) => now,
            Err(problem) => return Ok(Some(reading.does_not_decode(&path, problem))),
        };
        let then = match fs::read_to_string(&text_path) {
            // A checkout on Windows may have changed the ends of lines.
            Ok(then) => Some(then.replace("\r\n", "\n")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match (then, mode) {
            (Some(then), _) if then == *now => Ok(None),
            (None, Mode::New | Mode::Accept) | (Some(_), Mode::Accept) => {
                fs::write(&text_path, now).map(|()| None)
            }
            (None, Mode::Nothing) => {
                Ok(Some(self.missing(&text_path.file_name().unwrap_or_default().to_string_lossy())))
            }
            (Some(then), _) => Ok(Some(reading.differs(&path, &text_path, &then, now))),
        }
    }

    fn missing(&self, name: &str) -> String {
        format!(
            "{} is missing: `{VARIABLE}=new cargo test` writes it; read it, and commit it",
            self.path.join(name).display()
        )
    }
}

/// The version in a file's name, `v<version>-<label>.<extension>`.
pub(super) fn version(name: &str) -> Option<u32> {
    name.strip_prefix('v')?.split_once('-')?.0.parse().ok()
}

/// What came of reading a stored value.
pub(super) struct Reading {
    /// What is stored.
    pub(super) what: String,
    /// What this binary reads it as.
    pub(super) reader: String,
    /// The bytes to show where they do not decode.
    pub(super) stored: Vec<u8>,
    outcome: Result<String, Problem>,
}

struct Problem {
    errors: String,
    advice: String,
}

impl Reading {
    pub(super) fn of(stored: &[u8]) -> Self {
        Self {
            what: String::new(),
            reader: String::new(),
            stored: stored.to_vec(),
            outcome: Ok(String::new()),
        }
    }

    pub(super) fn reads(mut self, value: &impl Debug) -> Self {
        self.outcome = Ok(format!("{value:#?}\n"));
        self
    }

    pub(super) fn fails(self, error: &(dyn Error + 'static), advice: &str) -> Self {
        self.fails_plainly(&described(error), advice)
    }

    pub(super) fn fails_plainly(mut self, error: &str, advice: &str) -> Self {
        self.outcome = Err(Problem { errors: error.to_owned(), advice: advice.to_owned() });
        self
    }

    fn does_not_decode(&self, path: &Path, problem: &Problem) -> String {
        let mut message = format!("{} does not decode any more.\n", path.display());
        self.describe(&mut message);
        let shown = &self.stored[..self.stored.len().min(SHOWN_BYTES)];
        let cut = if shown.len() < self.stored.len() { "…\n" } else { "" };
        write!(
            message,
            "\nerror: {}\nhelp: {}\n\n{}{cut}",
            problem.errors,
            problem.advice,
            difference::hex_dump(shown)
        )
        .expect("writing to a string does not fail");
        message
    }

    fn differs(&self, path: &Path, text: &Path, then: &str, now: &str) -> String {
        let mut message = format!("{} decodes to something else than it did.\n", path.display());
        self.describe(&mut message);
        write!(
            message,
            "\n{}\n  - as {} has it\n  + as it decodes now\n\n\
             Logs and snapshots are full of such bytes, and every pod would read all of them as the `+` side.\n\
             - If that is not meant: keep the old type as it was, and make the new one a new version (the book's page on \
             evolution).\n\
             - If it is meant, because the type gained a field or what old ones mean today was changed on purpose: \
             `{VARIABLE}=accept cargo test` rewrites the text; commit it with the change.",
            difference::lines(then, now),
            text.file_name().unwrap_or_default().to_string_lossy()
        )
        .expect("writing to a string does not fail");
        message
    }

    fn describe(&self, message: &mut String) {
        for (label, value) in [("stored:", &self.what), ("read as:", &self.reader)] {
            if !value.is_empty() {
                writeln!(message, "{label:<8} {value}").expect("writing to a string does not fail");
            }
        }
    }
}
