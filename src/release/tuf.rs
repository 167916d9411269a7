//! `tuf`: the device's verification code on anybody's TUF repository, with the command line that TUF tools use.
//!
//! ```text
//!  tuf --metadata-dir D init ROOT                               copies the trusted root, asks nobody
//!  tuf --metadata-dir D --metadata-url U refresh                N+1.root, timestamp, snapshot, targets
//!  tuf ... --target-name P --target-dir T --target-base-url B download   the same, delegated roles on the way, the file
//! ```
//!
//! For hand use and for public test suites. What differs from a device: ECDSA and RSA keys count too, documents may have
//! their members in any order, plain HTTP is fine (all that is used is signed), and the clock is the local one, shifted by `FAKETIME=+SECONDS`: a static binary cannot be
//! preloaded. Exit code 0 or 1, one line of reason on standard error.

mod fetch;
mod folder;

use std::path::Path;

use super::args::Parsed;
use super::cli::{Answer, World};
use super::failure::{Failure, Result};
use super::files;
use super::json::{list, number, object, text};
use crate::core::hex;
use crate::core::trust::{Fetched, Goal, Now, Outcome, ROOT_MAX, Refresh, TargetFile, Trusted, Want, quoted};
use fetch::Source;
use folder::{Metadata, Targets};

/// Longest list of mapped libraries that is looked through, bytes.
const MAPS_MAX: u64 = 1 << 20;

/// Runs the command. A wrong command line is an ordinary failure here: test suites know the exit codes 0 and 1.
pub fn run(parsed: &Parsed, world: &World, now: u64) -> Result<Answer> {
    let answer = match parsed.operands.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["init", root] => init(parsed, Path::new(root)),
        ["refresh"] => refresh(parsed, shifted(now, world)?),
        ["download"] => download(parsed, shifted(now, world)?),
        _ => Err(Failure::usage("expected 'init ROOT', 'refresh' or 'download'; see 'vmetric-release tuf --help'")),
    };
    answer.map_err(plain)
}

/// Exit code 1, on one line: names of roles and targets come from the repository and may hold anything.
pub fn plain(failure: Failure) -> Failure {
    let code = if failure.exit() == 2 { "tuf_usage" } else { failure.code };
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    Failure::new(code, failure.text.chars().map(shown).collect::<String>())
}

fn init(parsed: &Parsed, root: &Path) -> Result<Answer> {
    let bytes = files::read(root, ROOT_MAX)?;
    Metadata::at(parsed)?.put("root", &bytes)?;
    Ok(Answer::new(format!("trusted root: {}", root.display()), object([("root", text(root.display().to_string()))])))
}

fn refresh(parsed: &Parsed, now: Now) -> Result<Answer> {
    let folder = Metadata::at(parsed)?;
    let trusted = folder.load()?;
    let source = Source::new("metadata-url", parsed.need("metadata-url")?)?;
    let trusted = drive(Refresh::new(trusted, now, Goal::TopLevel), &source, &folder)?;
    let roles: Vec<_> = ["root", "timestamp", "snapshot", "targets"].into_iter().zip(trusted.versions()).collect();
    let shown: Vec<String> = roles.iter().map(|(role, version)| format!("{role} {version}")).collect();
    Ok(Answer::new(shown.join(", "), object(roles.into_iter().map(|(role, version)| (role, number(version))))))
}

/// "5.7 Fetch target", for each name; the metadata is refreshed once.
fn download(parsed: &Parsed, now: Now) -> Result<Answer> {
    let names = parsed.all("target-name");
    let Some(first) = names.first() else { return Err(Failure::usage("--target-name is missing; see 'vmetric-release tuf --help'")) };
    let (folder, targets) = (Metadata::at(parsed)?, Targets::at(Path::new(parsed.need("target-dir")?)));
    let trusted = folder.load()?;
    let source = Source::new("metadata-url", parsed.need("metadata-url")?)?;
    let files = Source::new("target-base-url", parsed.need("target-base-url")?)?;
    let mut trusted = drive(Refresh::new(trusted, now, Goal::FindPath(first.clone())), &source, &folder)?;
    let mut written = Vec::new();
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            trusted = drive(Refresh::search(trusted, now, name), &source, &folder)?;
        }
        let file = trusted.target(name).map_err(refused)?;
        let path = targets.path(name);
        if !targets.has(&path, name, &file) {
            let address = address(name, &file, trusted.consistent_snapshot());
            let mut body = files.open(&address, file.length)?.ok_or_else(|| missing(&files, &address))?;
            targets.write(&path, name, file, &mut body)?;
        }
        written.push(path.display().to_string());
    }
    Ok(Answer::new(written.join("\n"), object([("files", list(written.iter().map(text)))])))
}

