//! The offline bundle: a published release tree in one file.
//!
//! The form is plain ustar (POSIX.1-1988), which every `tar` reads; uncompressed, so that a device reads its members in
//! place, by offset, without a temporary copy. Of all that ustar allows, exactly one encoding is accepted, the one that
//! [`header`] writes: regular files under `metadata/` and `targets/`, in strictly rising order of their names, no owner, no
//! date, no extension, zeros between members, two zero blocks at the end and nothing behind them. Whatever differs is
//! refused, so there is nothing that two readers could understand differently. What the members say is believed no more
//! than if a mirror had sent it: [`super::trust`] checks it all.
//!
//! ```text
//!  Walk::new(length of the file)
//!     wants() -> offset of a block of 512 bytes --> caller reads it
//!     give(block) -> Some(Member) | None        --> until wants() is None: the whole bundle has its form
//! ```
//!
//! | code | what did not hold |
//! |---|---|
//! | `bundle_foreign` | the first block is a ustar header: this file is no bundle |
//! | `bundle_truncated` | the member, and the end after it, are within the file |
//! | `bundle_damaged` | the header's checksum |
//! | `bundle_type` | a regular file: no link, folder, device or extension |
//! | `bundle_name` | `metadata/...` or `targets/...`, plain characters, no empty part, no part that starts with a dot |
//! | `bundle_order` | each name is greater than the one before it, so none comes twice |
//! | `bundle_number` | the size is eleven octal digits, at most [`MEMBER_MAX`] |
//! | `bundle_header` | the rest of the header is as [`header`] writes it |
//! | `bundle_padding` | zeros fill the last block of a member |
//! | `bundle_members` | at most [`MEMBERS_MAX`] |
//! | `bundle_trailing` | two zero blocks, and then the end of the file |

use super::reason::Reason;

/// The unit of ustar.
pub const BLOCK: usize = 512;
/// Most members: 32 full roles of about 250 artifacts each, a thousand roots, and some to spare. A walk reads one or two
/// blocks for each.
pub const MEMBERS_MAX: u32 = 16_384;
/// Largest member: the largest artifact that `vmetric-release add` takes.
pub const MEMBER_MAX: u64 = 512 * 1024 * 1024;
/// Longest name: what ustar's two fields and the slash between them hold.
pub const NAME_MAX: usize = PREFIX + 1 + NAME;

const NAME: usize = 100;
const PREFIX: usize = 155;
const SIZE_AT: usize = 124;
const CHECKSUM_AT: usize = 148;
const TYPE_AT: usize = 156;
const MAGIC_AT: usize = 257;
const PREFIX_AT: usize = 345;
const MAGIC: &[u8; 8] = b"ustar\x0000";
const UNIT: u64 = BLOCK as u64;
/// Two zero blocks.
const END: u64 = 2 * UNIT;

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Such as `metadata/timestamp.json`.
    pub name: String,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many they are.
    pub length: u64,
}

impl Member {
    /// Where the next header is.
    fn end(&self) -> u64 {
        self.offset + self.length.div_ceil(UNIT) * UNIT
    }
}

/// A header block, the only one for this name and length.
///
/// # Errors
/// `bundle_name`, `bundle_number`: this cannot be a member.
pub fn header(name: &str, length: u64) -> Result<[u8; BLOCK], Reason> {
    check_name(name)?;
    if length > MEMBER_MAX {
        return Err(Reason::new("bundle_number", format!("{name}: {length} bytes are more than the {MEMBER_MAX} that a member may have")));
    }
    let (prefix, rest) = split(name).ok_or_else(|| Reason::new("bundle_name", format!("{name}: too long for a ustar header")))?;
    let mut out = [0; BLOCK];
    put(&mut out, 0, rest.as_bytes());
    put(&mut out, 100, b"0000644\x000000000\x000000000\0");
    put(&mut out, SIZE_AT, format!("{length:011o}\x0000000000000\0").as_bytes());
    out[TYPE_AT] = b'0';
    put(&mut out, MAGIC_AT, MAGIC);
    put(&mut out, 329, b"0000000\x000000000\0");
    put(&mut out, PREFIX_AT, prefix.as_bytes());
    let sum = format!("{:06o}\0 ", checksum(&out));
    put(&mut out, CHECKSUM_AT, sum.as_bytes());
    Ok(out)
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    if let Some(place) = block.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// The sum of all bytes, with the checksum's own field as spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let own = CHECKSUM_AT..CHECKSUM_AT + 8;
    block.iter().enumerate().map(|(i, b)| if own.contains(&i) { u32::from(b' ') } else { u32::from(*b) }).sum()
}

