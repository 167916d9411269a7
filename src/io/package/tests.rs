#![expect(clippy::disallowed_methods, reason = "the tests make files that are not durable")]

use std::fs;
use std::path::{Path, PathBuf};

use ed25519_compact::{KeyPair, Seed};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::unpack::{LIST, Package, TREE, unpack};
use super::*;
use crate::core::hex::sha256;
use crate::core::release::{Artifact, build_prefix};
use crate::io::fs::cut;

/// One tar entry as bytes, its checksum right.
fn entry_of(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    raw(name, kind, data, |_| {})
}

fn raw(name: &str, kind: u8, data: &[u8], bend: impl Fn(&mut [u8; BLOCK])) -> Vec<u8> {
    let mut h = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| h[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    bend(&mut h);
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = [&h[..], data].concat();
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A slot, and a folder beside it that no archive may touch.
struct Rig {
    dir: tempfile::TempDir,
    key: KeyPair,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["slots/b", "user"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        fs::write(dir.path().join("user/mine"), b"mine").unwrap();
        Rig { dir, key: KeyPair::from_seed(Seed::new([7; 32])) }
    }

    fn slot(&self) -> PathBuf {
        self.dir.path().join("slots/b")
    }

    /// Puts a signed archive beside the slot.
    fn sign(&self, file: &str, bytes: &[u8], unpacked: Unpacked) -> (PathBuf, Package) {
        let path = format!("vmetric-director/2.5.0/linux-amd64/{file}");
        let message = [&build_prefix(&path, bytes.len() as u64), bytes].concat();
        let artifact = Artifact {
            path: path.parse().unwrap(),
            length: bytes.len() as u64,
            sha256: sha256(bytes),
            min_version: None,
            counter: 0,
            build_keyid: "k".into(),
            build_sig: *self.key.sk.sign(&message, None),
        };
        let at = self.dir.path().join(file);
        fs::write(&at, bytes).unwrap();
        (at, Package { artifact, unpacked, key: self.key.pk })
    }

    fn unpack(&self, file: &str, bytes: &[u8], unpacked: Unpacked) -> Result<Sha256, Reason> {
        let (at, package) = self.sign(file, bytes, unpacked);
        unpack(&at, &package, &self.slot(), &mut || {})
    }

    /// Everything below the state folder but archives, as text.
    fn found(&self) -> Vec<String> {
        fn walk(folder: &Path, out: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                out.push(path.display().to_string());
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    walk(&path, out);
                }
            }
        }
        let mut out = Vec::new();
        walk(self.dir.path(), &mut out);
        let top = format!("{}/", self.dir.path().display());
        let mut out: Vec<String> = out.iter().map(|p| p.replace(&top, "")).filter(|p| !p.starts_with("package.")).collect();
        out.sort();
        out
    }
}

use crate::core::hex::Sha256;

const UNTOUCHED: [&str; 4] = ["slots", "slots/b", "user", "user/mine"];

fn of(bytes: u64, files: u64) -> Unpacked {
    Unpacked { bytes, files }
}

/// A folder with a bit of everything.
#[cfg(feature = "release")]
fn folder(dir: &Path) -> PathBuf {
    let folder = dir.join("in");
    fs::create_dir_all(folder.join("lookups/empty")).unwrap();
    fs::create_dir_all(folder.join(format!("pipelines/{}", "x".repeat(80)))).unwrap();
    fs::write(folder.join("lookups/ports.csv"), b"22,ssh\n").unwrap();
    fs::write(folder.join(format!("pipelines/{}/{}.yml", "x".repeat(80), "y".repeat(60))), b"a: 1\n".repeat(50_000)).unwrap();
    fs::write(folder.join("tool"), b"#!/bin/sh\n").unwrap();
    #[cfg(unix)]
    fs::set_permissions(folder.join("tool"), std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    folder
}

#[test]
#[cfg(feature = "release")]
fn what_is_packed_unpacks_to_the_same_and_is_the_same_bytes_twice() {
    let other = tempfile::tempdir().unwrap();
    let input = folder(other.path());
    for (format, file) in [(Format::Zstd, "package.tar.zst"), (Format::Gzip, "package.tar.gz")] {
        let rig = Rig::new();
        let (bytes, unpacked) = pack::pack(&input, format).unwrap();
        assert_eq!(pack::pack(&folder(rig.dir.path()), format).unwrap().0, bytes, "another folder with the same files");
        fs::remove_dir_all(rig.dir.path().join("in")).unwrap();
        assert_eq!((unpacked.files, measure(format, &bytes).unwrap()), (3, unpacked));
        let hash = rig.unpack(file, &bytes, unpacked).unwrap();
        let head = tree::check(&rig.slot(), &hash, &mut || {}).unwrap();
        assert_eq!((head.unpacked, head.artifact.path.file.as_str()), (unpacked, file));
        let at = |name: &str| rig.slot().join(TREE).join(name);
        assert_eq!(fs::read(at("lookups/ports.csv")).unwrap(), b"22,ssh\n");
        assert!(at("lookups/empty").is_dir());
        #[cfg(unix)]
        for (name, mode) in [("tool", 0o755), ("lookups/ports.csv", 0o644)] {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777, mode, "{name}");
        }
        // Twice is once: not a byte is written again.
        let before = fs::metadata(rig.slot().join(LIST)).unwrap().modified().unwrap();
        assert_eq!(rig.unpack(file, &bytes, unpacked).unwrap(), hash);
        assert_eq!(fs::metadata(rig.slot().join(LIST)).unwrap().modified().unwrap(), before);
        assert!(rig.found().iter().all(|p| UNTOUCHED.contains(&p.as_str()) || p.starts_with("slots/b/package")), "{:?}", rig.found());
    }
}

