//! The command line of `vmetric-agent`. Words and single-dash forms are those of the specification and its vendor.

use std::path::PathBuf;

use crate::core::service::args::{self as service, Asked};

/// Shown by `--help` and after a usage error.
pub const USAGE: &str = "\
usage: vmetric-agent COMMAND [--state DIR]

  enroll --director URL --token T --pin sha256:HEX [--pin ...] [--proxy URL] [--offline-site DAYS]
         [--serial S] [--replace]
                          make this device known to its managing Director; the token may come in $VMETRIC_TOKEN
                          instead, where no other user sees it; --replace: anew, with a new identity (a rebuilt
                          Director, a cloned disk); slots, results and the rejected list stay; --ca FILE instead of
                          --pin: the company's CA, in an agent built with the cargo feature company-ca
  run [--supervise]       run the agent; --supervise starts it again whenever it ends
                          (the default, unless VMETRIC_RESPAWN=1 says that a service manager does)
                          a device without an identity enrolls by itself, with what its sources say (README)
  status [--json]         what runs, what is ordered, why it waits
  rollback                back to the other slot
  update --file TREE|BUNDLE [--version V]
                          install from a published release tree or a bundle of it, no network needed
  -validate               check the configuration strictly
  -version, --version     this file's version, and what runs
  --self-test             check that this file works on this device; touches nothing

  --state DIR             default: $VMETRIC_STATE, else /var/lib/vmetric-agent
exit codes: 0 well, 1 failed, 2 usage, 3 an agent runs already with this state folder";

/// A parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// First word.
    pub command: String,
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--director`.
    pub director: Option<String>,
    /// `--token`.
    pub token: Option<String>,
    /// `--pin`, as often as given.
    pub pins: Vec<String>,
    /// `--ca`.
    pub ca: Option<PathBuf>,
    /// `--proxy`.
    pub proxy: Option<String>,
    /// `--offline-site`.
    pub offline_site: Option<u64>,
    /// `--serial`.
    pub serial: Option<String>,
    /// `--replace`.
    pub replace: bool,
    /// `--file`.
    pub file: Option<PathBuf>,
    /// `--version V` after `update`.
    pub version: Option<String>,
    /// `--json`.
    pub json: bool,
    /// `--supervise`.
    pub supervise: bool,
    /// `-service ...`, whole.
    pub service: Option<Asked>,
}

const COMMANDS: [&str; 5] = ["enroll", "run", "status", "rollback", "update"];

/// Parses everything after the program's name; the error says what is wrong.
pub fn parse(words: &[String]) -> Result<Args, String> {
    let Some(first) = words.first() else { return Err("no command given".into()) };
    if let Some(asked) = service::parse(words) {
        return Ok(Args { command: "service".into(), service: Some(asked?), ..Args::default() });
    }
    let command = match first.as_str() {
        "-version" | "--version" => "version",
        "-validate" | "--validate" => "validate",
        "--self-test" => "self-test",
        "-h" | "-help" | "--help" | "help" => "help",
        word if COMMANDS.contains(&word) => word,
        word => return Err(format!("'{word}' is no command")),
    };
    let mut args = Args { command: command.into(), ..Args::default() };
    let mut rest = words[1..].iter();
    while let Some(word) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--state" => args.state = Some(value()?.into()),
            "--json" => args.json = true,
            "--supervise" if command == "run" => args.supervise = true,
            "--director" if command == "enroll" => args.director = Some(value()?),
            "--token" if command == "enroll" => args.token = Some(value()?),
            "--pin" if command == "enroll" => args.pins.push(value()?),
            "--ca" if command == "enroll" => args.ca = Some(value()?.into()),
            "--serial" if command == "enroll" => args.serial = Some(value()?),
            "--replace" if command == "enroll" => args.replace = true,
            "--proxy" if command == "enroll" => args.proxy = Some(value()?),
            "--offline-site" if command == "enroll" => {
                args.offline_site = Some(value()?.parse().map_err(|_| "--offline-site needs a number of days".to_string())?);
            }
            "--file" if command == "update" => args.file = Some(value()?.into()),
            "--version" if command == "update" => args.version = Some(value()?),
            word => return Err(format!("'{word}' does not belong to {command}")),
        }
    }
    let missing = |name: &str| Err(format!("{command} needs {name}"));
    match command {
        "enroll" if args.director.is_none() => missing("--director URL"),
        "enroll" if args.ca.is_some() && !cfg!(feature = "company-ca") => {
            Err("--ca needs an agent that was built with the cargo feature company-ca; this one knows --pin sha256:HEX only".into())
        }
        "enroll" if args.ca.is_some() && !args.pins.is_empty() => Err("--ca and --pin exclude each other".into()),
        "enroll" if args.pins.is_empty() && args.ca.is_none() => missing("--pin sha256:HEX, as the Director prints it"),
        "update" if args.file.is_none() => missing("--file TREE or --file BUNDLE"),
        _ => Ok(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(line: &str) -> Result<Args, String> {
        parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_documented_lines_parse() {
        let args = p("enroll --director https://d:8443 --token t --pin sha256:aa --pin sha256:bb --state /s --offline-site 30").unwrap();
        assert_eq!((args.command.as_str(), args.pins.len(), args.offline_site), ("enroll", 2, Some(30)));
        for line in ["-version", "--version"] {
            assert_eq!(p(line).unwrap().command, "version");
        }
        let args = p("enroll --replace --serial S1 --director https://d --token t --pin p").unwrap();
        assert!(args.replace && args.serial.as_deref() == Some("S1"));
        assert!(p("run --supervise --state /s").unwrap().supervise);
        assert_eq!(p("update --file /t --version 2.0.0").unwrap().version.as_deref(), Some("2.0.0"));
        assert!(p("status --json").unwrap().json);
        assert!(p("-service status --json").unwrap().service.unwrap().json);
    }

    #[test]
    fn usage_errors_name_the_word() {
        for (line, word) in [
            ("", "no command"),
            ("start", "start"),
            ("run --json --pin x", "--pin"),
            ("enroll --token t --pin p", "--director"),
            ("enroll --director d --token t", "--pin"),
            ("enroll --director d --token t --ca f --pin p", if cfg!(feature = "company-ca") { "exclude" } else { "feature company-ca" }),
            ("enroll --director", "--director"),
            ("enroll --director d --token t --pin p --offline-site x", "days"),
            ("update", "--file"),
        ] {
            assert!(p(line).unwrap_err().contains(word), "{line}: {:?}", p(line));
        }
    }
}