/// Both fields of a name: whole in the second if it fits, else cut at the first slash that makes both fit.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= NAME {
        return Some(("", name));
    }
    name.match_indices('/')
        .map(|(at, _)| (&name[..at], &name[at + 1..]))
        .find(|(prefix, rest)| prefix.len() <= PREFIX && rest.len() <= NAME)
}

fn check_name(name: &str) -> Result<(), Reason> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'%' | b'~' | b'+');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    let mut parts = name.split('/');
    let known = match parts.next() {
        Some("metadata") => parts.clone().count() == 1,
        Some("targets") => parts.clone().count() >= 1,
        _ => false,
    };
    if known && name.len() <= NAME_MAX && parts.all(part) {
        return Ok(());
    }
    let shown: String = name.chars().take(120).collect();
    Err(Reason::new(
        "bundle_name",
        format!("{shown:?}: a member is called metadata/FILE or targets/PATH, without dots in front or other signs"),
    ))
}

/// A walk over a bundle's headers. Constant memory, whatever the bundle.
#[derive(Clone, Debug)]
pub struct Walk {
    length: u64,
    step: Step,
    last: String,
    members: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Header(u64),
    Padding(Member),
    SecondZero(u64),
    Done,
}

impl Walk {
    /// A walk over a file of so many bytes.
    ///
    /// # Errors
    /// `bundle_truncated`: too short for anything.
    pub fn new(length: u64) -> Result<Walk, Reason> {
        if length < UNIT + END {
            return Err(Reason::new("bundle_truncated", format!("{length} bytes are too few for a bundle; copy it again")));
        }
        Ok(Walk { length, step: Step::Header(0), last: String::new(), members: 0 })
    }

    /// Where the next block to read is; `None` = the whole bundle has been seen and has its form.
    pub fn wants(&self) -> Option<u64> {
        match &self.step {
            Step::Header(at) | Step::SecondZero(at) => Some(*at),
            Step::Padding(member) => Some(member.end() - UNIT),
            Step::Done => None,
        }
    }

    /// Takes the block that was wanted; answers a member when it was a header.
    ///
    /// # Errors
    /// The table at the top of this module; the detail names the member.
    pub fn give(&mut self, block: &[u8; BLOCK]) -> Result<Option<Member>, Reason> {
        match std::mem::replace(&mut self.step, Step::Done) {
            Step::Header(at) if self.members > 0 && block.iter().all(|b| *b == 0) => {
                if self.length != at + END {
                    return Err(self.trailing());
                }
                self.step = Step::SecondZero(at + UNIT);
                Ok(None)
            }
            Step::Header(at) => self.take_header(at, block).map(Some),
            Step::Padding(member) => {
                let used = (member.length % UNIT) as usize;
                if block[used..].iter().any(|b| *b != 0) {
                    return Err(Reason::new(
                        "bundle_padding",
                        format!("{}: not zeros behind its last byte; copy the bundle again", member.name),
                    ));
                }
                self.step = Step::Header(member.end());
                Ok(None)
            }
            Step::SecondZero(_) if block.iter().any(|b| *b != 0) => Err(self.trailing()),
            Step::SecondZero(_) | Step::Done => Ok(None),
        }
    }

    fn trailing(&self) -> Reason {
        Reason::new("bundle_trailing", format!("after {}: something else than the end of the bundle; copy it again", self.last))
    }

