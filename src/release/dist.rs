//! The folder that a build leaves: `dist/<version>/<os>-<arch>/<file>`, and beside the platforms a `SHA256SUMS`.

use std::collections::BTreeMap;
use std::path::Path;

use super::add::Input;
use super::failure::{Failure, Result};
use super::files;
use super::package;
use crate::core::hex::{self, Sha256};
use crate::core::release::Platform;
use crate::core::version::Version;

/// What `sha256sum` wrote of a version's files.
pub const SUMS: &str = "SHA256SUMS";
/// What `cross/package` leaves beside the versions: for package managers, not for devices to fetch.
const PACKAGES: &str = "packages";
/// Longest such file: a thousand files, three hundred bytes each.
const SUMS_MAX: u64 = 300 * 1024;

/// Finds the artifacts; everything that does not fit is an error. Where there is a `SHA256SUMS`, it lists each of them and
/// no other: a file more or less is not what was built.
pub fn scan(folder: &Path, product: Option<&str>) -> Result<Vec<Input>> {
    let mut out = Vec::new();
    for version in files::names(folder)?.into_iter().filter(|name| name != PACKAGES) {
        let place = folder.join(&version);
        let platforms = subfolders(&place, "a version such as 2.5.0", version.parse::<Version>().is_ok())?;
        let file = place.join(SUMS);
        let mut sums = if platforms.iter().any(|name| name == SUMS) { Some(read_sums(&file)?) } else { None };
        for platform in platforms.iter().filter(|name| *name != SUMS) {
            scan_platform(&place, &version, platform, product, &mut sums, &mut out)?;
        }
        if let Some((missing, _)) = sums.and_then(|mut sums| sums.pop_first()) {
            let text = format!("{}: lists {missing}, which is not there; build it again, or take its line out", file.display());
            return Err(Failure::new("missing_file", text));
        }
    }
    if out.is_empty() {
        let text = format!("{}: holds no artifacts; expected <version>/<os>-<arch>/<file> in it", folder.display());
        return Err(Failure::new("missing_file", text));
    }
    Ok(out)
}

type Sums = BTreeMap<String, Sha256>;

fn scan_platform(
    place: &Path,
    version: &str,
    platform: &str,
    product: Option<&str>,
    sums: &mut Option<Sums>,
    out: &mut Vec<Input>,
) -> Result<()> {
    let place = place.join(platform);
    for name in subfolders(&place, "a platform such as linux-amd64", platform.parse::<Platform>().is_ok())? {
        let file = place.join(&name);
        let product = product.map_or_else(|| product_of(&name).to_string(), String::from);
        let path = format!("{product}/{version}/{platform}/{name}").parse();
        let path = path.map_err(|e: String| Failure::new("bad_name", format!("{}: {e}", file.display())))?;
        files::length(&file)?;
        let sha256 = match sums.as_mut().map(|sums| sums.remove(&format!("{platform}/{name}"))) {
            Some(None) => {
                let text = format!("{}: {SUMS} beside it does not list it; build again, or move it out of the way", file.display());
                return Err(Failure::new("checksum", text));
            }
            listed => listed.flatten(),
        };
        out.push(Input { file, path, sha256 });
    }
    Ok(())
}

/// Lines as `sha256sum` writes them: 64 digits, two spaces (or a space and a star), the name.
fn read_sums(path: &Path) -> Result<Sums> {
    let bytes = files::read(path, SUMS_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let parse = |line: &str| {
        let (digits, name) = line.split_once(' ')?;
        let name = name.strip_prefix([' ', '*'])?;
        Some((name.trim_start_matches("./").to_string(), hex::decode(digits)?))
    };
    let sums = text.lines().enumerate().map(|(at, line)| {
        let bad = || Failure::new("checksum", format!("{}: line {}: expected what sha256sum writes", path.display(), at + 1));
        parse(line).ok_or_else(bad)
    });
    sums.collect()
}

fn subfolders(path: &Path, what: &str, named_well: bool) -> Result<Vec<String>> {
    if !named_well || !files::is_folder(path) {
        return Err(Failure::new("bad_name", format!("{}: expected a folder named by {what}; move it out of the way", path.display())));
    }
    files::names(path)
}

/// `vmetric-agent` of `vmetric-agent.exe`, `vmetric-director` of `package.tar.zst`.
fn product_of(file: &str) -> &str {
    if package::is_package(file) { package::PRODUCT } else { file.split('.').next().unwrap_or(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_of_the_product_that_its_name_says() {
        assert_eq!(product_of("vmetric-agent.exe"), "vmetric-agent");
        assert_eq!(product_of("vmetric-director"), "vmetric-director");
        assert_eq!(product_of("package.tar.gz"), "vmetric-director");
    }
}
