//! `vmetric-fleet store`: check, backup, restore, migrate. Works on files and on etcd, not through a running Fleet.

use std::path::{Path, PathBuf};

use super::place::{Place, describe};
use crate::director::args::Words;
use crate::fleet::role::FLEET;
use crate::io::fs::remove_if_there;

/// What a backup of the store is not.
const BESIDE: &str = "the site's CA and certificates are files of their own: keep a copy of the state folder's pki/ with it";

/// Obeys `store ...`; `None` = another command. `state` is the environment's folder.
pub fn local(words: &[String], state: Option<String>) -> Option<Result<String, String>> {
    (words.first().map(String::as_str) == Some("store")).then(|| obey(Words { args: words[1..].to_vec() }, state))
}

fn obey(mut words: Words, state: Option<String>) -> Result<String, String> {
    let state = PathBuf::from(words.option("--state")?.or(state).unwrap_or(FLEET.state.into()));
    let own = state.join(FLEET.store);
    let (from, to) = (words.option("--from")?, words.option("--to")?);
    let place = |text: Option<String>, option: &str| match text {
        Some(text) => Place::parse(&text, &own),
        None => Err(format!("{option} is missing: fleet, redb:FILE or etcd:FILE.yml")),
    };
    let act = words.word()?.unwrap_or_default();
    let file = words.word()?;
    if let Some(rest) = words.args.first() {
        return Err(format!("unexpected '{rest}'"));
    }
    let named = || file.clone().ok_or_else(|| format!("store {act} needs a FILE"));
    match act.as_str() {
        "check" => match (file, from) {
            (Some(_), Some(_)) => Err("store check takes a backup's FILE or --from, not both".into()),
            (Some(file), None) => describe(Path::new(&file)),
            (None, from) => Place::parse(from.as_deref().unwrap_or("fleet"), &own)?.check(),
        },
        "backup" => {
            let file = named()?;
            let tally = Place::parse(from.as_deref().unwrap_or("fleet"), &own)?.backup(Path::new(&file), false)?;
            Ok(format!("{file}: {} rows\n{BESIDE}\n", tally.rows))
        }
        "restore" => {
            let (head, tally) = place(to, "--to")?.restore(Path::new(&named()?))?;
            Ok(format!("restored and compared: {} rows of {}\n{BESIDE}\n", tally.rows, head.from))
        }
        "migrate" => migrate(&place(from, "--from")?, &place(to, "--to")?, &state),
        _ => Err("expected `store check`, `store backup`, `store restore` or `store migrate`".into()),
    }
}

/// By a backup on the way, so that nothing is lost if it is interrupted.
fn migrate(from: &Place, to: &Place, state: &Path) -> Result<String, String> {
    if from == to {
        return Err("--from and --to are the same store".into());
    }
    let file = state.join("migration.backup");
    remove_if_there(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    // What Fleets share is moved; all else stays with each of them.
    let shared_only = matches!((from, to), (Place::Fleet(_), Place::Redb(_) | Place::Etcd(_)));
    from.backup(&file, shared_only)?;
    let (_, tally) = to.restore(&file)?;
    remove_if_there(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let left = if shared_only { "; the tables that Fleets do not share stay where they are (Directors, people, activity)" } else { "" };
    Ok(format!("migrated and compared: {} rows{left}\n", tally.rows))
}
