//! A release tree on a medium: the folder that `publish` wrote, or a bundle of it in one file.
//!
//! Constant memory: a bundle's members are looked for by walking its headers, and read in place. What is read is believed
//! no more than an answer from the network; [`crate::core::trust`] checks it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use super::fs::{open_plain, read_exact_at, read_limited};
use crate::core::bundle::{BLOCK, Member, Walk};
use crate::core::reason::Reason;

/// A tree of `metadata/` and `targets/`.
#[derive(Debug)]
pub enum Medium {
    /// A folder.
    Folder(PathBuf),
    /// One file.
    Bundle(Bundle),
}

/// An open bundle whose form was checked from end to end.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    file: File,
    length: u64,
}

/// A file of the tree, opened for reading.
pub type Part = Take<File>;

impl Medium {
    /// Opens what lies at `path`: a folder with `metadata/` in it, or a bundle, whose whole form is checked here.
    ///
    /// # Errors
    /// `tree_unreadable`, or a code of [`crate::core::bundle`]; the detail names path and member.
    pub fn open(path: &Path) -> Result<Medium, Reason> {
        let meta = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
        if !meta.is_dir() {
            return Bundle::open(path).map(Medium::Bundle);
        }
        match path.join("metadata").is_dir() {
            true => Ok(Medium::Folder(path.to_path_buf())),
            false => {
                let detail = format!("{}: has no folder 'metadata'; give a published release tree or a bundle of it", path.display());
                Err(Reason::new("tree_unreadable", detail))
            }
        }
    }

    /// A small file of the tree; `None` = there is none of that name.
    ///
    /// # Errors
    /// It cannot be read, or it is longer than `limit`.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Reason> {
        match self {
            Medium::Folder(folder) => {
                let path = folder.join(name);
                read_limited(&path, limit).map_err(|e| unreadable(&path, &e))
            }
            Medium::Bundle(bundle) => bundle.read(name, limit),
        }
    }

    /// True if the tree has a file of that name: a bundle may be made for some versions and platforms only.
    ///
    /// # Errors
    /// The bundle changed since it was opened.
    pub fn has(&self, name: &str) -> Result<bool, Reason> {
        match self {
            Medium::Folder(folder) => Ok(folder.join(name).is_file()),
            Medium::Bundle(bundle) => Ok(bundle.find(name)?.is_some()),
        }
    }

    /// A file of the tree from byte `from` on.
    ///
    /// # Errors
    /// `not_in_bundle`, or it cannot be read.
    pub fn part(&self, name: &str, from: u64) -> Result<Part, Reason> {
        match self {
            Medium::Folder(folder) => {
                let path = folder.join(name);
                let open = || {
                    let mut file = open_plain(&path)?;
                    file.seek(SeekFrom::Start(from))?;
                    Ok(file.take(u64::MAX))
                };
                open().map_err(|e| unreadable(&path, &e))
            }
            Medium::Bundle(bundle) => bundle.part(name, from),
        }
    }
}

impl Bundle {
    /// Opens a bundle and walks it from end to end.
    ///
    /// # Errors
    /// As for [`Medium::open`].
    pub fn open(path: &Path) -> Result<Bundle, Reason> {
        let file = open_plain(path).map_err(|e| unreadable(path, &e))?;
        let length = file.metadata().map_err(|e| unreadable(path, &e))?.len();
        let bundle = Bundle { path: path.to_path_buf(), file, length };
        bundle.walk(&mut |_| false)?;
        Ok(bundle)
    }

    /// Every member, in order.
    ///
    /// # Errors
    /// As for [`Medium::open`].
    pub fn members(&self) -> Result<Vec<Member>, Reason> {
        let mut out = Vec::new();
        self.walk(&mut |member| {
            out.push(member.clone());
            false
        })?;
        Ok(out)
    }

    /// The member of that name.
    ///
    /// # Errors
    /// As for [`Medium::open`]: the file may have changed since.
    pub fn find(&self, name: &str) -> Result<Option<Member>, Reason> {
        // Names rise, so the walk ends where the name would be.
        let found = self.walk(&mut |member| member.name.as_str() >= name)?;
        Ok(found.filter(|member| member.name == name))
    }

    /// Walks until `stop` answers true, and answers that member.
    fn walk(&self, stop: &mut dyn FnMut(&Member) -> bool) -> Result<Option<Member>, Reason> {
        let named = |reason: Reason| reason.of(self.path.display());
        let mut walk = Walk::new(self.length).map_err(named)?;
        let mut block = [0; BLOCK];
        while let Some(at) = walk.wants() {
            read_exact_at(&self.file, &mut block, at).map_err(|e| unreadable(&self.path, &e))?;
            match walk.give(&block).map_err(named)? {
                Some(member) if stop(&member) => return Ok(Some(member)),
                _ => {}
            }
        }
        Ok(None)
    }

    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Reason> {
        let Some(member) = self.find(name)? else { return Ok(None) };
        if member.length > limit {
            let detail = format!("{}: {name} has {} bytes; at most {limit} are read", self.path.display(), member.length);
            return Err(Reason::new("metadata_too_long", detail));
        }
        let mut bytes = vec![0; usize::try_from(member.length).unwrap_or(0)];
        read_exact_at(&self.file, &mut bytes, member.offset).map_err(|e| unreadable(&self.path, &e))?;
        Ok(Some(bytes))
    }

    fn part(&self, name: &str, from: u64) -> Result<Part, Reason> {
        let absent = || {
            Reason::new("not_in_bundle", format!("{}: holds no {name}; it was made for other versions or platforms", self.path.display()))
        };
        let member = self.find(name)?.ok_or_else(absent)?;
        let from = from.min(member.length);
        // A descriptor of its own: two readers must not share one position.
        let open = || {
            let mut file = open_plain(&self.path)?;
            file.seek(SeekFrom::Start(member.offset + from))?;
            Ok(file.take(member.length - from))
        };
        open().map_err(|e| unreadable(&self.path, &e))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Reason {
    Reason::new("tree_unreadable", format!("{}: {error}; give a published release tree or a bundle of it", path.display()))
}
