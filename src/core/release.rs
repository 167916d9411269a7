//! What a release consists of: products, platforms, target paths, and the signed facts about one artifact.

use std::fmt;
use std::str::FromStr;

use super::hex::Sha256;
use super::version::Version;

/// Operating system and architecture in the specification's words: `linux windows darwin`, `amd64 arm64 armv7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// `linux`, `windows` or `darwin`.
    pub os: String,
    /// `amd64`, `arm64` or `armv7`.
    pub arch: String,
}

/// The operating systems a release can name.
pub const OS_NAMES: [&str; 3] = ["linux", "windows", "darwin"];
/// The architectures a release can name.
pub const ARCH_NAMES: [&str; 3] = ["amd64", "arm64", "armv7"];

impl Platform {
    /// The platform this program was compiled for. An unknown one keeps Rust's name and matches no release.
    pub fn here() -> Platform {
        let os = match std::env::consts::OS {
            "macos" => "darwin",
            other => other,
        };
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "arm" => "armv7",
            other => other,
        };
        Platform { os: os.into(), arch: arch.into() }
    }

    /// File name of a program on this platform: `vmetric-agent`, `vmetric-agent.exe`.
    pub fn program(&self, product: &str) -> String {
        if self.os == "windows" { format!("{product}.exe") } else { product.to_string() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.os, self.arch)
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Platform, String> {
        match text.split_once('-') {
            Some((os, arch)) if OS_NAMES.contains(&os) && ARCH_NAMES.contains(&arch) => Ok(Platform { os: os.into(), arch: arch.into() }),
            _ => Err(format!("'{text}' is no platform; expected OS-ARCH with OS one of {OS_NAMES:?} and ARCH one of {ARCH_NAMES:?}")),
        }
    }
}

/// The role of a product on a platform: `agent-linux-amd64` for `vmetric-agent`.
#[cfg(any(feature = "director", feature = "release"))]
pub fn role_name(product: &str, platform: &Platform) -> String {
    format!("{}-{platform}", product.strip_prefix("vmetric-").unwrap_or(product))
}

/// The path of an artifact in the release tree: `<product>/<version>/<os>-<arch>/<file>`.
///
/// Nothing else is a target of ours, so no path can leave a folder, hide a drive letter or mean two files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetPath {
    /// `vmetric-agent`, `vmetric-director`.
    pub product: String,
    /// The release's version.
    pub version: Version,
    /// Where it runs.
    pub platform: Platform,
    /// The file's own name.
    pub file: String,
}

/// Longest name of a product or a file in a target path.
pub const NAME_MAX: usize = 64;

/// What Windows takes for a device, in every folder and with every ending; `com` and `lpt` with a digit behind.
const DEVICES: [&str; 6] = ["aux", "con", "nul", "prn", "conin$", "conout$"];

/// Names that mean something else on Windows than the file of that name, whatever system this is: a tree is carried about.
fn is_device(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or_default();
    let port = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
    DEVICES.contains(&stem) || port.is_some_and(|number| number.len() == 1 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// A product or file name: 1 to [`NAME_MAX`] of `a-z 0-9 . _ -`, not starting with a dot or a dash, nor ending with a dot,
/// and no device of Windows. So two names that differ are two files everywhere: no capitals (`A.exe` is `a.exe` there), no
/// dot or blank that is dropped from the end, no `:` before a stream.
pub fn is_name(text: &str) -> bool {
    let first = text.bytes().next();
    first.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && !text.ends_with('.')
        && !is_device(text)
        && text.len() <= NAME_MAX
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

impl FromStr for TargetPath {
    type Err = String;

    fn from_str(text: &str) -> Result<TargetPath, String> {
        let parse = || {
            let mut parts = text.split('/');
            let (product, version, platform, file) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            if parts.next().is_some() || !is_name(product) || !is_name(file) {
                return None;
            }
            let (version, platform) = (version.parse().ok()?, platform.parse().ok()?);
            Some(TargetPath { product: product.into(), version, platform, file: file.into() })
        };
        let shown: String = text.chars().take(120).collect();
        parse().ok_or_else(|| format!("'{shown}' is no target path; expected <product>/<version>/<os>-<arch>/<file>"))
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.product, self.version, self.platform, self.file)
    }
}

/// One artifact with everything that the release plane signed about it. Made only by [`super::trust`] from verified
/// metadata, or from a slot's own `slot.json`, whose build signature is checked again at every start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Path in the release tree; product, version and platform are part of it.
    pub path: TargetPath,
    /// Bytes.
    pub length: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256,
    /// Lowest version that may be running when this one is installed (a floor of the update path), if any.
    pub min_version: Option<Version>,
    /// Security counter: a device never goes below the highest one it has confirmed.
    pub counter: u64,
    /// Which build key signed (SHA-256 of its canonical form, as TUF key ids are made).
    pub build_keyid: String,
    /// Ed25519 over [`build_prefix`] and the file's bytes.
    pub build_sig: [u8; 64],
}

/// What the build signature covers before the file's bytes: a domain, the path and the length, so that a signature
/// cannot be moved to another platform, version or kind of document.
pub fn build_prefix(path: &str, length: u64) -> Vec<u8> {
    let mut out = b"vmetric-binary-v1\0".to_vec();
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_file_on_every_system() {
        for name in ["vmetric-agent", "vmetric-agent.exe", "com", "com10", "console", "nul-device", "lpt"] {
            assert!(is_name(name), "{name}");
        }
        let other_case = ["Vmetric-agent.exe", "vmetric-agent.EXE", "vmetric-agent.eXe"];
        let devices = ["con", "nul", "aux", "prn", "com1", "lpt9", "con.exe", "nul.tar.gz", "com0.json"];
        let dropped = ["vmetric-agent.", "vmetric-agent ", "vmetric-agent.exe.", "vmetric-agent..."];
        let streams = ["vmetric-agent:evil", "vmetric-agent.exe::$data", "c:vmetric-agent", "..", "a\\b", "a/b"];
        for name in other_case.into_iter().chain(devices).chain(dropped).chain(streams) {
            assert!(!is_name(name), "{name}");
            assert!(format!("vmetric-agent/1.0.0/windows-amd64/{name}").parse::<TargetPath>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_target_path_has_one_form() {
        let text = "vmetric-agent/2.5.0/linux-amd64/vmetric-agent";
        let path: TargetPath = text.parse().unwrap();
        assert_eq!(path.to_string(), text);
        assert_eq!(path.platform.program("vmetric-agent"), "vmetric-agent");
        assert_eq!("windows-amd64".parse::<Platform>().unwrap().program("x"), "x.exe");
        for bad in [
            "",
            "a/1.0.0/linux-amd64",
            "a/1.0.0/linux-amd64/b/c",
            "../1.0.0/linux-amd64/b",
            "a/1.0.0/linux-amd64/..",
            "a/1.0.0/linux-amd64/b\\c",
            "a/1.0.0/linux-amd64/C:",
            "a/1.0.0/linux-amd64/%2e",
            "/a/1.0.0/linux-amd64/b",
            "a/1.0.0/Linux-amd64/b",
            "a/1.0.0/linux-mips/b",
            "a/1.0/linux-amd64/b",
            "a/1.0.0/linux-amd64/B",
            "a//linux-amd64/b",
        ] {
            assert!(bad.parse::<TargetPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_prefix_separates_path_length_and_domain() {
        assert_eq!(build_prefix("a/1", 23), b"vmetric-binary-v1\0a/1\x0023\0");
        assert_ne!(build_prefix("a", 12), build_prefix("a1", 2));
    }
}