/// Fetches what the refresh wants and keeps what it trusts, until it is over.
fn drive(mut refresh: Refresh, source: &Source, folder: &Metadata) -> Result<Trusted> {
    while let Want::Fetch(wanted) = refresh.want() {
        let bytes = source.read(&wanted.name, wanted.limit)?;
        let given = refresh.give(bytes.as_deref().map_or(Fetched::NotFound, Fetched::Bytes));
        for step in given.map_err(refused)? {
            match &step.bytes {
                Some(bytes) => folder.put(&step.role, bytes)?,
                None => folder.remove(&step.role)?,
            }
        }
    }
    let (trusted, outcome): (Trusted, Outcome) = refresh.finish();
    outcome.refused.map_or(Ok(trusted), |refusal| Err(refused(refusal)))
}

fn refused(refusal: crate::core::trust::Refusal) -> Failure {
    Failure::new(refusal.code, refusal.to_string())
}

fn missing(source: &Source, address: &str) -> Failure {
    Failure::new("target_missing", format!("{}: there is no such file, although it is signed", source.join(address)))
}

/// "6.2 Consistent snapshots": `dir/HASH.name`, each part percent-quoted.
fn address(name: &str, file: &TargetFile, consistent: bool) -> String {
    let (folder, last) = name.rsplit_once('/').map_or((None, name), |(folder, last)| (Some(folder), last));
    let hash = file.sha256.map(|h| hex::encode(&h)).or(file.sha512.map(|h| hex::encode(&h))).filter(|_| consistent);
    let last = hash.map_or(quoted(last), |hash| format!("{hash}.{}", quoted(last)));
    let folder = folder.map(|folder| folder.split('/').map(quoted).collect::<Vec<_>>().join("/") + "/");
    folder.unwrap_or_default() + &last
}

/// The clock of this command. Only signed times raise it, as on a device.
fn shifted(now: u64, world: &World) -> Result<Now> {
    let text = (world.env)("FAKETIME").filter(|text| !text.is_empty() && !preloaded());
    let bad = |text: &str| Failure::new("bad_faketime", format!("FAKETIME={text}: expected +SECONDS or -SECONDS"));
    let shift = text.map(|text| offset(&text).ok_or_else(|| bad(&text))).transpose()?.unwrap_or(0);
    Ok(Now { unix: now.saturating_add_signed(shift), ..Now::default() })
}

/// Did faketime shift the clock of this process already? Only a program that is linked dynamically lets it.
fn preloaded() -> bool {
    let maps = files::read(Path::new("/proc/self/maps"), MAPS_MAX);
    maps.is_ok_and(|maps| String::from_utf8_lossy(&maps).contains("libfaketime"))
}

/// `+90`, `-90`, and the letters that faketime knows: `+90s +15m +2h +30d +1y`.
fn offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let digits = rest.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &rest[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "y" => 31_536_000,
        _ => return None,
    };
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok()).flatten();
    number?.checked_mul(sign * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_as_faketime_writes_them() {
        let cases = [("+1", Some(1)), ("-90", Some(-90)), ("+30d", Some(2_592_000)), ("7", Some(7)), ("+2h", Some(7200)), ("+0", Some(0))];
        for (text, expected) in cases {
            assert_eq!(offset(text), expected, "{text}");
        }
        for text in ["", "+", "d", "+-1", "++1", "+1.5d", "@2026-01-01", "+9223372036854775807d", "99999999999999999999", "+1w", "é"] {
            assert_eq!(offset(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_carry_the_hash_in_the_last_part() {
        let file = TargetFile { length: 1, sha256: Some([0xab; 32]), sha512: None };
        let hash = "ab".repeat(32);
        assert_eq!(address("a/b c/d", &file, true), format!("a/b%20c/{hash}.d"));
        assert_eq!(address("d", &file, true), format!("{hash}.d"));
        assert_eq!(address("a/d%", &file, false), "a/d%25");
        let file = TargetFile { length: 1, sha256: None, sha512: Some([1; 64]) };
        assert_eq!(address("d", &file, true), format!("{}.d", "01".repeat(64)));
    }

    #[test]
    fn reasons_are_one_line_and_exit_code_1() {
        let failure = plain(Failure::usage("a\nb\u{1b}[2J"));
        assert_eq!((failure.exit(), failure.text.as_str()), (1, "a\\nb\\u{1b}[2J"));
    }
}
