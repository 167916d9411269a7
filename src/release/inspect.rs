//! What a program file says of itself: shown by `inspect`, and held against what is said of it by `add`, before it is signed.
//!
//! Everything is read from the file; nothing is executed. The machine that holds build keys is the last one on which a fresh
//! build should run, and it could not run most platforms' builds anyway.

use std::path::Path;

use miniserde::json::Value;

use super::cli::Answer;
use super::failure::{Failure, Result};
use super::json::{number, object, text};
use super::{add, files, show};
use crate::core::hex;
use crate::core::program_file::{self, Linkage, Program};
use crate::core::release::{TargetPath, is_name};
use crate::core::version::Version;

/// Every program of ours contains one line: this, then product, version and target. `build.rs` and `src/bin` put it in.
pub const STAMP: &str = "vmetric-build-stamp: ";
/// The longest stamp: three names.
const STAMP_MAX: usize = 256;
/// The products whose program carries a stamp.
const STAMPED: [&str; 3] = ["vmetric-agent", "vmetric-director", "vmetric-fleet"];
/// The product that has to start on devices nobody has seen.
const DEVICES: &str = "vmetric-agent";

/// What a build says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `vmetric-agent`
    pub product: String,
    /// `2.5.0`
    pub version: String,
    /// The compiler's name of the target.
    pub target: String,
}

/// The first whole stamp in a file.
pub fn stamp(bytes: &[u8]) -> Option<Stamp> {
    let mark = STAMP.as_bytes();
    let mut starts = bytes.windows(mark.len()).enumerate().filter(|(_, w)| *w == mark).map(|(at, _)| at + mark.len());
    starts.find_map(|at| parse(&bytes[at..bytes.len().min(at + STAMP_MAX)]))
}

fn parse(bytes: &[u8]) -> Option<Stamp> {
    let line = std::str::from_utf8(bytes.split(|b| *b == b'\n').next()?).ok()?;
    let mut words = line.split(' ');
    let (product, version, target) = (words.next()?, words.next()?, words.next()?);
    let good = words.next().is_none() && is_name(product) && version.parse::<Version>().is_ok() && is_name(target);
    good.then(|| Stamp { product: product.into(), version: version.into(), target: target.into() })
}

fn program(bytes: &[u8]) -> Result<Program> {
    let head = &bytes[..bytes.len().min(program_file::HEAD)];
    program_file::inspect(head, bytes.len() as u64).map_err(Failure::of)
}

/// Whether the bytes are what the path says: a whole program of ours, for that platform, of that product and version, which
/// starts on any device of the platform.
pub fn check(path: &TargetPath, bytes: &[u8], allow_dynamic: bool) -> Result<()> {
    if path.file != path.platform.program(&path.product) || !STAMPED.contains(&path.product.as_str()) {
        return Ok(());
    }
    let refuse = |f: Failure| Failure::new(f.code, format!("{path}: {}; --unchecked WHY publishes it all the same", f.text));
    check_program(path, bytes, allow_dynamic).map_err(refuse)
}

fn check_program(path: &TargetPath, bytes: &[u8], allow_dynamic: bool) -> Result<()> {
    let program = program(bytes)?;
    program.fits(&path.platform).map_err(Failure::of)?;
    let starts_anywhere = matches!(program.linkage, Linkage::Static | Linkage::System);
    if path.product == DEVICES && !starts_anywhere && !allow_dynamic {
        let text = format!("{}, so devices without that refuse it: build it static (cross/build), or say --allow-dynamic", words(&program));
        return Err(Failure::new("dynamic_program", text));
    }
    let Some(stamp) = stamp(bytes) else {
        let text = "carries no build stamp: it is none of our programs, or its file was packed or cut";
        return Err(Failure::new("no_build_stamp", text));
    };
    if stamp.product != path.product {
        let text = format!("is {}, not {}", stamp.product, path.product);
        return Err(Failure::new("product_mismatch", text));
    }
    if stamp.version != path.version.to_string() {
        let text = format!("calls itself {}: build it with VMETRIC_VERSION={}, or publish it as that", stamp.version, path.version);
        return Err(Failure::new("version_mismatch", text));
    }
    Ok(())
}

fn words(program: &Program) -> String {
    match &program.linkage {
        Linkage::Static => "static".into(),
        Linkage::System => "needs the system's own libraries only".into(),
        Linkage::Loader(loader) => format!("needs {loader} ({})", program.libc()),
        Linkage::Unknown => "does not say what starts it".into(),
    }
}

/// `inspect FILE`.
pub fn inspect(file: &Path) -> Result<Answer> {
    let bytes = files::read(file, add::ARTIFACT_MAX)?;
    let program = program(&bytes).map_err(|f| Failure::new(f.code, format!("{}: {}", file.display(), f.text)))?;
    let (platform, sha256) = (format!("{}-{}", program.os, program.arch), hex::encode(&hex::sha256(&bytes)));
    let stamp = stamp(&bytes).unwrap_or(Stamp { product: String::new(), version: String::new(), target: String::new() });
    let mut rows = vec![
        ("platform", platform.clone()),
        ("linkage", words(&program)),
        ("build", format!("{} {} {}", stamp.product, stamp.version, stamp.target).trim().to_string()),
        ("bytes", bytes.len().to_string()),
        ("sha256", sha256.clone()),
    ];
    if program.os == "darwin" {
        rows.insert(2, ("code signature", if program.signed { "there" } else { "none" }.into()));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
    let json = object([
        ("platform", text(&platform)),
        ("static", Value::Bool(program.linkage == Linkage::Static)),
        ("loader", text(if let Linkage::Loader(loader) = &program.linkage { loader.as_str() } else { "" })),
        ("signed", Value::Bool(program.signed)),
        ("product", text(&stamp.product)),
        ("version", text(&stamp.version)),
        ("target", text(&stamp.target)),
        ("bytes", number(bytes.len() as u64)),
        ("sha256", text(&sha256)),
    ]);
    Ok(Answer::new(show::table(&rows), json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_whole_or_not_at_all() {
        let found = |text: &str| stamp(text.as_bytes()).map(|s| format!("{} {} {}", s.product, s.version, s.target));
        let good = "vmetric-agent 2.5.0-rc.1 x86_64-unknown-linux-musl";
        assert_eq!(found(&format!("\0x{STAMP}{good}\ny")).as_deref(), Some(good));
        assert_eq!(found(&format!("{STAMP}\0{STAMP}{STAMP}{good}\n")).as_deref(), Some(good), "the bare words are no stamp");
        for bad in [
            "",
            "vmetric-agent",
            "vmetric-agent 2.5.0",
            "Agent 2.5.0 x",
            "vmetric-agent two x",
            "vmetric-agent 2.5.0 x y",
            "a 1.0.0 \u{1b}",
        ] {
            assert_eq!(found(&format!("{STAMP}{bad}\n")), None, "{bad}");
        }
        assert_eq!(found(&format!("{STAMP}vmetric-agent 2.5.0 {}\n", "x".repeat(STAMP_MAX))), None);
    }
}