#[test]
fn nothing_is_unpacked_before_it_verifies() {
    let bytes = zst(&tar(&[entry_of("a", b'0', b"abc")]));
    for (code, bend) in [
        ("file_hash", &(|p: &mut Package| p.artifact.sha256[0] ^= 1) as &dyn Fn(&mut Package)),
        ("file_signature", &|p| p.artifact.path = "vmetric-director/2.5.1/linux-amd64/package.tar.zst".parse().unwrap()),
        ("file_signature", &|p| p.key = KeyPair::from_seed(Seed::new([8; 32])).pk),
        ("file_too_long", &|p| p.artifact.length -= 1),
        ("file_too_short", &|p| p.artifact.length += 1),
    ] {
        let rig = Rig::new();
        let (at, mut package) = rig.sign("package.tar.zst", &bytes, of(3, 1));
        bend(&mut package);
        assert_eq!(unpack(&at, &package, &rig.slot(), &mut || {}).unwrap_err().code, code);
        assert_eq!(rig.found(), UNTOUCHED, "{code}");
    }
}

/// Every attack, by its archive before it is packed; each is signed, so that only unpacking itself can refuse it.
fn attacks() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let a = || entry_of("a", b'0', b"abc");
    let named = |name: &str| tar(&[a(), entry_of(name, b'0', b"x")]);
    let kind = |kind: u8, target: &str| {
        tar(&[a(), raw("l", kind, b"", |h| h[157..157 + target.len()].copy_from_slice(target.as_bytes())), entry_of("l/x", b'0', b"x")])
    };
    let pax = |text: &str| tar(&[entry_of("p", b'x', text.as_bytes()), a()]);
    let size = |field: &'static [u8]| tar(&[raw("a", b'0', b"abc", move |h| h[124..124 + field.len()].copy_from_slice(field))]);
    let mut cut_off = tar(&[a(), entry_of("b", b'0', &[1; 900])]);
    cut_off.truncate(1800);
    let mut no_end = tar(&[a()]);
    no_end.truncate(1024);
    let mut half_end = tar(&[a()]);
    half_end.truncate(1536);
    let mut bad_sum = tar(&[a()]);
    bad_sum[148] ^= 1;
    let mut hidden = tar(&[a()]);
    hidden.extend(tar(&[entry_of("b", b'0', b"hidden behind the end")]));
    let mut padded = tar(&[a()]);
    padded.resize(1024 * 1024, 0);
    vec![
        ("absolute", "package_name", named("/etc/cron.d/x")),
        ("up", "package_name", named("../../user/x")),
        ("up in the middle", "package_name", named("a/../../x")),
        ("a drive", "package_name", named("C:x")),
        ("backslashes", "package_name", named("..\\x")),
        ("a device of Windows", "package_name", named("lookups/NUL.csv")),
        ("a trailing dot", "package_name", named("b.")),
        ("not UTF-8", "package_name", tar(&[a(), raw("bb", b'0', b"x", |h| h[0] = 0xff)])),
        ("too long", "package_name", tar(&[a(), raw(&"n".repeat(100), b'0', b"x", |h| h[345..445].fill(b'p'))])),
        ("too deep", "package_name", named("1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17")),
        ("twice", "package_duplicate", named("a")),
        ("twice in two forms", "package_duplicate", named("./a")),
        ("a file as a folder", "package_duplicate", named("a/b")),
        ("other case", "package_collision", named("A")),
        ("a link out", "package_type", kind(b'2', "/etc")),
        ("a link up", "package_type", kind(b'2', "../../user")),
        ("a link within", "package_type", kind(b'2', "a")),
        ("a hard link out", "package_type", kind(b'1', "../../user/mine")),
        ("a character device", "package_type", kind(b'3', "")),
        ("a block device", "package_type", kind(b'4', "")),
        ("a pipe", "package_type", kind(b'6', "")),
        ("a contiguous file", "package_type", kind(b'7', "")),
        ("an old header's file", "package_type", kind(0, "")),
        ("a path by pax", "package_type", pax("25 path=../../user/mine\n")),
        ("a size by pax", "package_type", pax("10 size=9\n")),
        ("pax for all", "package_type", tar(&[entry_of("p", b'g', b"25 path=../../user/mine\n"), a()])),
        ("a long name by GNU", "package_type", tar(&[entry_of("././@LongLink", b'L', b"../../user/x\0"), a()])),
        ("a sparse file", "package_type", kind(b'S', "")),
        ("a volume", "package_type", kind(b'V', "")),
        ("a set-user-ID bit", "package_mode", tar(&[raw("a", b'0', b"abc", |h| h[100..108].copy_from_slice(b"0004755\0"))])),
        ("a size in base 256", "package_header", size(b"\x80\0\0\0\0\0\0\0\0\0\0\x03")),
        ("a negative size", "package_truncated", size(b"-0000000003\0")),
        ("a size of exabytes", "package_too_large", size(b"777777777777")),
        ("a size beyond the end", "package_truncated", size(b"00000001750\0")),
        ("no ustar", "package_header", tar(&[raw("a", b'0', b"abc", |h| h[257..265].fill(0))])),
        ("a damaged header", "package_truncated", bad_sum),
        ("cut off", "package_truncated", cut_off),
        ("no end", "package_truncated", no_end),
        ("half an end", "package_truncated", half_end),
        ("hidden behind its end", "package_trailing", hidden),
        ("endless zeros", "package_trailing", padded),
        ("nothing", "package_truncated", vec![]),
    ]
}

