//! Resource packages: made with `package`, looked through by `add` before they are signed, and by `verify` as a device would.

use std::io::BufReader;
use std::path::Path;

use super::add::ARTIFACT_MAX;
use super::cli::Answer;
use super::failure::{Failure, Result};
use super::files;
use super::json::{number, object, text};
use crate::core::hex;
use crate::core::package::{Format, Unpacked};
use crate::core::release::TargetPath;
use crate::core::trust::{Refusal, Trusted};
use crate::io::medium::Medium;
use crate::io::package;

/// The product whose releases have packages.
pub const PRODUCT: &str = "vmetric-director";

/// True for both names that a package can have.
pub fn is_package(file: &str) -> bool {
    Format::FILES.contains(&file)
}

/// What a package unpacks to; `None` for every other file. There is no way around: a Director would refuse it after the download.
pub fn check(path: &TargetPath, bytes: &[u8]) -> Result<Option<Unpacked>> {
    if !is_package(&path.file) {
        return Ok(None);
    }
    if path.product != PRODUCT {
        let detail = format!("{path}: a package belongs to {PRODUCT}; {} is one binary, and refuses anything else", path.product);
        return Err(Failure::new("package_product", detail));
    }
    let format = Format::of(&path.file).map_err(Failure::of)?;
    let of = |r: crate::core::reason::Reason| Failure::of(r.of(path));
    package::measure(format, bytes).map(Some).map_err(of)
}

/// A release has one package at most.
pub fn alone<'a>(path: &TargetPath, mut listed: impl Iterator<Item = &'a String>) -> Result<()> {
    let here = path.to_string();
    let folder = here.strip_suffix(&path.file).unwrap_or(&here);
    match listed.find(|other| **other != here && other.strip_prefix(folder).is_some_and(is_package)) {
        Some(other) if is_package(&path.file) => {
            let detail = format!("{path}: {other} is listed already, and a release has one package; withdraw the other");
            Err(Failure::new("package_twice", detail))
        }
        _ => Ok(()),
    }
}

/// Whether a published package unpacks to what is signed of it.
pub fn verify(trusted: &Trusted, tree: &Medium, path: &TargetPath, name: &str, length: u64) -> std::result::Result<(), Refusal> {
    if path.product != PRODUCT || !is_package(&path.file) {
        return Ok(());
    }
    let declared = trusted.unpacked(path)?;
    let unpacked = || {
        let file = tree.part(name, 0)?;
        package::look_through(Format::of(&path.file)?, Box::new(BufReader::new(file)), length, declared)
    };
    unpacked().map_err(|r| match r.code.clone() {
        std::borrow::Cow::Borrowed(code) => Refusal::new(code, &path.to_string(), r.detail.clone()),
        std::borrow::Cow::Owned(_) => Refusal::new("package_damaged", &path.to_string(), r.detail.clone()),
    })
}

/// `package DIR --out FILE`.
pub fn package(folder: &Path, out: &Path) -> Result<Answer> {
    if !files::is_folder(folder) {
        return Err(Failure::new("missing_folder", format!("{}: is no folder; give the one that holds the resources", folder.display())));
    }
    let name = out.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if !is_package(name) {
        return Err(Failure::usage(format!("--out {}: a package is called {}", out.display(), Format::FILES.join(" or "))));
    }
    let (bytes, unpacked) = package::pack::pack(folder, Format::of(name).map_err(Failure::of)?).map_err(Failure::of)?;
    if bytes.len() as u64 > ARTIFACT_MAX {
        let detail = format!("{}: {} bytes are more than the {ARTIFACT_MAX} of an artifact", out.display(), bytes.len());
        return Err(Failure::new("too_large", detail));
    }
    files::write(out, &bytes, files::PUBLIC)?;
    let sha256 = hex::encode(&hex::sha256(&bytes));
    let note = format!(
        "{}: {} bytes, {} files of {} bytes, sha256 {sha256}\nnext: 'add'",
        out.display(),
        bytes.len(),
        unpacked.files,
        unpacked.bytes
    );
    let json = object([
        ("bytes", number(bytes.len() as u64)),
        ("files", number(unpacked.files)),
        ("sha256", text(&sha256)),
        ("unpacked", number(unpacked.bytes)),
    ]);
    Ok(Answer::new(note, json))
}
