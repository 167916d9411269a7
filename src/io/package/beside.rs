//! The resources beside a factory image: `<image>/package/`, which an operator or a package manager has put there, and
//! `<image>/package.sha256`, what `sha256sum` says of its files. The image's folder is root's, so the list is no signature: it
//! shows an extraction that was cut off, a file of the version before that was left, a rotten disk.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::tree::{for_each, hash};
use super::unpack::TREE;
use crate::core::hex::{self, Sha256};
use crate::core::package::ENTRIES_MAX;
use crate::core::package::check_name;
use crate::core::package::manifest::{LINE_MAX, damaged};
use crate::core::reason::Reason;
use crate::io::fs::open_plain;

/// The list, beside the folder.
pub const SUMS: &str = "package.sha256";

/// Compares the folder with its list; how many files it has. `None`: there is neither.
///
/// # Errors
/// `package_unlisted`: there is nothing to compare it with. `package_damaged`: with the file that is missing, differs, or is
/// one too many.
pub fn check(image: &Path, tick: &mut dyn FnMut()) -> Result<Option<usize>, Reason> {
    let (root, list) = (image.join(TREE), image.join(SUMS));
    let extract = "extract the resources of this version anew, with their list";
    match (root.symlink_metadata().is_ok(), list.symlink_metadata().is_ok()) {
        (false, false) => return Ok(None),
        (true, false) => {
            let remedy =
                format!("cd {} && find {TREE} -type f -exec sha256sum {{}} + > {SUMS}, where it is known to be whole", image.display());
            return Err(Reason::new("package_unlisted", format!("{}: has no {SUMS} beside it: {remedy}", root.display())));
        }
        (false, true) => return Err(damaged(&format!("is missing; {extract}")).of(root.display())),
        (true, true) => {}
    }
    let mut listed = read(&list)?;
    for_each(&root, &mut |path, folder| {
        if folder {
            return Ok(());
        }
        let name = path.strip_prefix(&root).ok().and_then(Path::to_str).unwrap_or_default();
        let wanted = listed.remove(name).ok_or_else(|| damaged(&format!("is not in {SUMS}; {extract}")).of(path.display()))?;
        let found = open_plain(path).and_then(|mut file| hash(&mut file, tick)).map_err(|e| damaged(&e.to_string()).of(path.display()))?;
        match found == wanted {
            true => Ok(()),
            false => Err(damaged(&format!("has other bytes than {SUMS} says; {extract}")).of(path.display())),
        }
    })
    .and_then(|()| match listed.keys().next() {
        None => Ok(()),
        Some(name) => Err(damaged(&format!("is missing; {extract}")).of(root.join(name).display())),
    })?;
    read(&list).map(|listed| Some(listed.len()))
}

fn read(list: &Path) -> Result<BTreeMap<String, Sha256>, Reason> {
    let bad = |why: &str| damaged(why).of(list.display());
    let mut text = String::new();
    let most = ENTRIES_MAX * (LINE_MAX as u64 + 16);
    open_plain(list).and_then(|file| file.take(most + 1).read_to_string(&mut text)).map_err(|e| bad(&e.to_string()))?;
    if text.len() as u64 > most {
        return Err(bad("is too long"));
    }
    let mut listed = BTreeMap::new();
    for (n, line) in text.lines().enumerate() {
        let parse = || {
            let (digits, name) = line.split_once(' ')?;
            let name = name.strip_prefix([' ', '*'])?;
            let name = name.strip_prefix("./").unwrap_or(name).strip_prefix(TREE)?.strip_prefix('/')?;
            check_name(name).ok()?;
            Some((name.to_string(), hex::decode(digits)?))
        };
        let (name, sha256) = parse().ok_or_else(|| bad(&format!("line {}: is not what sha256sum writes of a file in {TREE}/", n + 1)))?;
        listed.insert(name, sha256);
    }
    Ok(listed)
}

#[cfg(test)]
#[cfg(unix)]
#[expect(clippy::disallowed_methods, reason = "tests write files")]
mod tests {
    use std::fs;

    use super::*;

    fn image(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut sums = String::new();
        for (name, text) in files {
            let path = folder.path().join(TREE).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            sums += &format!("{}  {TREE}/{name}\n", hex::encode(&hex::sha256(text.as_bytes())));
        }
        fs::write(folder.path().join(SUMS), sums).unwrap();
        folder
    }

    type Harm = (&'static str, fn(&Path), &'static str, &'static str);

    #[test]
    fn each_damage_has_its_reason_and_the_file() {
        let harms: [Harm; 9] = [
            ("other bytes", |i| fs::write(i.join("package/a/x"), "X").unwrap(), "package_damaged", "package/a/x: has other bytes"),
            ("gone", |i| fs::remove_file(i.join("package/y")).unwrap(), "package_damaged", "package/y: is missing"),
            ("one too many", |i| fs::write(i.join("package/z"), "z").unwrap(), "package_damaged", "package/z: is not in"),
            ("a link", |i| std::os::unix::fs::symlink("y", i.join("package/l")).unwrap(), "package_damaged", "link or a device"),
            ("no folder", |i| fs::remove_dir_all(i.join("package")).unwrap(), "package_damaged", "package: is missing"),
            ("no list", |i| fs::remove_file(i.join(SUMS)).unwrap(), "package_unlisted", "sha256sum"),
            ("a list of something else", |i| fs::write(i.join(SUMS), "hello\n").unwrap(), "package_damaged", "line 1"),
            ("a name that leaves", |i| fs::write(i.join(SUMS), "00  package/../x\n").unwrap(), "package_damaged", "line 1"),
            ("no text", |i| fs::write(i.join(SUMS), [0xff]).unwrap(), "package_damaged", SUMS),
        ];
        for (what, harm, code, part) in harms {
            let folder = image(&[("a/x", "x"), ("y", "y")]);
            assert_eq!(check(folder.path(), &mut || {}), Ok(Some(2)), "{what}");
            harm(folder.path());
            let reason = check(folder.path(), &mut || {}).unwrap_err();
            assert!(reason.code == code && reason.detail.contains(part), "{what}: {reason}");
        }
        assert_eq!(check(tempfile::tempdir().unwrap().path(), &mut || {}), Ok(None));
    }
}