#[test]
fn every_attack_is_refused_and_leaves_nothing() {
    let mut tried = 0;
    for (name, code, tar) in attacks() {
        for (file, packed) in [("package.tar.zst", zst(&tar)), ("package.tar.gz", gz(&tar))] {
            let rig = Rig::new();
            // A declaration that fits is the hardest case: the release plane itself was deceived.
            let declared = of(1003, 2);
            let reason = rig.unpack(file, &packed, declared).unwrap_err();
            assert_eq!(reason.code, code, "{name}, {file}: {reason}");
            assert_eq!(rig.found(), UNTOUCHED, "{name}, {file}");
            assert_eq!(fs::read(rig.dir.path().join("user/mine")).unwrap(), b"mine", "{name}");
            let before = measure(Format::of(file).unwrap(), &packed).unwrap_err();
            // Without a declaration the release tool's own limits hold.
            assert!(before.code == code, "{name}, {file}: the release tool says {before}");
            tried += 1;
        }
    }
    assert!(tried >= 80, "{tried}");
}

#[test]
fn the_packed_stream_has_no_tricks_either() {
    let good = tar(&[entry_of("a", b'0', b"abc")]);
    let other = tar(&[entry_of("b", b'0', b"abc")]);
    let mut wide = zst(&good);
    // The window descriptor of the frame: 2^41 bytes and more.
    wide[5] = 0xff;
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &zst(&good)].concat();
    let mut dictionary = zst(&good);
    dictionary[4] |= 1;
    for (name, file, bytes, code) in [
        ("a second member", "package.tar.gz", [gz(&good), gz(&other)].concat(), "package_trailing"),
        ("a second frame", "package.tar.zst", [zst(&good), zst(&other)].concat(), "package_trailing"),
        ("a byte behind", "package.tar.zst", [zst(&good), vec![0]].concat(), "package_trailing"),
        ("a byte behind", "package.tar.gz", [gz(&good), vec![0]].concat(), "package_trailing"),
        ("a skipped frame", "package.tar.zst", skippable, "package_format"),
        ("a wide window", "package.tar.zst", wide, "package_format"),
        ("a dictionary", "package.tar.zst", dictionary, "package_format"),
        ("another packer", "package.tar.zst", gz(&good), "package_format"),
        ("another packer", "package.tar.gz", zst(&good), "package_format"),
        ("no packer", "package.tar.gz", good.clone(), "package_format"),
        ("another name", "package.zip", zst(&good), "package_format"),
        ("cut off", "package.tar.zst", zst(&good)[..20].to_vec(), "package_truncated"),
        ("cut off", "package.tar.gz", gz(&good)[..40].to_vec(), "package_truncated"),
        ("empty", "package.tar.gz", vec![], "package_format"),
    ] {
        let rig = Rig::new();
        let reason = rig.unpack(file, &bytes, of(3, 1)).unwrap_err();
        assert_eq!(reason.code, code, "{name}, {file}: {reason}");
        assert_eq!(rig.found(), UNTOUCHED, "{name}, {file}");
    }
}

