//! What a process runs with: the file, and the command line, which wins.

use std::path::{Path, PathBuf};

use super::problem::reason;
use super::{Config, find};
use crate::core::hex::{self, Sha256};
use crate::core::reason::Reason;
use crate::director::args::Run;
use crate::director::mirror::Source;
use crate::director::pki::company::Files;
use crate::io::fs::{make_folder, read_limited, write_durable};

/// The last file that was valid, below the state folder: a typing error must not keep a Director down at its next start.
const GOOD: &str = "config/vmetric.good.yml";
/// Only its owner reads it, as it may name what the file's reader may not know.
const GOOD_MODE: u32 = 0o600;

/// The settings of a running Director, and where they come from.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// What is in force of it.
    pub config: Config,
    /// Hash of the text in force.
    pub hash: Option<Sha256>,
    /// Why the file is not in force as it is now.
    pub problem: Option<Reason>,
    /// What a person should know: fields that the command line overrules, and those that wait for a restart.
    pub notes: Vec<String>,
}

/// Reads the file that counts, and completes what the command line left open.
///
/// # Errors
/// The file is not valid, and none was before.
pub fn resolve(given: &Run) -> Result<(Run, Settings), String> {
    let Some(file) = given.config.clone().or_else(|| find::found(&given.state)) else {
        return Ok((given.clone(), Settings::default()));
    };
    let settings = match Config::read(&file) {
        Ok((config, bytes)) => {
            keep(&given.state, &file, &bytes);
            Settings { config, hash: Some(hex::sha256(&bytes)), ..Settings::default() }
        }
        Err(problems) => {
            let listed = || format!("not valid\n{}", super::problem::listed(&file, &problems));
            let (config, hash) = kept(&given.state, &file).ok_or_else(listed)?;
            Settings { config, hash: Some(hash), problem: Some(reason(&file, &problems)), ..Settings::default() }
        }
    };
    let notes = overruled(given, &settings.config);
    Ok((merged(given, &settings.config), Settings { file: Some(file), notes, ..settings }))
}

/// What a start would ask for at once, for who installs a service.
pub fn lacks(given: &Run) -> Option<String> {
    let configured = given.config.is_some() || find::found(&given.state).is_some();
    let text = "run needs --root, or `root:` in a vmetric.yml: the root.json that `vmetric-release init` made";
    (given.root.is_none() && !configured).then(|| text.to_string())
}

/// The command line, and the file's values where it says nothing.
pub fn merged(given: &Run, config: &Config) -> Run {
    let mut run = given.clone();
    if run.listen.is_empty() {
        run.listen = config.listen.iter().map(|a| a.value).collect();
    }
    run.name = run.name.or_else(|| Some(config.name.as_ref()?.value.clone()));
    run.root = run.root.or_else(|| Some(config.root.as_ref()?.value.clone()));
    if run.mirror.is_none()
        && let Some(mirror) = &config.mirror
    {
        run.mirror = Some(mirror.from.value.clone());
        run.mirror_pin = mirror.pin.as_ref().map(|p| p.value);
    }
    let files = config.tls.as_ref().map(|(c, k)| Files { certificate: c.value.clone(), key: k.value.clone() });
    run.tls = run.tls.or(files);
    run
}

/// Where releases come from, of such a run.
pub fn source(run: &Run) -> Source {
    match &run.mirror {
        None => Source::Nowhere,
        Some(url) if url.starts_with("https://") => Source::Url(url.clone(), run.mirror_pin.into_iter().collect()),
        Some(folder) => Source::Folder(folder.into()),
    }
}

/// Which fields of the file have no effect beside these options.
pub fn overruled(given: &Run, config: &Config) -> Vec<String> {
    [
        ("listen", !given.listen.is_empty() && !config.listen.is_empty()),
        ("name", given.name.is_some() && config.name.is_some()),
        ("root", given.root.is_some() && config.root.is_some()),
        ("mirror", given.mirror.is_some() && config.mirror.is_some()),
        ("tls", given.tls.is_some() && config.tls.is_some()),
    ]
    .into_iter()
    .filter(|(_, both)| *both)
    .map(|(name, _)| format!("{name}: the command line's value counts, not the file's"))
    .collect()
}

/// What differs between two configurations: names, and whether each takes a restart.
pub fn changed(before: &Config, now: &Config) -> Vec<(&'static str, bool)> {
    [
        ("name", before.name != now.name, true),
        ("listen", before.listen != now.listen, true),
        ("root", before.root != now.root, true),
        ("tls", before.tls != now.tls, true),
        ("fleet", before.fleet != now.fleet, false),
        ("cluster", before.members != now.members, false),
        ("mirror", before.mirror != now.mirror, false),
        ("time_zone", before.time_zone != now.time_zone, false),
        ("update", before.update != now.update, false),
        ("agents.update", before.agents_update != now.agents_update, false),
        ("retention", before.retention != now.retention, false),
        ("limits", before.limits != now.limits, false),
    ]
    .into_iter()
    .filter_map(|(name, differs, restart)| differs.then_some((name, restart)))
    .collect()
}

