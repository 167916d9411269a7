#![expect(clippy::disallowed_methods, reason = "the tests make files that are not durable")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::restore::{Restore, restore};
use super::*;
use crate::core::hex::sha256;
use crate::core::product::DIRECTOR;
use crate::core::slots::{Condition, Image, Marks};
use crate::io::lock::Lock;
use crate::wire::slot::SlotWire;

const NOW: u64 = 1_795_000_000;

/// A Director that runs 2.5.0 from slot b, with resources; its factory image is 2.4.0.
struct Rig {
    dir: tempfile::TempDir,
    state: State,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_of(&DIRECTOR, &dir.path().join("s")).unwrap();
        let rig = Rig { dir, state };
        fs::create_dir_all(rig.dir.path().join("image")).unwrap();
        fs::write(rig.image(), b"factory 2.4.0").unwrap();
        fs::write(rig.config(), b"name: a\n").unwrap();
        fs::create_dir_all(rig.state.path("pki")).unwrap();
        for (name, bytes, mode) in
            [("config/fleet.json", &b"{secret}"[..], 0o600), ("pki/ca.key", b"key", 0o600), ("pki/ca.pem", b"cert", 0o644)]
        {
            fs::write(rig.state.path(name), bytes).unwrap();
            fs::set_permissions(rig.state.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(rig.state.path("director.redb"), b"registry").unwrap();
        rig.slot(Slot::B, "2.5.0", b"program 2.5.0", 3);
        let marks = Marks::default().start_trial(Slot::B, sha256(b"program 2.5.0")).confirm(Slot::B, 3, "b", NOW);
        rig.state.save_marks(marks, None, 0).unwrap();
        rig
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image/vmetric-director")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("s/vmetric.yml")
    }

    fn slot(&self, slot: Slot, version: &str, program: &[u8], counter: u64) {
        let folder = self.state.slot_folder(slot);
        self.state.clear_slot(slot, None).unwrap();
        fs::write(self.state.slot_program(slot), program).unwrap();
        fs::set_permissions(self.state.slot_program(slot), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(folder.join("package/lookups")).unwrap();
        let text = format!("of {version}\n");
        fs::write(folder.join("package/lookups/a.csv"), &text).unwrap();
        let hash = hex::encode(&sha256(text.as_bytes()));
        let list = format!(
            "vmetric-package 1\ntarget vmetric-director/{version}/linux-amd64/package.tar.gz\nlength 9\nsha256 {}\nbuild_keyid k\nbuild_sig {}\nunpacked 9 1\n\n{hash} - {} lookups/a.csv\n",
            "0".repeat(64),
            "0".repeat(128),
            text.len()
        );
        fs::write(folder.join(LIST), list).unwrap();
        let wire = SlotWire {
            format: 1,
            target: format!("vmetric-director/{version}/linux-amd64/vmetric-director"),
            version: version.into(),
            length: program.len() as u64,
            sha256: hex::encode(&sha256(program)),
            counter,
            build_keyid: "k".into(),
            build_sig: "0".repeat(128),
            issuer: "fleet".into(),
            generation: 1,
            package: None,
        };
        self.state.write_slot_json(slot, &wire).unwrap();
    }

    fn source(&self, slot: Option<Slot>, version: &str) -> Source<'_> {
        let program = slot.map_or_else(|| self.image(), |slot| self.state.slot_program(slot));
        Source { state: &self.state, version: version.parse().unwrap(), slot, program, config: Some(self.config()), why: "update to 2.6.0" }
    }

    fn make(&self, at: u64) -> Name {
        make(&self.source(Some(Slot::B), "2.5.0"), at, Retention::default()).unwrap()
    }

    fn restore(&self, name: &Name) -> Result<Vec<String>, Reason> {
        let version = "2.4.0".parse().unwrap();
        restore(&Restore { state: &self.state, name: name.clone(), image: self.image(), version, config: Some(self.config()) })
    }

    fn at(&self, name: &Name, file: &str) -> PathBuf {
        self.state.path(FOLDER).join(name.to_string()).join(file)
    }
}

#[test]
fn a_backup_is_whole_private_and_costs_no_second_program() {
    let rig = Rig::new();
    let name = rig.make(NOW);
    assert_eq!(name.to_string(), "20261118T110640Z-2.5.0");
    let (_, index) = index(&rig.state, &name).unwrap();
    let names: Vec<&str> = index.files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names[..3], ["vmetric-director", "slot.json", "vmetric.yml"]);
    assert!(["config/fleet.json", "pki/ca.key", "pki/ca.pem"].iter().all(|n| names.contains(n)), "{names:?}");
    assert!(!names.iter().any(|n| n.contains("redb")), "the registry is never restored");
    assert_eq!((index.why.as_str(), index.package.is_some()), ("update to 2.6.0", true));
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&rig.at(&name, PROGRAM)), inode(&rig.state.slot_program(Slot::B)));
    let resource = "package/lookups/a.csv";
    assert_eq!(inode(&rig.at(&name, resource)), inode(&rig.state.slot_folder(Slot::B).join(resource)));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (file, expected) in [("config/fleet.json", 0o600), ("pki/ca.key", 0o600), ("pki/ca.pem", 0o644), (INDEX, 0o600), ("", 0o700)] {
        assert_eq!(mode(&rig.at(&name, file)), expected, "{file}");
    }
    assert_eq!(mode(&rig.state.path(FOLDER)), 0o700);
    // Two in one second are two, and what was left half made is no backup.
    assert_eq!(rig.make(NOW).at, NOW + 1);
    fs::create_dir_all(rig.state.path("backup/20260101T000000Z-1.0.0")).unwrap();
    fs::create_dir_all(rig.state.path("backup/.new/config")).unwrap();
    assert_eq!(list(&rig.state).len(), 2);
    assert_eq!(rig.make(NOW).at, NOW + 2);
}