#[test]
fn bombs_cost_nothing_and_a_package_in_a_package_stays_packed() {
    let zeros = tar(&[entry_of("z", b'0', &vec![0; 32 * 1024 * 1024])]);
    for (file, bytes) in [("package.tar.zst", zst(&zeros)), ("package.tar.gz", gz(&zeros))] {
        let rig = Rig::new();
        assert_eq!(rig.unpack(file, &bytes, of(32 * 1024 * 1024, 1)).unwrap_err().code, "package_bomb");
        assert_eq!(rig.unpack(file, &bytes, of(100, 1)).unwrap_err().code, "package_too_large");
        assert_eq!(rig.found(), UNTOUCHED);
    }
    let files: Vec<Vec<u8>> = (0..40).map(|n| entry_of(&format!("{n}"), b'0', b"")).collect();
    let rig = Rig::new();
    assert_eq!(rig.unpack("package.tar.gz", &gz(&tar(&files)), of(0, 39)).unwrap_err().code, "package_too_many");
    assert_eq!(rig.unpack("package.tar.gz", &gz(&tar(&files)), of(0, 41)).unwrap_err().code, "package_truncated");
    assert_eq!(rig.found(), UNTOUCHED);
    let inner = gz(&zeros);
    let outer = zst(&tar(&[entry_of("inner.tar.gz", b'0', &inner)]));
    let hash = rig.unpack("package.tar.zst", &outer, of(inner.len() as u64, 1)).unwrap();
    assert_eq!(fs::read(rig.slot().join("package/inner.tar.gz")).unwrap(), inner);
    assert!(tree::check(&rig.slot(), &hash, &mut || {}).is_ok());
}

#[test]
#[cfg(unix)]
fn a_tree_that_is_not_the_released_one_is_seen() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let bytes = zst(&tar(&[entry_of("d/a", b'0', b"abc"), entry_of("d/b", b'0', b"abc")]));
    for (name, bend) in [
        ("a bit", &(|t: &Path| fs::write(t.join("d/a"), b"abd").unwrap()) as &dyn Fn(&Path)),
        ("longer", &|t| fs::write(t.join("d/a"), b"abcd").unwrap()),
        ("gone", &|t| fs::remove_file(t.join("d/b")).unwrap()),
        ("one more", &|t| fs::write(t.join("d/c"), b"").unwrap()),
        ("one more folder's", &|t| fs::create_dir(t.join("e")).and_then(|()| fs::write(t.join("e/x"), b"")).unwrap()),
        ("a link", &|t| fs::remove_file(t.join("d/b")).and_then(|()| symlink("a", t.join("d/b"))).unwrap()),
        ("a linked folder", &|t| symlink("d", t.join("e")).unwrap()),
        ("a pipe", &|t| assert!(std::process::Command::new("mkfifo").arg(t.join("p")).status().unwrap().success())),
        ("executable", &|t| fs::set_permissions(t.join("d/a"), PermissionsExt::from_mode(0o755)).unwrap()),
        ("no tree", &|t| fs::remove_dir_all(t).unwrap()),
        ("a list's bit", &|t| {
            let list = t.with_file_name(LIST);
            let text = fs::read_to_string(&list).unwrap().replace("d/b", "d/x");
            fs::write(list, text).unwrap();
        }),
        ("no list", &|t| fs::remove_file(t.with_file_name(LIST)).unwrap()),
    ] {
        let rig = Rig::new();
        let hash = rig.unpack("package.tar.zst", &bytes, of(6, 2)).unwrap();
        assert!(tree::check(&rig.slot(), &hash, &mut || {}).is_ok());
        bend(&rig.slot().join(TREE));
        assert_eq!(tree::check(&rig.slot(), &hash, &mut || {}).unwrap_err().code, "package_damaged", "{name}");
        // The same archive again repairs it.
        assert_eq!(rig.unpack("package.tar.zst", &bytes, of(6, 2)).unwrap(), hash, "{name}");
        assert!(tree::check(&rig.slot(), &hash, &mut || {}).is_ok(), "{name}");
    }
}

