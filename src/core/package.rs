//! A Director's resources: what a package archive may hold, judged header by header, before anything is made of it.
//!
//! The archive is a tar of plain files and folders with one name each, packed by zstd or gzip. Of all that tar allows, only
//! what means the same to every reader is taken: ustar headers (and those of GNU tar that say no more), no extension that
//! gives a name or a size a second time, no links. A name is one file on every system, so a package that was made on one
//! unpacks to the same tree on another.
//!
//! | code | what did not hold |
//! |---|---|
//! | `package_format` | the file's name ends in `.tar.zst` or `.tar.gz`, and its bytes are that |
//! | `package_header` | a ustar header with its fields in their plain form |
//! | `package_type` | a regular file or a folder: no link, device, pipe, sparse file or extension |
//! | `package_name` | relative, no `..`, plain characters, no name that Windows keeps, not too long or too deep |
//! | `package_mode` | no set-user-ID, set-group-ID or sticky bit |
//! | `package_duplicate` | each name once, and none both a file and a folder |
//! | `package_collision` | no two names that differ in case only |
//! | `package_too_many`, `package_too_large` | files and bytes: those that were signed, at most [`ENTRIES_MAX`], [`UNPACKED_MAX`] |
//! | `package_bomb` | at most [`RATIO_MAX`] times the packed bytes |
//! | `package_truncated`, `package_trailing` | two zero blocks, zeros up to the end, and nothing behind the packed stream |

use std::collections::BTreeMap;

use super::hex::{Sha256, sha256};
use super::reason::Reason;

pub mod manifest;
pub mod summary;

/// The unit of tar.
pub const BLOCK: usize = 512;
/// Most files and folders, those that are only named by what is in them included: ten times the largest package known.
pub const ENTRIES_MAX: u64 = 20_000;
/// Most bytes of all files together: twice the largest artifact that a release may have.
pub const UNPACKED_MAX: u64 = 1024 * 1024 * 1024;
/// Longest name: with a state folder in front it stays within the 260 characters of old Windows programs.
pub const NAME_MAX: usize = 200;
/// Deepest folder.
pub const DEPTH_MAX: usize = 16;
/// Unpacked bytes for each packed one: tables of text pack 20 to 100 times, zeros 30,000 times.
pub const RATIO_MAX: u64 = 200;
/// What a small archive may unpack to, whatever its ratio.
pub const RATIO_FREE: u64 = 1024 * 1024;
/// Zeros behind the last entry: tar fills up to its blocking factor, 20 blocks unless somebody asks for more.
pub const PADDING_MAX: u64 = 64 * 1024;
/// How far back a zstd frame may refer, which is what it costs to unpack: what RFC 8878 asks every decoder to allow.
pub const WINDOW_MAX: u64 = 8 * 1024 * 1024;
/// The part of a message that is a name.
const SHOWN: usize = 120;

/// How an archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.tar.zst`
    Zstd,
    /// `.tar.gz`
    Gzip,
}

impl Format {
    /// Both names that a package can have in a release.
    pub const FILES: [&'static str; 2] = ["package.tar.zst", "package.tar.gz"];

    /// By the file's name.
    pub fn of(name: &str) -> Result<Format, Reason> {
        match name {
            _ if name.ends_with(".tar.zst") => Ok(Format::Zstd),
            _ if name.ends_with(".tar.gz") => Ok(Format::Gzip),
            _ => {
                Err(Reason::new("package_format", format!("{}: expected a name that ends in .tar.zst or .tar.gz", shown(name.as_bytes()))))
            }
        }
    }

    /// What such a file begins with.
    pub fn magic(self) -> &'static [u8] {
        match self {
            Format::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
            Format::Gzip => &[0x1f, 0x8b, 8],
        }
    }
}

/// What the release says that a package unpacks to; signed with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, without folders.
    pub files: u64,
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative, without a slash at either end.
    pub name: String,
    /// Folder, or file of so many bytes.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Its bytes.
        length: u64,
        /// Its owner may execute it.
        program: bool,
    },
}

/// Text of somebody else's for a message.
fn shown(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes).chars().take(SHOWN).collect::<String>())
}

