//! The command line: one table, from which parsing and help are made.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::failure::{Failure, Result};

/// One option: `--name VALUE`, or `--name` alone when `value` is empty.
pub struct Opt {
    /// Without the dashes.
    pub name: &'static str,
    /// What the value is called in the help; empty for a flag.
    pub value: &'static str,
    /// May be given several times.
    pub many: bool,
    /// One line.
    pub help: &'static str,
}

/// One command.
pub struct Command {
    /// Its word.
    pub name: &'static str,
    /// One line for the list of commands.
    pub summary: &'static str,
    /// What comes after the options: `FILE`, or empty.
    pub operands: &'static str,
    /// Its options.
    pub options: &'static [Opt],
    /// Paragraphs and examples under the options.
    pub more: &'static str,
}

/// An option with a value.
pub const fn opt(name: &'static str, value: &'static str, help: &'static str) -> Opt {
    Opt { name, value, many: false, help }
}

/// An option that may be repeated.
pub const fn many(name: &'static str, value: &'static str, help: &'static str) -> Opt {
    Opt { name, value, many: true, help }
}

/// An option without a value.
pub const fn flag(name: &'static str, help: &'static str) -> Opt {
    Opt { name, value: "", many: false, help }
}

/// A parsed command line.
pub struct Parsed {
    command: &'static str,
    values: BTreeMap<&'static str, Vec<String>>,
    /// What is no option.
    pub operands: Vec<String>,
}

/// Parses what follows the command's word. `--name=VALUE` and `--` work as everywhere.
pub fn parse(command: &'static Command, args: &[String]) -> Result<Parsed> {
    let mut out = Parsed { command: command.name, values: BTreeMap::new(), operands: Vec::new() };
    let mut rest = args.iter();
    let mut options_end = false;
    while let Some(arg) = rest.next() {
        let Some(name) = arg.strip_prefix("--").filter(|_| !options_end) else {
            if arg.starts_with('-') && arg.len() > 1 && !options_end {
                return Err(unknown(command, arg));
            }
            out.operands.push(arg.clone());
            continue;
        };
        if name.is_empty() {
            options_end = true;
            continue;
        }
        let (name, inline) = name.split_once('=').map_or((name, None), |(n, v)| (n, Some(v.to_string())));
        let option = command.options.iter().find(|o| o.name == name).ok_or_else(|| unknown(command, arg))?;
        let value = match (option.value, inline) {
            ("", None) => String::new(),
            ("", Some(_)) => return Err(Failure::usage(format!("--{name} takes no value"))),
            (_, Some(value)) => value,
            (what, None) => rest.next().cloned().ok_or_else(|| Failure::usage(format!("--{name} needs a value: --{name} {what}")))?,
        };
        let values = out.values.entry(option.name).or_default();
        if !values.is_empty() && !option.many {
            return Err(Failure::usage(format!("--{name} was given twice")));
        }
        values.push(value);
    }
    Ok(out)
}

fn unknown(command: &Command, arg: &str) -> Failure {
    // Only the name: a value behind '=' might be something that should not be repeated.
    let name = arg.split('=').next().unwrap_or(arg);
    Failure::usage(format!("{name}: unknown option; 'vmetric-release {} --help' lists them", command.name))
}

impl Parsed {
    /// The value of an option.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.first().map(String::as_str)
    }

    /// The value of an option that has to be there.
    pub fn need(&self, name: &str) -> Result<&str> {
        self.find(name).ok_or_else(|| Failure::usage(format!("--{name} is missing; see 'vmetric-release {} --help'", self.command)))
    }

    /// All values of a repeatable option.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// True if a flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A number, or its default.
    pub fn number(&self, name: &str, default: u64) -> Result<u64> {
        self.parsed(name).map(|n| n.unwrap_or(default))
    }

    /// A value of any type that knows how to read itself.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        self.find(name).map(|text| text.parse().map_err(|e| Failure::usage(format!("--{name} {text}: {e}")))).transpose()
    }

    /// Refuses operands where none belong.
    pub fn no_operands(&self) -> Result<()> {
        match self.operands.first() {
            Some(extra) => Err(Failure::usage(format!("'{extra}' does not belong here; see 'vmetric-release {} --help'", self.command))),
            None => Ok(()),
        }
    }
}

/// The help of one command.
pub fn help(command: &Command) -> String {
    let mut out = format!("{}\n\nUsage: vmetric-release {} [OPTIONS] {}", command.summary, command.name, command.operands);
    out.truncate(out.trim_end().len());
    out.push_str("\n\nOptions:\n");
    for option in command.options {
        let name = format!("--{} {}", option.name, option.value);
        let repeated = if option.many { " (repeatable)" } else { "" };
        let _ = writeln!(out, "  {:<28} {}{repeated}", name.trim_end(), option.help);
    }
    if !command.more.is_empty() {
        let _ = writeln!(out, "\n{}", command.more.trim());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    static TEST: Command = Command {
        name: "x",
        summary: "",
        operands: "",
        options: &[opt("repo", "DIR", ""), many("role", "ROLE", ""), flag("json", "")],
        more: "",
    };

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn options_in_every_form() {
        let p = parse(&TEST, &words("--repo r --role=a --role b --json f -- --g")).unwrap();
        assert_eq!((p.find("repo"), p.all("role").join(" "), p.has("json")), (Some("r"), "a b".into(), true));
        assert_eq!(p.operands, ["f", "--g"]);
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for line in ["--nope", "-r", "--repo", "--repo a --repo b", "--json=1"] {
            assert_eq!(parse(&TEST, &words(line)).err().map(|e| e.exit()), Some(2), "{line}");
        }
        assert!(!parse(&TEST, &words("--passphrase=secret")).err().unwrap().text.contains("secret"));
    }
}
