//! The places where a device without an identity looks for its settings, and the tokens that are taken away from there.
//! Which of them counts is decided in [`crate::core::first_boot`].
//!
//! A file is read only if it is a plain one, not a link, and small; what it says is checked strictly. Its owner does not
//! matter: a stick has none. A token is overwritten where it stands, and synced: on a file system that overwrites in place
//! (ext4, FAT) its bytes are then gone from the medium. A removed or replaced file would leave them in a free block.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::state::State;
use crate::core::first_boot::{Forget, Found, Offer, Shown, Source, forget};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::wire::enroll_file::{self, ENROLL_FILE_MAX, MEDIUM_FILE, OWN_FILE};
use crate::wire::records::ShownWire;

/// Folders below which media are mounted, and how many levels deep (`/media/<user>/<name>`).
#[cfg(unix)]
const MEDIA: [(&str, u32); 4] = [("media", 2), ("run/media", 2), ("mnt", 1), ("boot", 1)];
/// Drives.
#[cfg(not(unix))]
const MEDIA: [(&str, u32); 4] = [("D:\\", 0), ("E:\\", 0), ("F:\\", 0), ("G:\\", 0)];
/// Most folders that are looked into: a stick full of mount points must not cost a device its time.
const FOLDERS_MAX: usize = 64;
/// Where the shown token is noted.
const SHOWN: &str = "config/enroll.shown";

/// What there is to be had without a network: the device's own file, the image's, `VMETRIC_CONFIG`, media. `root`: `/`.
pub fn local(state: &State, image: &Path, environment: Option<&str>, root: &Path) -> Vec<Offer> {
    let mut offers = vec![
        at(Source::State, &state.path("config").join(OWN_FILE)),
        at(Source::Image, &image.with_file_name(OWN_FILE)),
        from_environment(environment),
    ];
    let media: Vec<Offer> = media(root).iter().map(|path| at(Source::Medium, path)).filter(|o| o.found != Found::Absent).collect();
    if media.is_empty() {
        let below: Vec<&str> = MEDIA.iter().map(|(folder, _)| *folder).collect();
        offers.push(Offer {
            source: Source::Medium,
            name: format!("{MEDIUM_FILE} on a medium ({})", below.join(", ")),
            found: Found::Absent,
        });
    }
    offers.extend(media);
    offers
}

fn at(source: Source, path: &Path) -> Offer {
    Offer { source, name: path.display().to_string(), found: read(path) }
}

fn from_environment(value: Option<&str>) -> Offer {
    let name = |rest: &str| format!("VMETRIC_CONFIG{rest}");
    match value.map(str::trim) {
        None => Offer { source: Source::Environment, name: name(""), found: Found::Absent },
        Some(text) if text.starts_with('{') => {
            let found = enroll_file::parse(text.as_bytes()).map_or_else(Found::Bad, Found::Settings);
            Offer { source: Source::Environment, name: name(""), found }
        }
        // A path that is not there is a mistake, not an absence.
        Some(path) if Path::new(path).is_absolute() => match read(Path::new(path)) {
            Found::Absent => bad_environment(name(&format!("={path}")), "there is no such file"),
            found => Offer { source: Source::EnvironmentFile, name: path.to_string(), found },
        },
        // Its value may be a token that somebody put there.
        Some(_) => bad_environment(name(""), "expected a JSON object or the absolute path of a file with one"),
    }
}

fn bad_environment(name: String, why: &str) -> Offer {
    Offer { source: Source::Environment, name, found: Found::Bad(Reason::new("bad_enroll_file", why)) }
}

/// The file's name in each folder where a medium may be mounted; links are passed by.
fn media(root: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<(PathBuf, u32)> = MEDIA.iter().map(|(folder, depth)| (root.join(folder), *depth)).collect();
    let mut files = Vec::new();
    let mut next = 0;
    while next < folders.len() && next < FOLDERS_MAX {
        let (folder, depth) = folders[next].clone();
        next += 1;
        files.push(folder.join(MEDIUM_FILE));
        if depth > 0 {
            let entries = fs::read_dir(&folder).into_iter().flatten().take(FOLDERS_MAX).flatten();
            let mut below: Vec<PathBuf> = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
            below.sort();
            folders.extend(below.into_iter().map(|path| (path, depth - 1)));
        }
    }
    files
}

/// What a file says.
fn read(path: &Path) -> Found {
    let bad = |why: String| Found::Bad(Reason::new("bad_enroll_file", why));
    let file = match open(path, false) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Found::Absent,
        Err(e) => return bad(e.to_string()),
    };
    match bytes(&file) {
        // What is left of a file that had to be overwritten whole.
        Ok(bytes) if bytes.trim_ascii().is_empty() => Found::Absent,
        Ok(bytes) => enroll_file::parse(&bytes).map_or_else(Found::Bad, Found::Settings),
        Err(e) => bad(e.to_string()),
    }
}

