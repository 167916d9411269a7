//! What a program file says of itself: for which system and processor it is made, what it needs to start, and whether it is
//! whole.
//!
//! A release that no device can start would be refused by the staged file's self-test, one device at a time and after each
//! download. `vmetric-release add` asks here before it signs, and an agent before it starts the file, so that both can name the
//! cause. Only the head of the file is read; what it says is compared with the file's length, never trusted with an allocation.

mod elf;
mod macho;
mod pe;

use super::reason::Reason;
use super::release::Platform;

/// So many bytes of the file's beginning are looked at: headers, segments, sections and load commands of every linker fit.
pub const HEAD: usize = 16 * 1024;
/// Longest path of a loader: the longest that is in use has 30 bytes.
pub const LOADER_MAX: usize = 200;

/// What starts the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// The kernel alone.
    Static,
    /// This program of the system, with the C library that belongs to it.
    Loader(String),
    /// What every installation of the system has (Windows, macOS).
    System,
    /// It is not said within [`HEAD`].
    Unknown,
}

/// A program file, by its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// `linux`, `windows`, `darwin`, or `other`.
    pub os: &'static str,
    /// `amd64`, `arm64`, `armv7`, or another name, which no release has.
    pub arch: &'static str,
    /// What it needs to start.
    pub linkage: Linkage,
    /// It has room for a code signature with something in it (Mach-O; the signature itself is macOS's to check).
    pub signed: bool,
}

/// The forms of program files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Elf,
    Pe,
    MachO,
}

/// Why a file is none that can start.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// It is something else.
    Not(&'static str),
    /// By its own words it ends here, and it is shorter.
    Truncated(u64),
}

impl Fault {
    fn reason(self, length: u64) -> Reason {
        match self {
            Fault::Not(what) => Reason::new("not_a_program", format!("is no program: {what}; build or copy it again")),
            Fault::Truncated(end) => {
                Reason::new("truncated_program", format!("has {length} bytes, but its contents end at {end}; build or copy it again"))
            }
        }
    }
}

/// Reads numbers of a head, all of them little-endian, as every platform of ours has them.
#[derive(Clone, Copy)]
struct Head<'a> {
    bytes: &'a [u8],
    length: u64,
}

impl Head<'_> {
    fn number(&self, at: u64, size: usize) -> Result<u64, Fault> {
        let end = at.saturating_add(size as u64);
        let found = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..)?.get(..size));
        match found {
            Some(bytes) => Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
            None if end > self.length => Err(Fault::Truncated(end)),
            None => Err(Fault::Not("its headers do not lie at its beginning")),
        }
    }

    fn u16(&self, at: u64) -> Result<u64, Fault> {
        self.number(at, 2)
    }

    fn u32(&self, at: u64) -> Result<u64, Fault> {
        self.number(at, 4)
    }

    fn u64(&self, at: u64) -> Result<u64, Fault> {
        self.number(at, 8)
    }

    /// A part of the file lies within it.
    fn holds(&self, at: u64, size: u64) -> Result<(), Fault> {
        let end = at.saturating_add(size);
        if end > self.length { Err(Fault::Truncated(end)) } else { Ok(()) }
    }
}

fn form(head: &[u8]) -> Result<Form, Fault> {
    match head {
        [0x7f, b'E', b'L', b'F', ..] => Ok(Form::Elf),
        [b'M', b'Z', ..] => Ok(Form::Pe),
        [0xcf, 0xfa, 0xed, 0xfe, ..] => Ok(Form::MachO),
        [0xca, 0xfe, 0xba, 0xbe | 0xbf, ..] => Err(Fault::Not("it holds several architectures, a release has one file for each")),
        [b'#', b'!', ..] => Err(Fault::Not("it is a script")),
        [] => Err(Fault::Not("it is empty")),
        _ => Err(Fault::Not("it begins like none of Linux, Windows or macOS")),
    }
}

/// What a file of that length with this head (its first [`HEAD`] bytes, or all) says of itself.
pub fn inspect(head: &[u8], length: u64) -> Result<Program, Reason> {
    let view = Head { bytes: head, length };
    let read = || match form(head)? {
        Form::Elf => elf::read(view),
        Form::Pe => pe::read(view),
        Form::MachO => macho::read(view),
    };
    read().map_err(|fault| fault.reason(length))
}

/// The same for a device, which can only start files of its own system: nothing is linked that reads the others.
pub fn inspect_own(head: &[u8], length: u64) -> Result<Program, Reason> {
    let view = Head { bytes: head, length };
    let read = || match form(head)? {
        Form::Pe if cfg!(windows) => pe::read(view),
        Form::MachO if cfg!(target_os = "macos") => macho::read(view),
        Form::Elf if !cfg!(any(windows, target_os = "macos")) => elf::read(view),
        Form::Pe => Err(Fault::Not("it is made for Windows")),
        Form::MachO => Err(Fault::Not("it is made for macOS")),
        Form::Elf => Err(Fault::Not("it is made for Linux")),
    };
    read().map_err(|fault| fault.reason(length))
}

impl Program {
    /// Whether a device of this platform can start it, as far as the file itself can tell.
    pub fn fits(&self, platform: &Platform) -> Result<(), Reason> {
        if self.os != platform.os || self.arch != platform.arch {
            let detail = format!("is made for {}-{}, not for {platform}; build it for that target", self.os, self.arch);
            return Err(Reason::new("wrong_architecture", detail));
        }
        // Without one the kernel kills the process at its start, and says nothing.
        if (self.os, self.arch, self.signed) == ("darwin", "arm64", false) {
            let detail = "has no code signature, and macOS on arm64 kills such a program; sign it (`codesign -s -` is enough)";
            return Err(Reason::new("unsigned_program", detail));
        }
        Ok(())
    }

    /// The C library of its loader, in words.
    pub fn libc(&self) -> &'static str {
        match &self.linkage {
            Linkage::Loader(path) if path.contains("/ld-musl-") => "musl",
            Linkage::Loader(path) if path.contains("/ld-linux") => "glibc",
            Linkage::Loader(_) => "an unknown C library",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests;