#[test]
fn two_trees_say_what_changed() {
    let rig = Rig::new();
    let first = zst(&tar(&[entry_of("a", b'0', b"abc"), entry_of("b", b'0', b"abc")]));
    rig.unpack("package.tar.zst", &first, of(6, 2)).unwrap();
    let old = rig.dir.path().join("slots/a");
    fs::rename(rig.slot(), &old).unwrap();
    fs::create_dir(rig.slot()).unwrap();
    let second = zst(&tar(&[entry_of("a", b'0', b"abd"), entry_of("c", b'0', b"abc")]));
    rig.unpack("package.tar.zst", &second, of(6, 2)).unwrap();
    let text = tree::what_changed(&old, &rig.slot()).unwrap().to_string();
    assert_eq!(text, "resources: 1 added (c), 1 changed (a), 1 removed (b); 0 unchanged");
    assert_eq!(tree::what_changed(Path::new("/nowhere"), &rig.slot()).unwrap().added.count, 2);
    assert_eq!(tree::what_changed(&old, Path::new("/nowhere")).unwrap_err().code, "package_damaged");
}

/// What a test process tells its child: the folder to work in.
const CHILD: &str = "VMETRIC_TEST_UNPACK";

/// In a process of its own, so that its peak is of this work alone: a window and some pieces, whatever the size. (50 MB cost
/// 3.9 MiB packed by zstd and 0.3 MiB by gzip; 16 MB tell the same, sooner.)
#[test]
#[cfg(target_os = "linux")]
fn a_large_package_takes_constant_memory() {
    const LIMIT_KIB: u64 = 10 * 1024;
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    if let Some(folder) = std::env::var_os(CHILD) {
        let (rig, folder) = (Rig::new(), PathBuf::from(folder));
        for file in ["package.tar.zst", "package.tar.gz"] {
            let read = fs::read_to_string(folder.join(format!("{file}.txt"))).unwrap();
            let mut words = read.split_whitespace();
            let artifact = Artifact {
                path: format!("vmetric-director/2.5.0/linux-amd64/{file}").parse().unwrap(),
                length: words.next().unwrap().parse().unwrap(),
                sha256: crate::core::hex::decode(words.next().unwrap()).unwrap(),
                min_version: None,
                counter: 0,
                build_keyid: "k".into(),
                build_sig: crate::core::hex::decode(words.next().unwrap()).unwrap(),
            };
            let package = Package { artifact, unpacked: of(16_000_000, 160), key: rig.key.pk };
            let before = peak();
            let hash = unpack(&folder.join(file), &package, &rig.slot(), &mut || {}).unwrap();
            tree::check(&rig.slot(), &hash, &mut || {}).unwrap();
            println!("{file}: {} KiB more than before", peak() - before);
            assert!(peak() - before < LIMIT_KIB, "{file}: {before} KiB before, {} after", peak());
        }
        return;
    }
    let (rig, mut seed) = (Rig::new(), 1u64);
    // Words that pack to a third or so.
    let mut data = Vec::with_capacity(100_100);
    while data.len() < 100_000 {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        data.extend_from_slice(format!("{:x},", seed >> 44).as_bytes());
    }
    data.truncate(100_000);
    let files = (0..160).map(|n| {
        data.rotate_left(617);
        entry_of(&format!("lookups/{n}.csv"), b'0', &data)
    });
    let tar = tar(&files.collect::<Vec<_>>());
    for (file, bytes) in [("package.tar.zst", zst(&tar)), ("package.tar.gz", gz(&tar))] {
        let (_, package) = rig.sign(file, &bytes, of(16_000_000, 160));
        let a = package.artifact;
        let text = format!("{} {} {}", a.length, crate::core::hex::encode(&a.sha256), crate::core::hex::encode(&a.build_sig));
        fs::write(rig.dir.path().join(format!("{file}.txt")), text).unwrap();
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "io::package::tests::a_large_package_takes_constant_memory", "--nocapture"]);
    let output = child.env(CHILD, rig.dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
}

