//! Why a command ended without doing its work.

use std::borrow::Cow;
use std::fmt;

use crate::core::reason::Reason;

/// A stable code for programs, and a sentence that names the file, the field and the remedy.
#[derive(Debug)]
pub struct Failure {
    /// `snake_case`, never changes its meaning.
    pub code: &'static str,
    /// For people; holds no secret.
    pub text: String,
}

/// What every command answers.
pub type Result<T> = std::result::Result<T, Failure>;

/// The code of a wrong command line: exit 2 instead of 1.
const USAGE: &str = "usage";

impl Failure {
    /// A failure with its code and its sentence.
    pub fn new(code: &'static str, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into() }
    }

    /// The command line itself is wrong.
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure::new(USAGE, text)
    }

    /// A reason of the layers below.
    pub fn of(reason: Reason) -> Failure {
        let code = match reason.code {
            Cow::Borrowed(code) => code,
            Cow::Owned(_) => "failed",
        };
        Failure { code, text: reason.detail.clone() }
    }

    /// Exit code of the program: 1 failed, 2 wrong command line.
    pub fn exit(&self) -> u8 {
        if self.code == USAGE { 2 } else { 1 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
