//! Makes an archive of a folder, the same bytes for the same files: sorted, without dates, owners and modes of its own.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use ruzstd::encoding::{CompressionLevel, compress};
use tar::{Builder, EntryType, Header};

use crate::core::package::{Entry, Format, Kind, RATIO_MAX, Tally, UNPACKED_MAX, Unpacked, check_name};
use crate::core::reason::Reason;
use crate::io::fs::open_plain;

/// What a folder will be in an archive.
struct Found {
    path: PathBuf,
    entry: Entry,
}

/// Packs everything in a folder: the archive's bytes and what it unpacks to.
///
/// # Errors
/// What a device would refuse is refused here, with the file's name.
pub fn pack(folder: &Path, format: Format) -> Result<(Vec<u8>, Unpacked), Reason> {
    let mut found = Vec::new();
    scan(folder, "", &mut found)?;
    found.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    // The ratio shows when it is packed.
    let mut tally = Tally::new(UNPACKED_MAX / RATIO_MAX, None)?;
    found.iter().try_for_each(|f| tally.admit(&f.entry).map_err(|r| r.of(f.path.display())))?;
    let unpacked = tally.finish()?;
    if unpacked.files == 0 {
        return Err(Reason::new("package_truncated", format!("{}: holds no files", folder.display())));
    }
    let packed = match format {
        Format::Gzip => {
            // No name and no time in the header.
            let mut out: GzEncoder<Vec<u8>> = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
            write(&found, &mut out)?;
            out.finish().map_err(|e| Reason::new("package_format", e.to_string()))?
        }
        Format::Zstd => {
            // The encoder ends the program when its source fails, so it gets one that cannot.
            let mut tar = Vec::new();
            write(&found, &mut tar)?;
            let mut out = Vec::new();
            compress(tar.as_slice(), &mut out, CompressionLevel::Fastest);
            out
        }
    };
    // Through the same eyes as a device.
    super::measure(format, &packed)?;
    Ok((packed, unpacked))
}

fn failed(path: &Path, e: &io::Error) -> Reason {
    Reason::new("file_unreadable", format!("{}: {e}", path.display()))
}

fn scan(folder: &Path, prefix: &str, found: &mut Vec<Found>) -> Result<(), Reason> {
    for entry in fs::read_dir(folder).map_err(|e| failed(folder, &e))? {
        let path = entry.map_err(|e| failed(folder, &e))?.path();
        let bad = |why: &str| Reason::new("package_name", format!("{}: {why}", path.display()));
        let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| bad("is no plain text; rename it"))?;
        let name = format!("{prefix}{name}");
        check_name(&name).map_err(|r| r.of(path.display()))?;
        let meta = fs::symlink_metadata(&path).map_err(|e| failed(&path, &e))?;
        if meta.is_dir() {
            found.push(Found { path: path.clone(), entry: Entry { name: name.clone(), kind: Kind::Folder } });
            scan(&path, &format!("{name}/"), found)?;
        } else if meta.is_file() {
            #[cfg(unix)]
            let program = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o100 != 0;
            #[cfg(not(unix))]
            let program = false;
            found.push(Found { path, entry: Entry { name, kind: Kind::File { length: meta.len(), program } } });
        } else {
            return Err(Reason::new("package_type", format!("{}: is a link or a device; put the file itself there", path.display())));
        }
    }
    Ok(())
}

fn write(found: &[Found], out: &mut dyn Write) -> Result<(), Reason> {
    let mut tar = Builder::new(out);
    for Found { path, entry } in found {
        let mut header = Header::new_ustar();
        let (kind, length, mode) = match entry.kind {
            Kind::Folder => (EntryType::Directory, 0, 0o755),
            Kind::File { length, program } => (EntryType::Regular, length, if program { 0o755 } else { 0o644 }),
        };
        header.set_entry_type(kind);
        header.set_size(length);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let named = header.set_path(&entry.name);
        named.map_err(|e| Reason::new("package_name", format!("{}: {e}; shorten it", path.display())))?;
        header.set_cksum();
        let added = match entry.kind {
            Kind::Folder => tar.append(&header, io::empty()),
            Kind::File { length, .. } => open_plain(path).and_then(|file| {
                let now = file.metadata()?.len();
                match now == length {
                    true => tar.append(&header, file.take(length)),
                    false => Err(io::Error::new(io::ErrorKind::InvalidData, "changed while it was read")),
                }
            }),
        };
        added.map_err(|e| failed(path, &e))?;
    }
    tar.finish().map_err(|e| Reason::new("package_format", e.to_string()))
}
