//! The file of `vmetric-fleet store backup`: lines of JSON, so that a person can look into it, with a sum at its end.
//!
//! The first line says what it is, then comes a line for each row, then one with the number of rows and the SHA-256 of
//! everything before it. Nothing of a file is used before all of it was read and fits. It holds what the store holds (hashes of
//! passwords, keys of webhooks) and is made for its owner's eyes only.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use miniserde::{Deserialize, Serialize, json};
use ring::digest::{Context, SHA256, digest};

use super::{KEY_MAX, Revision, VALUE_MAX};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::io::fs::{remove_if_there, sync_folder_of};

/// What this version writes.
const FORMAT: u32 = 1;
/// Longest line, bytes: a key, a value in base64, and what is around them.
const LINE_MAX: usize = KEY_MAX * 6 + VALUE_MAX * 2 + 1024;

/// The first line.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// 1.
    pub vmetric_store: u32,
    /// Where it is from: `fleet`, `redb`, `etcd`.
    pub from: String,
    /// The newest commit; 0 where commits are not counted.
    pub revision: Revision,
    /// Seconds since 1970.
    pub at: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
struct End {
    rows: u64,
    sha256: String,
}

/// A row: its key begins with its table's name and a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `<table>/<key>`.
    pub key: String,
    /// Value.
    pub value: Vec<u8>,
}

/// How many rows, and a sum of them that does not ask for their order: two stores with the same are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows.
    pub rows: u64,
    /// Sum of the beginnings of their hashes.
    sum: u128,
}

impl Tally {
    /// Counts one.
    pub fn count(&mut self, item: &Item) {
        let length = (item.key.len() as u64).to_be_bytes();
        let hash = digest(&SHA256, &[&length, item.key.as_bytes(), &item.value].concat());
        let begins = hash.as_ref().first_chunk::<16>().copied().unwrap_or_default();
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(begins));
        self.rows += 1;
    }
}

/// A backup that is being written; only [`Writer::end`] gives it its name.
pub struct Writer {
    path: PathBuf,
    part: PathBuf,
    out: BufWriter<File>,
    sum: Context,
    tally: Tally,
}

impl Writer {
    /// Begins; the file must not be there yet.
    ///
    /// # Errors
    /// `backup_exists`, `backup_unwritable`.
    pub fn begin(path: &Path, head: &Head) -> Result<Writer, Reason> {
        if path.exists() {
            return Err(Reason::new("backup_exists", format!("{} is there already; give another name", path.display())));
        }
        let part = path.with_added_extension("part");
        // What a run before this one left, which was interrupted.
        let opened = remove_if_there(&part).and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part));
        let out = BufWriter::new(opened.map_err(|e| unwritable(&part, &e))?);
        let mut writer = Writer { path: path.into(), part, out, sum: Context::new(&SHA256), tally: Tally::default() };
        writer.line(&json::to_string(&Head { vmetric_store: FORMAT, ..head.clone() }))?;
        Ok(writer)
    }

    fn line(&mut self, text: &str) -> Result<(), Reason> {
        let bytes = format!("{text}\n");
        self.sum.update(bytes.as_bytes());
        self.out.write_all(bytes.as_bytes()).map_err(|e| unwritable(&self.part, &e))
    }

    /// Adds a row.
    ///
    /// # Errors
    /// `backup_unwritable`; `store_too_large` for a row that no store takes.
    pub fn add(&mut self, item: &Item) -> Result<(), Reason> {
        fits(item)?;
        self.tally.count(item);
        self.line(&json::to_string(&Line { key: item.key.clone(), value: BASE64_STANDARD.encode(&item.value) }))
    }

    /// Ends it, durably.
    ///
    /// # Errors
    /// `backup_unwritable`.
    pub fn end(mut self) -> Result<Tally, Reason> {
        let sha256 = self.sum.clone().finish();
        let end = End { rows: self.tally.rows, sha256: hex::encode(sha256.as_ref()) };
        self.line(&json::to_string(&end))?;
        let failed = |e: std::io::Error| unwritable(&self.path, &e);
        self.out.flush().map_err(failed)?;
        self.out.get_ref().sync_all().map_err(failed)?;
        std::fs::rename(&self.part, &self.path).map_err(failed)?;
        sync_folder_of(&self.path).map_err(failed)?;
        Ok(self.tally)
    }
}

