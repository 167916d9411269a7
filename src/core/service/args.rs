//! `-service ACT [options] [-- run options]`: the same words for every program.

use super::{Act, Manager};

/// What every program's help says of it.
pub const USAGE: &str = "\
  -service install|uninstall|start|stop|restart|status|print [-- RUN-OPTIONS]
                          run as a service of this system: systemd, openrc, runit, busybox, launchd, windows
      --manager NAME      instead of the one that is found
      --program PATH      the program the service starts; default: this file
      --user NAME         the user it runs as (made if missing); default: the program's name; root: no own user
      --root DIR          install: into the system image in DIR; nothing is started, no service manager is asked
      --now               install: and start
      --replace           install: over a file of the service that was edited by hand, kept as FILE.replaced
      --force             install: although the program lies in a temporary or a home folder
      --purge [--yes]     uninstall: with the state folder; asks, unless --yes
      --json              status, for programs
      exit codes of status: 0 runs, 3 does not run, 4 is not installed";

/// A parsed `-service` command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// What to do.
    pub act: Act,
    /// `--manager`.
    pub manager: Option<Manager>,
    /// `--state`.
    pub state: Option<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `--program`.
    pub program: Option<String>,
    /// `--root`.
    pub root: Option<String>,
    /// What follows `--`; `None`: no `--`, those of the installed service stay.
    pub options: Option<Vec<String>>,
    /// `--now`.
    pub now: bool,
    /// `--replace`.
    pub replace: bool,
    /// `--force`.
    pub force: bool,
    /// `--purge`.
    pub purge: bool,
    /// `--yes`.
    pub yes: bool,
    /// `--json`.
    pub json: bool,
}

/// Parses the words after the program's name if they are a service command: `-service install`, `--service=install`,
/// `service install`. `None`: they are something else.
pub fn parse(words: &[String]) -> Option<Result<Asked, String>> {
    let (first, rest) = words.split_first()?;
    let word = first.trim_start_matches('-');
    if word == "service" && first.len() <= "--service".len() {
        let Some((act, rest)) = rest.split_first() else { return Some(Err(what("".into()))) };
        return Some(asked(act, rest));
    }
    let act = word.strip_prefix("service=").filter(|_| first.starts_with('-'))?;
    Some(asked(act, rest))
}

fn what(act: String) -> String {
    format!("-service {act}: expected install, uninstall, start, stop, restart, status or print")
}

fn asked(act: &str, rest: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        act: match act {
            "install" => Act::Install,
            "uninstall" => Act::Uninstall,
            "start" => Act::Start,
            "stop" => Act::Stop,
            "restart" => Act::Restart,
            "status" => Act::Status,
            "print" => Act::Print,
            other => return Err(what(other.into())),
        },
        ..Asked::default()
    };
    let (install, remove) = (asked.act == Act::Install, asked.act == Act::Uninstall);
    let written = install || asked.act == Act::Print;
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        let (name, given) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value.to_string())));
        let mut value = || given.clone().or_else(|| words.next().cloned()).ok_or_else(|| format!("{name} needs a value"));
        match name {
            "--manager" => {
                let name = value()?;
                let known = || format!("--manager {name}: expected one of {}", Manager::ALL.map(Manager::name).join(", "));
                asked.manager = Some(Manager::from_name(&name).ok_or_else(known)?);
            }
            "--state" => asked.state = Some(value()?),
            "--program" if written => asked.program = Some(value()?),
            "--user" if written => asked.user = Some(value()?),
            "--root" if install || remove || asked.act == Act::Status => asked.root = Some(value()?),
            "--now" if install => asked.now = true,
            "--replace" if install => asked.replace = true,
            "--force" if install => asked.force = true,
            "--purge" if remove => asked.purge = true,
            "--yes" if remove => asked.yes = true,
            "--json" if asked.act == Act::Status => asked.json = true,
            "--" if written => {
                asked.options = Some(words.cloned().collect());
                break;
            }
            _ => return Err(format!("'{word}' does not belong to -service {act}")),
        }
    }
    if asked.now && asked.root.is_some() {
        return Err("--now and --root exclude each other: nothing runs in an image".into());
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(line: &str) -> Option<Result<Asked, String>> {
        parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_spelling_of_the_vendor_is_understood() {
        for line in ["-service install", "-service=install", "--service install", "--service=install", "service install"] {
            assert_eq!(p(line).unwrap().unwrap().act, Act::Install, "{line}");
        }
        for line in ["", "run --state /s", "status", "services install", "service=install", "---service install"] {
            assert!(p(line).is_none(), "{line}");
        }
        let asked = p("-service install --manager runit --state /s --user u --now -- --mirror m --now").unwrap().unwrap();
        assert_eq!((asked.manager, asked.state.as_deref(), asked.now), (Some(Manager::Runit), Some("/s"), true));
        assert_eq!(asked.options, Some(["--mirror", "m", "--now"].map(String::from).to_vec()));
        assert!(p("-service status --json").unwrap().unwrap().json);
        let purge = p("-service uninstall --purge --yes --root=/image").unwrap().unwrap();
        assert!(purge.purge && purge.yes && purge.root.as_deref() == Some("/image"));
    }

    #[test]
    fn usage_errors_name_the_word() {
        for (line, word) in [
            ("-service", "expected install"),
            ("-service reload", "-service reload"),
            ("-service install --manager sysv", "--manager sysv"),
            ("-service install --manager", "--manager needs"),
            ("-service start --purge", "--purge"),
            ("-service stop -- x", "'--'"),
            ("-service install --now --root /x", "exclude"),
        ] {
            let error = p(line).unwrap().unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