#[test]
fn a_factory_image_is_copied_because_an_operator_may_write_over_it() {
    let rig = Rig::new();
    let name = make(&rig.source(None, "2.4.0"), NOW, Retention::default()).unwrap();
    fs::write(rig.image(), b"the next one, by hand").unwrap();
    assert_eq!(fs::read(rig.at(&name, PROGRAM)).unwrap(), b"factory 2.4.0");
    assert!(!rig.at(&name, "slot.json").exists() && !rig.at(&name, TREE).exists());
}

#[test]
fn older_backups_go_and_links_are_no_reason_to_keep_them() {
    let rig = Rig::new();
    for n in 0..7 {
        rig.make(NOW + n);
    }
    let left: Vec<u64> = list(&rig.state).iter().map(|f| f.name.at).collect();
    assert_eq!(left, [NOW + 2, NOW + 3, NOW + 4, NOW + 5, NOW + 6]);
    let one = list(&rig.state)[0].bytes;
    make(&rig.source(Some(Slot::B), "2.5.0"), NOW + 9, Retention { count: 5, bytes: 2 * one + one / 2 }).unwrap();
    assert_eq!(list(&rig.state).iter().map(|f| f.name.at).collect::<Vec<_>>(), [NOW + 6, NOW + 9]);
    assert_eq!(fs::read(rig.state.slot_program(Slot::B)).unwrap(), b"program 2.5.0");
}

#[test]
fn a_backup_that_cannot_be_made_stops_the_update_and_leaves_no_half() {
    let rig = Rig::new();
    fs::remove_file(rig.state.slot_program(Slot::B)).unwrap();
    assert!(make(&rig.source(Some(Slot::B), "2.5.0"), NOW, Retention::default()).is_err());
    assert!(list(&rig.state).is_empty());
    let rig = Rig::new();
    fs::File::create(rig.state.path("config/huge")).unwrap().set_len(FILE_MAX + 1).unwrap();
    let reason = make(&rig.source(Some(Slot::B), "2.5.0"), NOW, Retention::default()).unwrap_err();
    assert_eq!(reason.code, "backup_too_large");
}