/// What was not ended leaves nothing behind.
impl Drop for Writer {
    fn drop(&mut self) {
        let _ = remove_if_there(&self.part);
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Reason {
    Reason::new("backup_unwritable", format!("{}: {error}; check the folder's rights and free space", path.display()))
}

fn fits(item: &Item) -> Result<(), Reason> {
    match item.key.len() <= KEY_MAX && item.value.len() <= VALUE_MAX {
        true => Ok(()),
        false => {
            let key: String = item.key.chars().take(80).collect();
            let detail = format!("'{key}' has {} bytes of key and {} of value", item.key.len(), item.value.len());
            Err(Reason::new("store_too_large", format!("{detail}; {KEY_MAX} and {VALUE_MAX} are allowed")))
        }
    }
}

/// Reads a backup, every line of it, and shows its rows to `take`. Whoever uses the rows reads it twice: what is wrong is often
/// found at the end only.
///
/// # Errors
/// `backup_unreadable`, `backup_damaged` with the line, and those of `take`.
pub fn read(path: &Path, mut take: impl FnMut(Item) -> Result<(), Reason>) -> Result<(Head, Tally), Reason> {
    let file = path.display();
    let unread = |e: std::io::Error| Reason::new("backup_unreadable", format!("{file}: {e}"));
    let mut input = BufReader::new(File::open(path).map_err(unread)?);
    let (mut head, mut end, mut tally) = (None, None, Tally::default());
    let (mut sum, mut number, mut text) = (Context::new(&SHA256), 0, Vec::new());
    loop {
        text.clear();
        number += 1;
        let damaged =
            |why: &str| Reason::new("backup_damaged", format!("{file}:{number}: {why}; nothing of it is used, take another backup"));
        let got = input.by_ref().take(LINE_MAX as u64).read_until(b'\n', &mut text).map_err(unread)?;
        if got == 0 {
            break;
        }
        let line = std::str::from_utf8(&text).ok().and_then(|t| t.strip_suffix('\n')).ok_or_else(|| damaged("is no whole line of text"))?;
        if end.is_some() {
            return Err(damaged("there is something behind the end"));
        }
        if head.is_none() {
            let read: Head = json::from_str(line).map_err(|_| damaged("is no backup of `vmetric-fleet store backup`"))?;
            if read.vmetric_store != FORMAT {
                return Err(damaged(&format!("format {}; this version reads {FORMAT}", read.vmetric_store)));
            }
            head = Some(read);
        } else if let Ok(Line { key, value }) = json::from_str(line) {
            let value = BASE64_STANDARD.decode(value).map_err(|_| damaged("a value is no base64"))?;
            let item = Item { key, value };
            fits(&item)?;
            tally.count(&item);
            take(item)?;
        } else {
            let read: End = json::from_str(line).map_err(|_| damaged("is neither a row nor the end"))?;
            let sha256 = hex::encode(sum.clone().finish().as_ref());
            if (read.rows, &read.sha256) != (tally.rows, &sha256) {
                return Err(damaged("the sum of everything before does not fit"));
            }
            end = Some(read);
        }
        sum.update(&text);
    }
    let damaged = |why: &str| Reason::new("backup_damaged", format!("{file}: {why}; nothing of it is used, take another backup"));
    let head = head.ok_or_else(|| damaged("it is empty"))?;
    end.map(|_| (head, tally)).ok_or_else(|| damaged("its end is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, value: &[u8]) -> Item {
        Item { key: key.into(), value: value.to_vec() }
    }

    #[test]
    fn what_is_written_is_read_and_every_damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b");
        let head = Head { vmetric_store: 1, from: "fleet".into(), revision: 7, at: 1_795_352_400 };
        let items = [item("users/a", b"{}"), item("users/\u{e9}\"", &[0, 255]), item("x/y", b"")];
        let mut writer = Writer::begin(&path, &head).unwrap();
        items.iter().for_each(|i| writer.add(i).unwrap());
        assert!(!path.exists(), "a part is no backup");
        let tally = writer.end().unwrap();
        let mut got = Vec::new();
        let read_back = read(&path, |item| {
            got.push(item);
            Ok(())
        })
        .unwrap();
        assert_eq!((read_back, got.as_slice()), ((head.clone(), tally), &items[..]));
        assert_eq!(Writer::begin(&path, &head).err().unwrap().code, "backup_exists");
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);

        let good = std::fs::read(&path).unwrap();
        let told = |bytes: &[u8]| {
            crate::io::fs::write_volatile(&path, bytes, 0o600).unwrap();
            read(&path, |_| Ok(())).err().map(|r| r.code.to_string())
        };
        assert_eq!(told(&good), None);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(told(&bad).as_deref(), Some("backup_damaged" | "store_too_large")), "byte {at}");
            assert_eq!(told(&good[..at]).as_deref(), Some("backup_damaged"), "cut at {at}");
        }
        assert_eq!(told(&[&good[..], b"{}\n"].concat()).as_deref(), Some("backup_damaged"));
        assert_eq!(read(&folder.path().join("none"), |_| Ok(())).unwrap_err().code, "backup_unreadable");
    }

    #[test]
    fn a_tally_asks_for_no_order_and_sees_every_difference() {
        let tally = |items: &[Item]| {
            let mut tally = Tally::default();
            items.iter().for_each(|i| tally.count(i));
            tally
        };
        let (a, b) = (item("a", b"1"), item("b", b"2"));
        assert_eq!(tally(&[a.clone(), b.clone()]), tally(&[b.clone(), a.clone()]));
        for other in [vec![a.clone()], vec![a.clone(), a.clone()], vec![item("a1", b""), b], vec![a, item("b", b"3")]] {
            assert_ne!(tally(&other), tally(&[item("a", b"1"), item("b", b"2")]));
        }
    }
}
