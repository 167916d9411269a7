//! The stamp in every file of a service: which template it is of, and a hash by which an edit of an operator shows.
//!
//! ```text
//! # vmetric-service template=1 sha256=<of this file, with zeros in this place>
//! # set state=/var/lib/vmetric-agent
//! ```
//!
//! The settings beside it let a later `install` keep what an earlier one was told.

use super::Spec;
use crate::core::hex;

/// Number of the templates; raised with every change to one of them, so that a device tells its files are of an older one.
pub const TEMPLATE: u32 = 1;

const MARK: &str = "vmetric-service template=";
const HASH: &str = " sha256=";
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The line that goes into a template; [`seal`] completes it.
pub fn stamp() -> String {
    format!("{MARK}{TEMPLATE}{HASH}{ZEROS}")
}

/// Puts the hash into the stamp.
pub fn seal(text: &str) -> String {
    text.replacen(ZEROS, &hex::encode(&hex::sha256(text.as_bytes())), 1)
}

/// The lines that keep what the file was made of.
pub fn settings(spec: &Spec) -> String {
    let pairs = [("program", &spec.program), ("state", &spec.state), ("user", &spec.user)].into_iter();
    let pairs = pairs.chain(spec.options.iter().map(|word| ("option", word)));
    // A comment of XML cannot hold two dashes.
    pairs.map(|(name, value)| format!("set {name}={}\n", value.replace('%', "%25").replace("--", "%2D%2D"))).collect()
}

/// What an installed file keeps of its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The program.
    pub program: Option<String>,
    /// State folder.
    pub state: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Further words of `run`.
    pub options: Vec<String>,
}

/// Reads the settings of an installed file.
pub fn recorded(text: &str) -> Settings {
    let mut settings = Settings::default();
    for line in text.lines() {
        let Some((_, pair)) = line.split_once("set ") else { continue };
        let Some((name, value)) = pair.trim_end_matches(" -->").split_once('=') else { continue };
        let value = value.replace("%2D", "-").replace("%25", "%");
        match name {
            "program" => settings.program = Some(value),
            "state" => settings.state = Some(value),
            "user" => settings.user = Some(value),
            "option" => settings.options.push(value),
            _ => {}
        }
    }
    settings
}

/// How an installed file stands to the one that this program would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Absent,
    /// The same, byte for byte.
    Current,
    /// Ours, of the same template, with other settings.
    Differs,
    /// Ours, of an older template.
    Older,
    /// Ours, of a newer template: made by a newer version of this program.
    Newer,
    /// Ours, changed by hand since.
    Edited,
    /// Not ours.
    Foreign,
}

impl Standing {
    /// One word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Absent => "absent",
            Standing::Current => "current",
            Standing::Differs => "differs",
            Standing::Older => "older",
            Standing::Newer => "newer",
            Standing::Edited => "edited",
            Standing::Foreign => "foreign",
        }
    }
}

/// Compares what was found with what is wanted.
pub fn standing(found: Option<&str>, wanted: &str) -> Standing {
    let Some(found) = found else { return Standing::Absent };
    if found == wanted {
        return Standing::Current;
    }
    let Some((template, sealed)) = read_stamp(found) else { return Standing::Foreign };
    match template.cmp(&TEMPLATE) {
        _ if !sealed => Standing::Edited,
        std::cmp::Ordering::Less => Standing::Older,
        std::cmp::Ordering::Greater => Standing::Newer,
        std::cmp::Ordering::Equal => Standing::Differs,
    }
}

/// Number of the template, and whether the hash is that of the text.
fn read_stamp(text: &str) -> Option<(u32, bool)> {
    let (_, rest) = text.split_once(MARK)?;
    let (number, rest) = rest.split_once(HASH)?;
    let hash = rest.get(..ZEROS.len())?;
    let zeroed = text.replacen(hash, ZEROS, 1);
    Some((number.parse().ok()?, hash == hex::encode(&hex::sha256(zeroed.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(template: u32, body: &str) -> String {
        seal(&format!("#!/bin/sh\n# {}\n{body}\n", stamp().replace("=1 ", &format!("={template} "))))
    }

    #[test]
    fn an_edit_and_an_older_template_are_told_apart() {
        let wanted = file(TEMPLATE, "exec a");
        for (found, standing_is) in [
            (None, Standing::Absent),
            (Some(wanted.clone()), Standing::Current),
            (Some(file(TEMPLATE, "exec b")), Standing::Differs),
            (Some(file(TEMPLATE - 1, "exec a")), Standing::Older),
            (Some(file(TEMPLATE + 1, "exec a")), Standing::Newer),
            (Some(wanted.replace("exec a", "exec a --debug")), Standing::Edited),
            (Some(file(TEMPLATE - 1, "exec a").replace("exec", "nice exec")), Standing::Edited),
            (Some("#!/bin/sh\nexec a\n".into()), Standing::Foreign),
            (Some(format!("# {MARK}1{HASH}abc")), Standing::Foreign),
        ] {
            assert_eq!(standing(found.as_deref(), &wanted), standing_is, "{found:?}");
        }
    }

    #[test]
    fn settings_come_back_from_every_comment() {
        let options = ["--mirror", "a%2Db c", "-"].map(String::from).to_vec();
        let spec = Spec { product: &super::super::AGENT, program: "/p".into(), state: "/s=x".into(), user: "u".into(), options };
        let lines = settings(&spec);
        assert!(!lines.contains("--"), "{lines}");
        for (before, after) in [("# ", ""), ("<!-- ", " -->")] {
            let text: String = lines.lines().map(|l| format!("{before}{l}{after}\n")).collect();
            let expected =
                Settings { program: Some("/p".into()), state: Some("/s=x".into()), user: Some("u".into()), options: spec.options.clone() };
            assert_eq!(recorded(&text), expected);
        }
    }
}
