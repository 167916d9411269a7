//! Which file counts, of those that make a device itself: its configuration, its key, the copy of each, and the key of an
//! `enroll --replace` under way. One rule for all of them, for every point of a power cut and one damaged file on top:
//!
//! * The configuration decides, and a whole one decides whatever its copy says. It names the key by its public half; the
//!   file that holds that key wins, whichever it is.
//! * A copy is written *before* its file, so it is never older than the file: what it brings back is the identity that
//!   the Director knows.
//! * A configuration that is missing was removed by somebody, and no copy brings it back. One that is damaged was not.
//! * A key that the configuration does not name is left alone: it is the one of a replacement that was not answered yet.

/// What a look at a file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// There is none.
    Missing,
    /// There is something, and it cannot be read as what it should be.
    Damaged,
    /// This.
    Whole(T),
}

/// What to do about the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigStep {
    /// Nothing.
    Nothing,
    /// Make the copy anew.
    Copy,
    /// Put the copy in the file's place.
    Restore,
}

/// Decides for the configuration and its copy.
pub fn config_step<T: PartialEq>(file: &Found<T>, copy: &Found<T>) -> ConfigStep {
    match (file, copy) {
        (Found::Whole(file), Found::Whole(copy)) if file == copy => ConfigStep::Nothing,
        (Found::Whole(_), _) => ConfigStep::Copy,
        (Found::Damaged, Found::Whole(_)) => ConfigStep::Restore,
        _ => ConfigStep::Nothing,
    }
}

/// A file with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFile {
    /// The key in use.
    Key,
    /// The key of a replacement under way.
    New,
    /// Copy of the first.
    KeyCopy,
    /// Copy of the second.
    NewCopy,
}

impl KeyFile {
    /// All, in the order in which they are asked.
    pub const ALL: [KeyFile; 4] = [KeyFile::Key, KeyFile::New, KeyFile::KeyCopy, KeyFile::NewCopy];

    /// Where the copy of this file's key is; a copy is its own.
    pub fn copy(self) -> KeyFile {
        match self {
            KeyFile::Key | KeyFile::KeyCopy => KeyFile::KeyCopy,
            KeyFile::New | KeyFile::NewCopy => KeyFile::NewCopy,
        }
    }
}

/// One durable change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStep {
    /// The first file's bytes become the second's.
    Copy(KeyFile, KeyFile),
    /// The file goes.
    Remove(KeyFile),
}

/// The file that holds the key which the configuration names; `files`: the public halves, in the order of [`KeyFile::ALL`].
pub fn holder(named: &str, files: &[Found<String>; 4]) -> Option<KeyFile> {
    KeyFile::ALL.into_iter().find(|file| is(named, files, *file))
}

/// What brings the named key to its place and its copy, and ends a replacement that it was the key of. Each step is done
/// when the one before it is; after any number of them what is left is decided again, and is the same.
pub fn key_steps(named: &str, files: &[Found<String>; 4]) -> Vec<KeyStep> {
    let Some(from) = holder(named, files) else { return Vec::new() };
    let missing = [KeyFile::KeyCopy, KeyFile::Key].into_iter().filter(|to| !is(named, files, *to));
    let copies = missing.map(|to| KeyStep::Copy(from, to));
    // Left in place, the next replacement would ask with the key that is already registered.
    let both = [KeyFile::New, KeyFile::NewCopy];
    let replaced = both.into_iter().any(|file| is(named, files, file));
    // The damaged one first: only the whole one says whose it was.
    let damaged = both.into_iter().filter(|file| replaced && files[*file as usize] == Found::Damaged);
    let whole = both.into_iter().filter(|file| is(named, files, *file));
    copies.chain(damaged.chain(whole).map(KeyStep::Remove)).collect()
}

fn is(named: &str, files: &[Found<String>; 4], file: KeyFile) -> bool {
    matches!(&files[file as usize], Found::Whole(public) if public == named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_configuration_decides_and_a_missing_one_stays_missing() {
        use Found::{Damaged, Missing, Whole};
        for copy in [Missing, Damaged, Whole(2)] {
            assert_eq!(config_step(&Whole(1), &copy), ConfigStep::Copy);
            assert_eq!(config_step(&Missing, &copy), ConfigStep::Nothing);
        }
        assert_eq!(config_step(&Whole(1), &Whole(1)), ConfigStep::Nothing);
        assert_eq!(config_step(&Damaged, &Whole(1)), ConfigStep::Restore);
        assert_eq!(config_step::<u8>(&Damaged, &Damaged), ConfigStep::Nothing);
    }

    fn end_of(step: &KeyStep) -> (bool, KeyFile) {
        match step {
            KeyStep::Copy(_, to) => (true, *to),
            KeyStep::Remove(file) => (false, *file),
        }
    }

    #[test]
    fn whatever_the_four_files_hold_the_named_key_gets_to_its_place_step_by_step() {
        let kinds = [Found::Missing, Found::Damaged, Found::Whole("named".to_string()), Found::Whole("other".to_string())];
        for n in 0..256 {
            let mut files = [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6 & 3].map(|kind: usize| kinds[kind].clone());
            let before = files.clone();
            let there = holder("named", &files).is_some();
            loop {
                assert_eq!(holder("named", &files).is_some(), there, "{before:?}: no step loses the key");
                let steps = key_steps("named", &files);
                match steps.first() {
                    None => break,
                    Some(KeyStep::Copy(from, to)) => files[*to as usize] = files[*from as usize].clone(),
                    Some(KeyStep::Remove(file)) => files[*file as usize] = Found::Missing,
                }
                // From whichever file holds it by now.
                let ends = |steps: &[KeyStep]| steps.iter().map(end_of).collect();
                let (rest, planned): (Vec<_>, Vec<_>) = (ends(&key_steps("named", &files)), ends(&steps[1..]));
                assert_eq!(rest, planned, "{before:?}: the rest is the same rest");
            }
            if there {
                assert!(is("named", &files, KeyFile::Key) && is("named", &files, KeyFile::KeyCopy), "{before:?}");
                assert!(!is("named", &files, KeyFile::New) && !is("named", &files, KeyFile::NewCopy), "{before:?}");
            } else {
                assert_eq!(files, before);
            }
            let pending = |files: &[Found<String>; 4]| files[1] == kinds[3];
            assert_eq!(pending(&files), pending(&before), "{before:?}: a replacement under way goes on");
        }
    }
}
