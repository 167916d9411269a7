//! `slots/<slot>/package.json`'s neighbour, `package.list`: which files an unpacked package has, with their hashes.
//!
//! Text, one file a line, in the order of the archive: it is written while the archive is unpacked, and read while the tree
//! is compared, without ever being in memory whole. `slot.json` names its SHA-256, so that one hash binds binary and tree.
//!
//! ```text
//! vmetric-package 1
//! target vmetric-director/2.5.0/linux-amd64/package.tar.zst
//! length 5021
//! sha256 <64 digits>
//! build_keyid <64 digits>
//! build_sig <128 digits>
//! unpacked <bytes> <files>
//!
//! <sha256> - 123 lookups/ports.csv
//! <sha256> x 4096 tools/geo
//! ```

use super::{NAME_MAX, Unpacked, check_name};
use crate::core::hex::{self, Sha256};
use crate::core::reason::Reason;
use crate::core::release::Artifact;

/// The first line.
pub const FIRST: &str = "vmetric-package 1";
/// Longest line: hash, word, 20 digits, name. The header's are shorter.
pub const LINE_MAX: usize = 64 + 1 + 1 + 1 + 20 + 1 + NAME_MAX;

/// What the manifest says of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The archive.
    pub artifact: Artifact,
    /// What it unpacks to.
    pub unpacked: Unpacked,
}

/// One file of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub length: u64,
    /// Of them.
    pub sha256: Sha256,
    /// It may be executed.
    pub program: bool,
}

impl Head {
    /// The first lines, with the empty one behind them.
    pub fn text(&self) -> String {
        let a = &self.artifact;
        format!(
            "{FIRST}\ntarget {}\nlength {}\nsha256 {}\nbuild_keyid {}\nbuild_sig {}\nunpacked {} {}\n\n",
            a.path,
            a.length,
            hex::encode(&a.sha256),
            a.build_keyid,
            hex::encode(&a.build_sig),
            self.unpacked.bytes,
            self.unpacked.files
        )
    }

    /// From the lines up to the empty one.
    ///
    /// # Errors
    /// `package_damaged`, with the field.
    pub fn parse(lines: &[String]) -> Result<Head, Reason> {
        let [first, rest @ ..] = lines else { return Err(damaged("the first line is missing")) };
        if first != FIRST {
            return Err(damaged("the first line is that of another file"));
        }
        let field = |name: &str| {
            let mut found = rest.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            found.next().ok_or_else(|| damaged(&format!("field {name} is missing")))
        };
        let number = |name: &str, text: &str| text.parse::<u64>().map_err(|_| damaged(&format!("field {name} is no number")));
        let (bytes, files) = field("unpacked")?.split_once(' ').ok_or_else(|| damaged("field unpacked is no pair"))?;
        Ok(Head {
            artifact: Artifact {
                path: field("target")?.parse().map_err(|e: String| damaged(&e))?,
                length: number("length", field("length")?)?,
                sha256: hex::decode(field("sha256")?).ok_or_else(|| damaged("field sha256 is no SHA-256"))?,
                min_version: None,
                counter: 0,
                build_keyid: field("build_keyid")?.to_string(),
                build_sig: hex::decode(field("build_sig")?).ok_or_else(|| damaged("field build_sig is no signature"))?,
            },
            unpacked: Unpacked { bytes: number("unpacked", bytes)?, files: number("unpacked", files)? },
        })
    }
}

impl Line {
    /// With its newline.
    pub fn text(&self) -> String {
        format!("{} {} {} {}\n", hex::encode(&self.sha256), if self.program { 'x' } else { '-' }, self.length, self.name)
    }

    /// Without its newline.
    ///
    /// # Errors
    /// `package_damaged`
    pub fn parse(text: &str) -> Result<Line, Reason> {
        let parse = || {
            let mut words = text.splitn(4, ' ');
            let (sha256, program, length, name) = (words.next()?, words.next()?, words.next()?, words.next()?);
            let program = match program {
                "x" => true,
                "-" => false,
                _ => return None,
            };
            check_name(name).ok()?;
            Some(Line { name: name.to_string(), length: length.parse().ok()?, sha256: hex::decode(sha256)?, program })
        };
        parse().ok_or_else(|| damaged("a line is none that unpacking writes"))
    }
}

/// What a damaged manifest gets.
pub fn damaged(why: &str) -> Reason {
    Reason::new("package_damaged", why)
}