    fn take_header(&mut self, at: u64, block: &[u8; BLOCK]) -> Result<Member, Reason> {
        let place = if self.last.is_empty() { "the first member".to_string() } else { format!("the member after {}", self.last) };
        if self.members == 0 && block[MAGIC_AT..MAGIC_AT + 5] != MAGIC[..5] {
            let detail = "no bundle: it does not begin with a tar header; give the file that 'vmetric-release bundle' wrote";
            return Err(Reason::new("bundle_foreign", detail));
        }
        let sum = format!("{:06o}\0 ", checksum(block));
        if block[CHECKSUM_AT..CHECKSUM_AT + 8] != *sum.as_bytes() {
            return Err(Reason::new("bundle_damaged", format!("{place}: the checksum of its header is wrong; copy the bundle again")));
        }
        if block[TYPE_AT] != b'0' {
            let detail = format!(
                "{place}: type {:?} is no regular file; only what 'vmetric-release bundle' writes is read",
                char::from(block[TYPE_AT])
            );
            return Err(Reason::new("bundle_type", detail));
        }
        let name = name_of(block).ok_or_else(|| Reason::new("bundle_name", format!("{place}: its name is no plain text")))?;
        check_name(&name)?;
        let length = octal(&block[SIZE_AT..SIZE_AT + 12]).filter(|n| *n <= MEMBER_MAX);
        let length = length.ok_or_else(|| Reason::new("bundle_number", format!("{name}: its size is no number up to {MEMBER_MAX}")))?;
        if header(&name, length)? != *block {
            return Err(Reason::new(
                "bundle_header",
                format!("{name}: owner, date or another field is not as 'vmetric-release bundle' writes it"),
            ));
        }
        if name <= self.last {
            return Err(Reason::new(
                "bundle_order",
                format!("{name}: comes after {}; members are sorted, and none comes twice", self.last),
            ));
        }
        self.members += 1;
        if self.members > MEMBERS_MAX {
            return Err(Reason::new("bundle_members", format!("{name}: more than {MEMBERS_MAX} members")));
        }
        let member = Member { name, offset: at + UNIT, length };
        if member.end().saturating_add(END) > self.length {
            let detail = format!("{}: the file ends before it or right behind it; copy the bundle again", member.name);
            return Err(Reason::new("bundle_truncated", detail));
        }
        self.last.clone_from(&member.name);
        self.step = if member.length.is_multiple_of(UNIT) { Step::Header(member.end()) } else { Step::Padding(member.clone()) };
        Ok(member)
    }
}

fn name_of(block: &[u8; BLOCK]) -> Option<String> {
    let field = |range: std::ops::Range<usize>| {
        let bytes = &block[range];
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()
    };
    let (prefix, rest) = (field(PREFIX_AT..PREFIX_AT + PREFIX)?, field(0..NAME)?);
    Some(if prefix.is_empty() { rest.to_string() } else { format!("{prefix}/{rest}") })
}

fn octal(field: &[u8]) -> Option<u64> {
    let (last, digits) = field.split_last()?;
    let digit = |sum: u64, b: &u8| matches!(b, b'0'..=b'7').then(|| sum * 8 + u64::from(b - b'0'));
    // Eleven octal digits are 33 bits.
    if *last == 0 { digits.iter().try_fold(0, digit) } else { None }
}

/// Every member of a bundle that is in memory whole: what a fuzzer and the tests ask.
///
/// # Errors
/// The table at the top of this module.
pub fn members(bundle: &[u8]) -> Result<Vec<Member>, Reason> {
    let mut walk = Walk::new(bundle.len() as u64)?;
    let mut out = Vec::new();
    while let Some(at) = walk.wants() {
        let block = usize::try_from(at).ok().and_then(|at| bundle.get(at..)?.first_chunk::<BLOCK>());
        let block = block.ok_or_else(|| Reason::new("bundle_truncated", "the file ends within a block; copy the bundle again"))?;
        out.extend(walk.give(block)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