/// Reads a header; `None` is the archive's own top folder, `./`.
///
/// # Errors
/// The first check that did not hold; its checksum is the caller's (the library compares it).
pub fn entry(header: &[u8; BLOCK]) -> Result<Option<Entry>, Reason> {
    let name = header_name(header)?;
    let refuse = |code, why: &str| Err(Reason::new(code, format!("{}: {why}", shown(&name))));
    let folder = match header[156] {
        b'0' => false,
        b'5' => true,
        b'1' | b'2' => return refuse("package_type", "is a link; put the file itself there"),
        b'3' | b'4' | b'6' => return refuse("package_type", "is a device or a pipe; a package holds files and folders"),
        b'x' | b'g' | b'L' | b'K' | b'S' | b'M' | b'D' | b'V' | b'N' => {
            let why = "is an extension of tar; make the archive with `vmetric-release package`, or with tar --format=ustar";
            return refuse("package_type", why);
        }
        _ => return refuse("package_type", "is neither a file nor a folder"),
    };
    if header[157..257].iter().any(|b| *b != 0) {
        return refuse("package_type", "leads to another name; put the file itself there");
    }
    let Some(length) = octal(&header[124..136]) else { return refuse("package_header", "its size is no octal number") };
    let Some(mode) = octal(&header[100..108]) else { return refuse("package_header", "its mode is no octal number") };
    if mode & 0o7000 != 0 {
        return refuse("package_mode", "has a set-user-ID, set-group-ID or sticky bit; take it away (chmod u-s,g-s,-t)");
    }
    if folder && length != 0 {
        return refuse("package_header", "is a folder with a size");
    }
    let text = std::str::from_utf8(&name).ok().filter(|n| folder || !n.ends_with('/'));
    let Some(text) = text else { return refuse("package_name", "is no name of a file") };
    let text = text.strip_prefix("./").unwrap_or(text);
    let text = if folder { text.strip_suffix('/').unwrap_or(text) } else { text };
    if folder && matches!(text, "" | ".") {
        return Ok(None);
    }
    check_name(text)?;
    let kind = if folder { Kind::Folder } else { Kind::File { length, program: mode & 0o100 != 0 } };
    Ok(Some(Entry { name: text.to_string(), kind }))
}

/// Both fields of a name. GNU's own form of the header has times where ustar has the second.
fn header_name(header: &[u8; BLOCK]) -> Result<Vec<u8>, Reason> {
    let until_zero = |field: &[u8]| field.split(|b| *b == 0).next().unwrap_or_default().to_vec();
    let name = until_zero(&header[..100]);
    let behind_zero = |field: &[u8]| field.iter().skip_while(|b| **b != 0).any(|b| *b != 0);
    if behind_zero(&header[..100]) || name.is_empty() {
        return Err(Reason::new("package_header", format!("{}: its name has something behind its end", shown(&name))));
    }
    match &header[257..265] {
        b"ustar\x0000" => {
            let prefix = until_zero(&header[345..500]);
            if behind_zero(&header[345..500]) {
                return Err(Reason::new("package_header", format!("{}: its name has something behind its end", shown(&name))));
            }
            Ok(if prefix.is_empty() { name } else { [prefix, name].join(&b'/') })
        }
        b"ustar  \0" if header[345..].iter().all(|b| *b == 0) => Ok(name),
        _ => Err(Reason::new("package_header", format!("{}: is no ustar header; make the archive with tar --format=ustar", shown(&name)))),
    }
}

/// Octal digits, filled up in front by spaces or zeros, ended by zeros or spaces. GNU's base-256 is none.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_end_matches(['\0', ' ']).trim_start_matches(' ');
    let digits = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    if digits { u64::from_str_radix(text, 8).ok() } else { None }
}

/// Names that Windows takes for a device, in every folder, with every ending and in every case.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or_default().trim_end_matches(' ').to_ascii_lowercase();
    let port = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
    let numbered = port.is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()));
    numbered || matches!(stem.as_str(), "aux" | "con" | "nul" | "prn" | "conin$" | "conout$" | "clock$")
}