/// Keeps a copy of what is in force. Without it a start with an invalid file fails, which is no reason to fail now.
pub fn keep(state: &Path, file: &Path, bytes: &[u8]) {
    let path = state.join(GOOD);
    let text = [head(file).as_bytes(), bytes].concat();
    if read_limited(&path, 2 * super::FILE_MAX).ok().flatten().as_deref() == Some(&text) {
        return;
    }
    let folder = path.parent().map_or(Ok(()), make_folder);
    if let Err(e) = folder.and_then(|()| write_durable(&path, &text, GOOD_MODE)) {
        log::warn!("{}: {e}; an invalid configuration at the next start would keep this Director from starting", path.display());
    }
}

/// The copy of the same file. A newer version's may have names that this one does not know; they are left out rather than
/// the Director.
fn kept(state: &Path, file: &Path) -> Option<(Config, Sha256)> {
    let text = read_limited(&state.join(GOOD), 2 * super::FILE_MAX).ok()??;
    let bytes = text.strip_prefix(head(file).as_bytes())?;
    Some((Config::parse(bytes).ok().or_else(|| Config::parse_known(bytes))?, hex::sha256(bytes)))
}

fn head(file: &Path) -> String {
    format!("# {:?} as it was valid last; read only where that file is not\n", file.display().to_string())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write files")]
mod tests {
    use super::*;

    fn given(state: &Path) -> Run {
        Run { state: state.into(), ..Run::default() }
    }

    #[test]
    fn the_command_line_wins_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let (run, settings) = resolve(&given(state)).unwrap();
        assert_eq!((run, settings.file), (given(state), None));
        let text = "name: file\nlisten: 127.0.0.1:1\nroot: /r\nmirror: {from: /m}\ntls: {certificate: /c, key: /k}\n";
        std::fs::write(state.join("vmetric.yml"), text).unwrap();
        let (run, settings) = resolve(&given(state)).unwrap();
        assert_eq!((run.name.as_deref(), run.listen.len(), run.mirror.as_deref()), (Some("file"), 1, Some("/m")));
        assert_eq!((run.root.unwrap(), run.tls.is_some(), settings.notes.len()), (PathBuf::from("/r"), true, 0));
        assert_eq!(settings.file, Some(state.join("vmetric.yml")));
        let mut words = given(state);
        (words.name, words.listen, words.mirror) = (Some("word".into()), vec!["127.0.0.1:2".parse().unwrap()], Some("/other".into()));
        let (run, settings) = resolve(&words).unwrap();
        assert_eq!((run.name.as_deref(), run.listen[0].port(), run.mirror.as_deref()), (Some("word"), 2, Some("/other")));
        assert_eq!(settings.notes.len(), 3, "{:?}", settings.notes);
    }

    #[test]
    fn an_invalid_file_keeps_what_was_valid_and_a_first_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (state, file) = (folder.path(), folder.path().join("own.yml"));
        let run = Run { config: Some(file.clone()), ..given(state) };
        assert!(resolve(&run).unwrap_err().contains("no such file"), "a file that is named must be there");
        std::fs::write(&file, "nme: a\n").unwrap();
        assert!(resolve(&run).unwrap_err().contains("own.yml:1: nme: found an unknown field; did you mean `name`?"));
        std::fs::write(&file, "name: a\nupdate: {mode: manual}\n").unwrap();
        assert!(resolve(&run).unwrap().1.problem.is_none());
        std::fs::write(&file, "name: b\nupdate: {mode: of}\n").unwrap();
        let (run_with, settings) = resolve(&run).unwrap();
        assert_eq!(run_with.name.as_deref(), Some("a"));
        assert!(settings.config.update.is_some_and(|u| u.mode() == "manual"));
        assert!(settings.problem.is_some_and(|p| p.code == "config_invalid" && p.detail.contains("own.yml:2: update.mode")));
        // Not another file's.
        let other = Run { config: Some(folder.path().join("other.yml")), ..given(state) };
        assert!(resolve(&other).is_err());
        // What a newer version kept is read by this one as far as it knows it.
        std::fs::write(state.join(GOOD), head(&file) + "newer: 1\nname: c\n").unwrap();
        assert_eq!(resolve(&run).unwrap().0.name.as_deref(), Some("c"));
    }

    #[test]
    fn moved_lines_are_no_change() {
        let parse = |text: &str| Config::parse(text.as_bytes()).unwrap();
        let before = parse("name: a\nupdate: {mode: manual}\n");
        assert_eq!(changed(&before, &parse("# c\n\nupdate:\n  mode: manual\nname: a\n")), []);
        let now = parse("name: b\nupdate: {mode: auto, method: user_action, version: latest}\nlimits: {downloads: 3}\n");
        assert_eq!(changed(&before, &now), [("name", true), ("update", false), ("limits", false)]);
    }
}