/// Opens a plain file, never through a link.
fn open(path: &Path, write: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    // FILE_FLAG_OPEN_REPARSE_POINT: the link itself, which is no plain file.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, 0x0020_0000);
    let file = options.open(path)?;
    match file.metadata()?.file_type().is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "is no plain file")),
    }
}

fn bytes(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(ENROLL_FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Notes, durably, that a token is about to be shown which is in a file of somebody else's. One note: the last.
///
/// # Errors
/// That of the file.
pub fn note_shown(state: &State, offer: &Offer, token: &str) -> Result<(), Reason> {
    if !matches!(offer.source, Source::Image | Source::EnvironmentFile | Source::Medium) {
        return Ok(());
    }
    let wire = ShownWire { file: offer.name.clone(), sha256: hex::encode(&hex::sha256(token.as_bytes())) };
    match state.read::<ShownWire>(SHOWN) {
        Ok(Some(noted)) if noted == wire => Ok(()),
        _ => state.write(SHOWN, &wire),
    }
}

/// With an identity: takes the tokens away that this device has no more use for. Repeated at each start until all are gone.
/// Says what could not be done, with the remedy.
pub fn forget_tokens(state: &State) -> Vec<Reason> {
    let mut left = Vec::new();
    let own = state.path("config").join(OWN_FILE);
    left.extend(wipe(Source::State, &own, None).err());
    let Ok(Some(wire)) = state.read::<ShownWire>(SHOWN) else { return left };
    let Some(sha256) = hex::decode(&wire.sha256) else { return left };
    let shown = Shown { file: wire.file, sha256 };
    let file = Path::new(&shown.file);
    // A medium that was pulled out may come back.
    if fs::symlink_metadata(file).is_ok() {
        left.extend(wipe(Source::Medium, file, Some(&shown)).and_then(|()| state.remove(SHOWN)).err());
    }
    left
}

fn wipe(source: Source, path: &Path, shown: Option<&Shown>) -> Result<(), Reason> {
    let found = read(path);
    let what = forget(source, &found, true, shown.map(|s| &s.sha256));
    if what == Forget::Leave {
        return Ok(());
    }
    overwrite(path, &found, what).map_err(|e| {
        let detail = format!("{}: still holds the enrollment token: {e}; overwrite it by hand, or revoke the token", path.display());
        Reason::new("token_left", detail)
    })
}

fn overwrite(path: &Path, found: &Found, what: Forget) -> io::Result<()> {
    #[cfg(test)]
    super::fs::cut::spend()?;
    let mut file = open(path, true)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let blank = match (found, what) {
        (Found::Settings(said), Forget::Token) => enroll_file::without_token(said, length),
        // Longer than any of ours: its beginning, where a token would be.
        _ => vec![b' '; length.min(1 << 20)],
    };
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&blank)?;
    file.sync_all()
}

#[cfg(test)]
#[cfg(unix)]
#[expect(clippy::disallowed_methods, reason = "the tests make files")]
mod tests {
    use super::*;

    const DOCUMENT: &str = "{\"format\":1,\"director\":\"https://d:1\",\"token\":\"t0ken\"}";

    fn device() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("s")).unwrap();
        (dir, state)
    }

    fn token(offer: &Offer) -> Option<String> {
        match &offer.found {
            Found::Settings(said) => said.token.clone(),
            _ => None,
        }
    }

    #[test]
    fn every_place_is_looked_at_in_order() {
        let (dir, state) = device();
        let image = dir.path().join("image/vmetric-agent");
        let offers = local(&state, &image, None, dir.path());
        assert_eq!(offers.len(), 4);
        assert!(offers.iter().all(|o| o.found == Found::Absent));
        for folder in ["image", "media/user/STICK", "mnt/a", "boot/firmware", "run/media/u"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("s/config/enroll.json"), DOCUMENT).unwrap();
        fs::write(dir.path().join("image/enroll.json"), DOCUMENT).unwrap();
        for medium in ["media/user/STICK", "mnt/a", "boot/firmware"] {
            fs::write(dir.path().join(medium).join(MEDIUM_FILE), DOCUMENT).unwrap();
        }
        let offers = local(&state, &image, Some(DOCUMENT), dir.path());
        let sources: Vec<Source> = offers.iter().map(|o| o.source).collect();
        assert_eq!(sources, [Source::State, Source::Image, Source::Environment, Source::Medium, Source::Medium, Source::Medium]);
        assert!(offers.iter().all(|o| token(o).as_deref() == Some("t0ken")), "{offers:?}");
        assert!(offers[3..].iter().any(|o| o.name.ends_with("media/user/STICK/vmetric-enroll.json")), "{offers:?}");
    }

    #[test]
    fn links_pipes_and_large_files_are_not_read() {
        let (dir, state) = device();
        let media = dir.path().join("media");
        fs::create_dir_all(media.join("real")).unwrap();
        fs::write(media.join("real/other.json"), DOCUMENT).unwrap();
        std::os::unix::fs::symlink("other.json", media.join("real").join(MEDIUM_FILE)).unwrap();
        std::os::unix::fs::symlink("real", media.join("linked")).unwrap();
        let offers = local(&state, dir.path(), None, dir.path());
        let bad: Vec<&Offer> = offers.iter().filter(|o| matches!(o.found, Found::Bad(_))).collect();
        assert!(bad.len() == 1 && bad[0].name.contains("real"), "a linked folder is passed by, a linked file is told: {offers:?}");
        for (name, bytes) in [("large", vec![b'x'; 5_000]), ("folder", vec![])] {
            let path = state.path("config").join(OWN_FILE);
            if name == "folder" {
                fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).unwrap()
            } else {
                fs::write(&path, bytes).unwrap()
            }
            assert!(matches!(local(&state, dir.path(), None, dir.path())[0].found, Found::Bad(_)), "{name}");
        }
        let many = dir.path().join("mnt");
        (0..200).for_each(|n| fs::create_dir_all(many.join(n.to_string())).unwrap());
        assert!(super::media(dir.path()).len() <= FOLDERS_MAX);
    }

    #[test]
    fn the_environment_is_a_document_or_a_path() {
        let (dir, _) = device();
        let path = dir.path().join("e.json");
        let path = path.to_str().unwrap();
        assert!(matches!(from_environment(Some(path)).found, Found::Bad(_)));
        fs::write(path, DOCUMENT).unwrap();
        let offer = from_environment(Some(path));
        assert_eq!((offer.source, token(&offer).as_deref(), offer.name.as_str()), (Source::EnvironmentFile, Some("t0ken"), path));
        let offer = from_environment(Some("s3cret"));
        assert!(matches!(&offer.found, Found::Bad(reason) if !reason.detail.contains("s3cret")) && !offer.name.contains("s3cret"));
    }

    #[test]
    fn tokens_are_overwritten_in_place_and_only_what_was_shown_from_elsewhere() {
        use std::os::unix::fs::MetadataExt;
        let (dir, state) = device();
        let (own, stick) = (state.path("config").join(OWN_FILE), dir.path().join(MEDIUM_FILE));
        fs::write(&own, DOCUMENT).unwrap();
        fs::write(&stick, DOCUMENT).unwrap();
        let inode = fs::metadata(&own).unwrap().ino();
        assert!(forget_tokens(&state).is_empty());
        let text = fs::read_to_string(&own).unwrap();
        assert!(!text.contains("t0ken") && text.contains("https://d:1") && text.len() == DOCUMENT.len(), "{text}");
        assert_eq!(fs::metadata(&own).unwrap().ino(), inode, "the same blocks");
        assert_eq!(fs::read_to_string(&stick).unwrap(), DOCUMENT, "another device's");

        let offer = at(Source::Medium, &stick);
        note_shown(&state, &offer, "t0ken").unwrap();
        assert!(!fs::read_to_string(state.path(SHOWN)).unwrap().contains("t0ken"));
        // The stick was pulled out: another file with another token is left alone, and there is nothing to tell.
        fs::write(&stick, DOCUMENT.replace("t0ken", "other")).unwrap();
        assert!(forget_tokens(&state).is_empty() && fs::read_to_string(&stick).unwrap().contains("other"));
        note_shown(&state, &offer, "t0ken").unwrap();
        fs::remove_file(&stick).unwrap();
        assert!(forget_tokens(&state).is_empty() && state.path(SHOWN).exists(), "it may come back");
        fs::write(&stick, DOCUMENT).unwrap();
        assert!(forget_tokens(&state).is_empty() && !state.path(SHOWN).exists());
        assert!(!fs::read_to_string(&stick).unwrap().contains("t0ken"));
        // One whose overwriting was cut off.
        fs::write(&own, &DOCUMENT[..50]).unwrap();
        assert!(forget_tokens(&state).is_empty());
        assert_eq!(fs::read_to_string(&own).unwrap().trim(), "");
    }
}