/// Whether a name is one file of a package on every system: ASCII without what Windows forbids. Letters beyond it have
/// several spellings that macOS takes for one, and we have no table of them.
///
/// # Errors
/// `package_name`
pub fn check_name(name: &str) -> Result<(), Reason> {
    let refuse = |why: &str| Err(Reason::new("package_name", format!("{}: {why}", shown(name.as_bytes()))));
    if name.starts_with('/') || name.starts_with('\\') {
        return refuse("is an absolute path; names are relative to the package");
    }
    if name.len() > NAME_MAX {
        return refuse(&format!("is longer than {NAME_MAX} bytes"));
    }
    if name.split('/').count() > DEPTH_MAX {
        return refuse(&format!("lies deeper than {DEPTH_MAX} folders"));
    }
    for part in name.split('/') {
        if matches!(part, "" | "." | "..") {
            return refuse("has an empty part, '.' or '..' in it, which could lead out of the package");
        }
        if !part.bytes().all(|b| (b' '..=b'~').contains(&b) && !b"\\:*?\"<>|".contains(&b)) {
            return refuse("has a character that is not allowed; use ASCII without \\ : * ? \" < > |");
        }
        if part.ends_with(['.', ' ']) {
            return refuse("ends in a dot or a space, which Windows drops");
        }
        if is_device(part) {
            return refuse("is the name of a device on Windows");
        }
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct Seen {
    exact: Sha256,
    folder: bool,
    /// Named by its own entry, not only by what is in it.
    listed: bool,
}

/// What an archive has held so far, against what it may hold. Names are kept as hashes: about 100 bytes each, however long.
#[derive(Clone, Debug)]
pub struct Tally {
    declared: Option<Unpacked>,
    packed: u64,
    found: Unpacked,
    seen: BTreeMap<Sha256, Seen>,
}

impl Tally {
    /// For an archive of so many packed bytes. Without a declaration (before it is made) only the limits hold.
    ///
    /// # Errors
    /// The declaration itself is more than any package may be.
    pub fn new(packed: u64, declared: Option<Unpacked>) -> Result<Tally, Reason> {
        let tally = Tally { declared, packed, found: Unpacked::default(), seen: BTreeMap::new() };
        declared.map_or(Ok(()), |d| tally.within(d))?;
        Ok(tally)
    }

    fn within(&self, sum: Unpacked) -> Result<(), Reason> {
        let most = self.declared.unwrap_or(Unpacked { bytes: UNPACKED_MAX, files: ENTRIES_MAX });
        let (bytes, files) = (most.bytes.min(UNPACKED_MAX), most.files.min(ENTRIES_MAX));
        if sum.files > files {
            return Err(Reason::new("package_too_many", format!("more than {files} files; the release says how many there are")));
        }
        if sum.bytes > bytes {
            return Err(Reason::new(
                "package_too_large",
                format!("unpacks to more than {bytes} bytes; the release says how many they are"),
            ));
        }
        let most = self.packed.saturating_mul(RATIO_MAX).max(RATIO_FREE);
        if sum.bytes > most {
            let detail =
                format!("{} bytes unpack to {} and more, {RATIO_MAX} times as many are allowed; pack real data", self.packed, most);
            return Err(Reason::new("package_bomb", detail));
        }
        Ok(())
    }

    /// Counts an entry, before a byte of it is read.
    ///
    /// # Errors
    /// It is one too many, too large, or there is one of its name.
    pub fn admit(&mut self, entry: &Entry) -> Result<(), Reason> {
        if let Kind::File { length, .. } = entry.kind {
            let sum = Unpacked { bytes: self.found.bytes.saturating_add(length), files: self.found.files + 1 };
            self.within(sum)?;
            self.found = sum;
        }
        for (at, _) in entry.name.match_indices('/') {
            self.name(&entry.name[..at], true, false)?;
        }
        self.name(&entry.name, entry.kind == Kind::Folder, true)
    }

    fn name(&mut self, name: &str, folder: bool, listed: bool) -> Result<(), Reason> {
        let (folded, exact) = (sha256(name.to_ascii_lowercase().as_bytes()), sha256(name.as_bytes()));
        let refuse = |code, why: &str| Err(Reason::new(code, format!("{}: {why}", shown(name.as_bytes()))));
        let full = self.seen.len() as u64 >= ENTRIES_MAX;
        match self.seen.get_mut(&folded) {
            Some(seen) if seen.exact != exact => refuse("package_collision", "another name differs in case only"),
            Some(seen) if seen.folder != folder => refuse("package_duplicate", "is both a file and a folder"),
            Some(seen) if listed && (seen.listed || !folder) => refuse("package_duplicate", "comes twice"),
            Some(seen) => {
                seen.listed |= listed;
                Ok(())
            }
            None if full => refuse("package_too_many", &format!("more than {ENTRIES_MAX} names")),
            None => {
                self.seen.insert(folded, Seen { exact, folder, listed });
                Ok(())
            }
        }
    }

    /// At the end of the archive: what it held, exactly as declared.
    ///
    /// # Errors
    /// `package_truncated`: less than that.
    pub fn finish(self) -> Result<Unpacked, Reason> {
        match self.declared {
            Some(declared) if declared != self.found => {
                let detail = format!(
                    "holds {} files of {} bytes, the release says {} files of {} bytes",
                    self.found.files, self.found.bytes, declared.files, declared.bytes
                );
                Err(Reason::new("package_truncated", detail))
            }
            _ => Ok(self.found),
        }
    }
}

#[cfg(test)]
mod tests;
