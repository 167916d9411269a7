//! `-validate` and `-example`: a file is checked without a Director.

use std::io::Write;
use std::path::PathBuf;

use super::Config;
use super::problem::listed;
use super::{example, find};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// `-validate [FILE]`.
    Validate(Option<PathBuf>),
    /// `-example`.
    Example,
}

/// Reads such a command line; `None`: it is another one.
pub fn parse(args: &[String]) -> Option<Result<Check, String>> {
    let (word, value) = match args.first()?.split_once('=') {
        Some((word, value)) => (word, Some(value)),
        None => (args[0].as_str(), None),
    };
    let rest: Vec<&str> = value.into_iter().chain(args[1..].iter().map(String::as_str)).collect();
    match word {
        "-validate" | "--validate" | "validate" => Some(match rest.as_slice() {
            [] => Ok(Check::Validate(None)),
            ["--config" | "-config", file] => Ok(Check::Validate(Some(file.into()))),
            [file] if file.starts_with("--config=") => Ok(Check::Validate(Some(file["--config=".len()..].into()))),
            [file] if !file.starts_with('-') => Ok(Check::Validate(Some(file.into()))),
            _ => Err("expected -validate, -validate FILE or -validate --config FILE".into()),
        }),
        "-example" | "--example" | "example" => Some(match rest.as_slice() {
            [] => Ok(Check::Example),
            _ => Err("-example takes nothing; it prints a configuration to standard output".into()),
        }),
        _ => None,
    }
}

impl Check {
    /// Does it. `state` is looked at for a file, when none is named.
    ///
    /// # Errors
    /// A line for each problem.
    pub fn obey(&self, state: &std::path::Path, out: &mut impl Write) -> Result<(), String> {
        let text = match self {
            Check::Example => example::TEXT.to_string(),
            Check::Validate(file) => {
                let file = file.clone().or_else(|| find::found(state)).ok_or_else(|| {
                    let places: Vec<String> = find::places(state).iter().map(|p| p.display().to_string()).collect();
                    format!("no configuration: there is none of {}; name a file, or see -example", places.join(", "))
                })?;
                let (config, _) = Config::read(&file).map_err(|problems| format!("not valid\n{}", listed(&file, &problems)))?;
                format!("{}: valid\n{}", file.display(), about_fleet(&config, state))
            }
        };
        out.write_all(text.as_bytes()).map_err(|e| e.to_string())
    }
}

/// What the section `fleet:` comes to here; whoever asks may see less than the Director, and is told what it sees.
#[cfg(unix)]
fn about_fleet(config: &Config, state: &std::path::Path) -> String {
    let known = crate::io::state::State::look_of(&crate::core::product::DIRECTOR, state).config().ok().flatten();
    let enrolled = known.map(|(config, _)| (config.director, config.agent_id));
    config.fleet.as_ref().map_or(String::new(), |fleet| super::key::outlook(fleet, enrolled.as_ref()) + "\n")
}

#[cfg(not(unix))]
fn about_fleet(_: &Config, _: &std::path::Path) -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_habits_are_understood() {
        let parsed = |line: &str| parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>());
        let named = Check::Validate(Some("/f".into()));
        for line in ["-validate /f", "--validate --config /f", "-validate --config=/f", "-validate=/f", "validate -config /f"] {
            assert_eq!(parsed(line), Some(Ok(named.clone())), "{line}");
        }
        assert_eq!(parsed("-validate"), Some(Ok(Check::Validate(None))));
        assert_eq!(parsed("-example"), Some(Ok(Check::Example)));
        assert!(
            parsed("-validate a b").unwrap().is_err()
                && parsed("-example x").unwrap().is_err()
                && parsed("-validate --x").unwrap().is_err()
        );
        assert_eq!(parsed("run --root r"), None);
        assert_eq!(parsed(""), None);
    }
}