#[test]
fn a_restore_brings_program_resources_and_configuration_back_and_can_be_undone() {
    let rig = Rig::new();
    let name = rig.make(NOW);
    // Two updates later, nothing of 2.5.0 is left but the backup.
    rig.slot(Slot::A, "2.6.0", b"program 2.6.0", 3);
    rig.slot(Slot::B, "2.7.0", b"program 2.7.0", 3);
    let loaded = rig.state.load_marks();
    let marks = Marks::default().start_trial(Slot::A, sha256(b"program 2.6.0")).confirm(Slot::A, 3, "b", NOW);
    let marks = marks.start_trial(Slot::B, sha256(b"program 2.7.0")).confirm(Slot::B, 3, "b", NOW);
    rig.state.save_marks(marks, loaded.from, loaded.marks.sequence).unwrap();
    fs::write(rig.config(), b"name: b\n").unwrap();
    fs::write(rig.state.path("config/fleet.json"), b"{other}").unwrap();
    fs::write(rig.state.path("director.redb"), b"newer registry").unwrap();

    let said = rig.restore(&name).unwrap();
    let after = rig.state.load_marks().marks;
    assert_eq!((after.active, after.slot(Slot::A).condition), (Image::Slot(Slot::A), Condition::Confirmed), "{said:?}");
    assert_eq!(fs::read(rig.state.slot_program(Slot::A)).unwrap(), b"program 2.5.0");
    assert_eq!(rig.state.slot_json(Slot::A).unwrap().version, "2.5.0");
    assert_eq!(fs::read(rig.state.slot_folder(Slot::A).join("package/lookups/a.csv")).unwrap(), b"of 2.5.0\n");
    let hash = crate::io::package::tree::hash_list(&rig.state.slot_folder(Slot::A)).unwrap();
    crate::io::package::tree::check(&rig.state.slot_folder(Slot::A), &hash, &mut || {}).unwrap();
    assert_eq!(fs::read(rig.config()).unwrap(), b"name: a\n");
    assert_eq!(fs::read(rig.state.path("config/fleet.json")).unwrap(), b"{secret}");
    assert_eq!(fs::metadata(rig.state.path("config/fleet.json")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(rig.state.path("director.redb")).unwrap(), b"newer registry");
    let note = note::read(&rig.state).unwrap().unwrap();
    assert!(note.code == "backup_restored" && note.detail.contains(&name.to_string()), "it is recorded: {note:?}");

    let undo = list(&rig.state).pop().unwrap().name;
    assert_eq!(undo.version.to_string(), "2.7.0");
    rig.restore(&undo).unwrap();
    assert_eq!(rig.state.load_marks().marks.active, Image::Slot(Slot::B));
    assert_eq!(fs::read(rig.state.slot_program(Slot::B)).unwrap(), b"program 2.7.0");
    assert_eq!(fs::read(rig.config()).unwrap(), b"name: b\n");
}

#[test]
fn what_cannot_be_restored_changes_nothing() {
    let before = |rig: &Rig| (rig.state.load_marks().marks, fs::read(rig.config()).unwrap(), list(&rig.state));
    let index_of = |rig: &Rig, name: &Name| fs::read_to_string(rig.at(name, INDEX)).unwrap();
    for (code, bend) in [
        ("backup_unknown", &(|rig: &Rig, name: &Name| fs::remove_dir_all(rig.at(name, "")).unwrap()) as &dyn Fn(&Rig, &Name)),
        ("backup_damaged", &|rig, name| fs::write(rig.at(name, "config/fleet.json"), b"{s3cret}").unwrap()),
        ("backup_damaged", &|rig, name| fs::remove_file(rig.at(name, PROGRAM)).unwrap()),
        ("backup_damaged", &|rig, name| fs::write(rig.at(name, INDEX), b"{").unwrap()),
        ("backup_damaged", &|rig, name| {
            let text = index_of(rig, name).replace("config/fleet.json", "config/../../x");
            fs::write(rig.at(name, INDEX), text).unwrap();
        }),
        ("package_damaged", &|rig, name| {
            fs::remove_file(rig.at(name, "package/lookups/a.csv")).unwrap();
            fs::write(rig.at(name, "package/lookups/a.csv"), b"of 2.5.1\n").unwrap();
        }),
        ("below_floor", &|rig, _| {
            rig.slot(Slot::A, "2.6.0", b"program 2.6.0", 9);
            let loaded = rig.state.load_marks();
            let marks = loaded.marks.clone().start_trial(Slot::A, sha256(b"program 2.6.0")).confirm(Slot::A, 9, "b", NOW);
            rig.state.save_marks(marks, loaded.from, loaded.marks.sequence).unwrap();
        }),
    ] {
        let rig = Rig::new();
        let name = rig.make(NOW);
        bend(&rig, &name);
        let there = before(&rig);
        assert_eq!(rig.restore(&name).unwrap_err().code, code);
        assert_eq!(before(&rig), there, "{code}");
    }
    let rig = Rig::new();
    let name = rig.make(NOW);
    let path = rig.state.path("run.lock");
    let held = Lock::take(&path).unwrap();
    assert_eq!(rig.restore(&name).unwrap_err().code, "director_runs");
    drop(held);
    assert!(rig.restore(&name).unwrap().iter().any(|line| line.contains("2.5.0 runs already")));
}

#[test]
fn a_rollback_puts_back_only_what_the_migration_wrote() {
    for (name, edit, expected) in [
        ("untouched", &(|_: &Path| {}) as &dyn Fn(&Path), &b"name: a\n"[..]),
        ("edited", &|path| fs::write(path, b"name: mine\n").unwrap(), b"name: mine\n"),
        ("as before", &|path| fs::write(path, b"name: a\n").unwrap(), b"name: a\n"),
    ] {
        let rig = Rig::new();
        let backup = rig.make(NOW);
        migrated::write(&rig.state, "2.6.0", &backup, &rig.config(), b"name: a # by 2.6.0\n").unwrap();
        edit(&rig.config());
        assert_eq!(migrated::undo(&rig.state, "2.5.9").unwrap(), None, "another version");
        let said = migrated::undo(&rig.state, "2.6.0").unwrap().unwrap();
        assert_eq!(fs::read(rig.config()).unwrap(), expected, "{name}");
        let both = rig.at(&backup, "vmetric.yml.edited");
        assert_eq!((both.exists(), said.contains("edited since")), (name == "edited", name == "edited"), "{said}");
        assert_eq!(fs::read(rig.at(&backup, CONFIG)).unwrap(), b"name: a\n");
        assert_eq!(migrated::undo(&rig.state, "2.6.0").unwrap(), None, "once");
    }
}
