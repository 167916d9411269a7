//! The lines of a service in `/etc/inittab` of busybox, which has no drop-ins.
//!
//! ```text
//! # vmetric-agent: written by `vmetric-agent -service`
//! ::respawn:/etc/vmetric/vmetric-agent.run
//! ```
//!
//! A stopped service has `#stopped ` before its second line: init has no other way to be told.

/// Largest inittab that is read, bytes.
pub const INITTAB_MAX: u64 = 64 * 1024;

/// What the file says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing.
    Absent,
    /// Init is to run it.
    Runs,
    /// It is installed and stopped.
    Stopped,
}

const STOPPED: &str = "#stopped ";

fn comment(name: &str) -> String {
    format!("# {name}: written by `{name} -service`")
}

fn respawn(script: &str) -> String {
    format!("::respawn:{script}")
}

/// Reads it.
pub fn line(text: &str, script: &str) -> Line {
    let respawn = respawn(script);
    let found = text.lines().find_map(|line| match line.trim() {
        line if line == respawn => Some(Line::Runs),
        line if line.strip_prefix(STOPPED) == Some(&respawn) => Some(Line::Stopped),
        _ => None,
    });
    found.unwrap_or(Line::Absent)
}

/// The file with the service as wanted; every other line stays as it is.
pub fn with(text: &str, name: &str, script: &str, wanted: Line) -> String {
    if line(text, script) == wanted {
        return text.into();
    }
    let (comment, respawn) = (comment(name), respawn(script));
    let ours = |line: &&str| {
        let line = line.trim();
        line == comment || line == respawn || line.strip_prefix(STOPPED) == Some(&respawn)
    };
    let mut out: String = text.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n")).collect();
    match wanted {
        Line::Absent => {}
        Line::Runs => out.push_str(&format!("{comment}\n{respawn}\n")),
        Line::Stopped => out.push_str(&format!("{comment}\n{STOPPED}{respawn}\n")),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_lines_change() {
        let (name, script) = ("vmetric-agent", "/etc/vmetric/vmetric-agent.run");
        let text = "::sysinit:/etc/init.d/rcS\n::respawn:/etc/vmetric/vmetric-agent.run.old\n# mine";
        assert_eq!(line(text, script), Line::Absent);
        let runs = with(text, name, script, Line::Runs);
        assert!(runs.starts_with(text) && runs.ends_with("\n::respawn:/etc/vmetric/vmetric-agent.run\n"), "{runs}");
        assert_eq!((line(&runs, script), with(&runs, name, script, Line::Runs)), (Line::Runs, runs.clone()));
        let stopped = with(&runs, name, script, Line::Stopped);
        assert_eq!((line(&stopped, script), stopped.matches("respawn").count()), (Line::Stopped, 2));
        assert_eq!(with(&stopped, name, script, Line::Runs), runs);
        assert_eq!(with(&runs, name, script, Line::Absent), format!("{text}\n"));
    }
}