/// A damaged tree is put right beside; the power goes before each change of the disk, once and once more.
#[cfg(feature = "director")]
#[test]
fn a_cut_of_a_repair_leaves_a_tree_that_the_next_try_makes_whole() {
    let rig = Rig::new();
    let bytes = zst(&tar(&[entry_of("d/a", b'0', b"abc"), entry_of("b", b'0', &[5; 100_000])]));
    let (at, package) = rig.sign("package.tar.zst", &bytes, of(100_003, 2));
    let slot = rig.slot();
    let repair = |cut_after: usize| {
        cut::after(cut_after);
        let done = again::open(&slot).and_then(|beside| unpack(&at, &package, &beside, &mut || {})).and_then(|_| again::replace(&slot));
        cut::after(usize::MAX);
        done
    };
    let whole = unpack(&at, &package, &slot, &mut || {}).unwrap();
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |slot| fs::write(slot.join(TREE).join("d/a"), b"evil").unwrap(),
        |slot| fs::remove_dir_all(slot.join(TREE)).unwrap(),
        |slot| fs::write(slot.join(LIST), b"x").unwrap(),
        |slot| fs::write(slot.join(TREE).join("more"), b"x").unwrap(),
    ];
    let sound = || tree::check(&slot, &whole, &mut || {}).is_ok();
    let mut cuts = 0;
    for damage in damages {
        for first in 0.. {
            damage(&slot);
            assert!(!sound());
            let done = repair(first).is_ok();
            if !done {
                cuts += 1;
                // What the next start does: it looks, then repairs, and that is cut, too.
                for second in 0.. {
                    if sound() || repair(second).is_ok() {
                        break;
                    }
                }
                assert!(sound() || repair(usize::MAX).is_ok(), "cut before {first}");
            }
            assert!(sound(), "cut before {first}");
            again::tidy(&slot).unwrap();
            let mut left: Vec<_> = fs::read_dir(&slot).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            left.sort();
            assert_eq!(left, [TREE, LIST], "cut before {first}");
            if done {
                break;
            }
        }
    }
    assert!(cuts >= 60, "{cuts} cuts");
}

/// The power goes before each change of the disk, once and once more while it is put right.
#[test]
fn a_cut_leaves_the_whole_tree_or_none() {
    let rig = Rig::new();
    let old = zst(&tar(&[entry_of("old", b'0', b"abc")]));
    let new = zst(&tar(&[entry_of("d/a", b'0', b"abc"), entry_of("b", b'0', &[5; 100_000])]));
    let fresh = || {
        let _ = fs::remove_dir_all(rig.slot());
        fs::create_dir_all(rig.slot()).unwrap();
        rig.unpack("package.tar.zst", &old, of(3, 1)).unwrap()
    };
    let run = |cut_after: usize| {
        let (at, package) = rig.sign("package.tar.zst", &new, of(100_003, 2));
        cut::after(cut_after);
        let result = unpack(&at, &package, &rig.slot(), &mut || {});
        cut::after(usize::MAX);
        result
    };
    let old_hash = fresh();
    let whole = run(usize::MAX).unwrap();
    let either_or = |place: &str| {
        if let Ok(hash) = tree::hash_list(&rig.slot()) {
            assert!(hash == whole || hash == old_hash, "{place}");
            assert!(tree::check(&rig.slot(), &hash, &mut || {}).is_ok(), "{place}: a list without its tree");
        }
    };
    let mut cuts = 0;
    for first in 0.. {
        fresh();
        if run(first).is_ok() {
            break;
        }
        cuts += 1;
        either_or(&format!("cut before {first}"));
        let between: Vec<String> = rig.found();
        for second in 0.. {
            if run(second).is_ok() {
                break;
            }
            either_or(&format!("cut before {first}, then {second}"));
        }
        assert_eq!(run(usize::MAX).unwrap(), whole, "cut before {first}: {between:?}");
        assert!(tree::check(&rig.slot(), &whole, &mut || {}).is_ok());
    }
    assert!(cuts >= 15, "{cuts} cuts");
    assert_eq!(fs::read(rig.dir.path().join("user/mine")).unwrap(), b"mine");
}
