//! The private keys at hand: files in the key folder, and seeds in the environment (CI).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ed25519_compact::KeyPair;

use super::envelope::{Public, keyid};
use super::failure::{Failure, Result};
use super::files;
use super::keyfile::{KEY_FILE_MAX, KeyFile, Recipe, Secret, pair, random};
use super::passphrase::Source;
use crate::core::hex;

/// Name of the build key where roles are named. It is no TUF role.
pub const BUILD: &str = "build";
/// End of a key file's name: `root-1.key`.
const EXTENSION: &str = ".key";

/// Reads one variable of the environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where a private key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this encrypted file.
    File(PathBuf),
    /// In this variable.
    Variable(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Variable(name) => write!(f, "${name}"),
        }
    }
}

/// The keys at hand.
pub struct Ring<'a> {
    folder: Option<PathBuf>,
    env: Env<'a>,
    source: Source,
    passphrase: Option<Secret>,
    derived: Vec<(Recipe, Secret)>,
    files: Vec<(PathBuf, KeyFile)>,
}

/// The variable that may hold seeds of a role: 64 hex digits each, several separated by commas.
pub fn variable(role: &str) -> String {
    format!("VMETRIC_KEY_{}", role.to_ascii_uppercase().replace(['-', '.'], "_"))
}

impl<'a> Ring<'a> {
    /// Reads the key files' public parts; asks for no passphrase.
    pub fn open(folder: Option<&Path>, env: Env<'a>, source: Source) -> Result<Ring<'a>> {
        let mut found = Vec::new();
        if let Some(folder) = folder {
            for name in files::names(folder)?.into_iter().filter(|n| n.ends_with(EXTENSION)) {
                let path = folder.join(name);
                let file = KeyFile::parse(&files::read(&path, KEY_FILE_MAX)?, &path.display().to_string())?;
                found.push((path, file));
            }
        }
        Ok(Ring { folder: folder.map(Path::to_path_buf), env, source, passphrase: None, derived: Vec::new(), files: found })
    }

    /// Every key file of the folder: place, role, public key.
    pub fn files(&self) -> impl Iterator<Item = (Place, &str, Public)> {
        self.files.iter().map(|(path, file)| (Place::File(path.clone()), file.role.as_str(), file.public))
    }

    /// Where the private half of `public` is, if it is at hand.
    pub fn place(&self, role: &str, public: &Public) -> Result<Option<Place>> {
        if self.in_variable(role)?.iter().any(|pair| *pair.pk == *public) {
            return Ok(Some(Place::Variable(variable(role))));
        }
        Ok(self.files.iter().find(|(_, file)| file.public == *public).map(|(path, _)| Place::File(path.clone())))
    }

    /// The public halves of all keys at hand that were made for `role`.
    pub fn held(&self, role: &str) -> Result<BTreeMap<String, Public>> {
        let in_files = self.files.iter().filter(|(_, file)| file.role == role).map(|(_, file)| file.public);
        let all = in_files.chain(self.in_variable(role)?.into_iter().map(|pair| *pair.pk));
        Ok(all.map(|public| (keyid(&public), public)).collect())
    }

    /// The pairs at hand for `role` out of `wanted`. A variable with a key that the role does not have is an error: it
    /// would otherwise sign nothing, silently.
    pub fn pairs(&mut self, role: &str, wanted: &BTreeMap<String, Public>) -> Result<Vec<KeyPair>> {
        let mut out: Vec<KeyPair> = Vec::new();
        for pair in self.in_variable(role)? {
            let id = keyid(&pair.pk);
            if !wanted.contains_key(&id) {
                let text =
                    format!("{}: holds key {id}, which is not among the keys of '{role}'; remove it or use the right seed", variable(role));
                return Err(Failure::new("foreign_key", text));
            }
            out.push(pair);
        }
        for (path, file) in self.files.clone() {
            let is_new = wanted.contains_key(&keyid(&file.public)) && !out.iter().any(|p| *p.pk == file.public);
            if is_new {
                let derived = self.derive(&file.recipe, false)?;
                out.push(file.open(&derived, &path.display().to_string())?);
            }
        }
        Ok(out)
    }

    /// `count` new keys for a role that has the keys `old`: those of its variable first, the rest made and sealed in the
    /// folder.
    pub fn make(&mut self, role: &str, count: u64, old: &BTreeMap<String, Public>) -> Result<Vec<Public>> {
        let given = self.in_variable(role)?.into_iter().map(|pair| *pair.pk);
        let mut out: Vec<Public> = given.filter(|public| !old.contains_key(&keyid(public))).collect();
        out.sort();
        out.dedup();
        if out.len() as u64 > count {
            let text = format!("{}: holds {} new keys, the role gets {count}; say how many, or remove some", variable(role), out.len());
            return Err(Failure::new("too_many_keys", text));
        }
        while (out.len() as u64) < count {
            out.push(self.make_file(role)?);
        }
        Ok(out)
    }

    fn make_file(&mut self, role: &str) -> Result<Public> {
        let Some(folder) = self.folder.clone() else {
            let text = format!("a key for '{role}' has to be made; say where with --keys DIR, or put its seed into {}", variable(role));
            return Err(Failure::new("no_keys", text));
        };
        let (recipe, derived) = self.sealing()?;
        let file = KeyFile::seal(role, &Secret(random::<32>().to_vec()), &recipe, &derived)?;
        let free = |n: &u64| !self.files.iter().any(|(p, _)| p.ends_with(format!("{role}-{n}{EXTENSION}")));
        let number = (1..).find(free).unwrap_or(1);
        let path = folder.join(format!("{role}-{number}{EXTENSION}"));
        files::make_folder(&folder, true)?;
        files::write_once(&path, &file.bytes(), files::PRIVATE)?;
        let public = file.public;
        self.files.push((path, file));
        Ok(public)
    }

    /// New keys join the folder's passphrase: the first key file is opened with it first, so that a typing error cannot
    /// make a key that nobody can open.
    fn sealing(&mut self) -> Result<(Recipe, Secret)> {
        let Some((path, file)) = self.files.first().cloned() else {
            let recipe = Recipe::fresh();
            let derived = self.derive(&recipe, true)?;
            return Ok((recipe, derived));
        };
        let derived = self.derive(&file.recipe, false)?;
        file.open(&derived, &path.display().to_string())?;
        Ok((file.recipe, derived))
    }

    fn derive(&mut self, recipe: &Recipe, new: bool) -> Result<Secret> {
        if let Some((_, derived)) = self.derived.iter().find(|(r, _)| r == recipe) {
            return Ok(derived.clone());
        }
        let passphrase = match &self.passphrase {
            Some(passphrase) => passphrase.clone(),
            None => self.passphrase.insert(self.source.read(new)?).clone(),
        };
        let derived = recipe.derive(&passphrase)?;
        self.derived.push((recipe.clone(), derived.clone()));
        Ok(derived)
    }

    fn in_variable(&self, role: &str) -> Result<Vec<KeyPair>> {
        let name = variable(role);
        let Some(text) = (self.env)(&name).map(|t| Secret(t.into_bytes())).filter(|t| !t.0.is_empty()) else { return Ok(Vec::new()) };
        let bad = || Failure::new("bad_key", format!("{name}: expected seeds of 64 lower-case hex digits, separated by commas"));
        let words = std::str::from_utf8(&text.0).map_err(|_| bad())?;
        words.split(',').map(|word| pair(&Secret(hex::decode::<32>(word.trim()).ok_or_else(bad)?.to_vec()))).collect()
    }
}
