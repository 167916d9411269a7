//! The launcher as it is shipped: the real program, a real folder, and every damage that we could think of.
#![allow(clippy::disallowed_methods, reason = "tests write files, wait, and read the clock")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::rig::{AGENT, PATIENCE, Process, Rig, root_json, script};
use vmetric::core::slots::{Condition, Ended, Image, Marks, Slot};
use vmetric::wire::marks::{RECORD, encode};

/// Runs the cases on a few threads: most of their time is waiting for processes. All failures are told, not the first.
fn in_parallel<T: Sync>(cases: &[T], each: impl Fn(&T) + Sync) {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if catch_unwind(AssertUnwindSafe(|| each(case))).is_err() {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 0, "of {} cases failed; each is told above", cases.len());
}

fn replace(path: &Path, bytes: &[u8]) {
    remove(path);
    fs::write(path, bytes).unwrap();
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

type Damage = (&'static str, fn(&Rig), &'static str);

fn both_marks(rig: &Rig, change: impl Fn(&Path)) {
    for copy in ["marks.0", "marks.1"] {
        change(&rig.state().join(copy));
    }
}

#[test]
fn whatever_happens_to_the_marks_the_confirmed_slot_runs() {
    // Slot A was confirmed last, also by its own files: lost marks must find it again.
    let cases: &[Damage] = &[
        ("nothing", |_| {}, "a"),
        ("both missing", |rig| both_marks(rig, remove), "a"),
        ("both empty", |rig| both_marks(rig, |p| replace(p, b"")), "a"),
        ("both truncated", |rig| both_marks(rig, |p| replace(p, &fs::read(p).unwrap()[..300])), "a"),
        ("both too long", |rig| both_marks(rig, |p| replace(p, &[b' '; 2 * RECORD])), "a"),
        ("both random", |rig| both_marks(rig, |p| replace(p, &noise(RECORD, 1))), "a"),
        ("both zero", |rig| both_marks(rig, |p| replace(p, &[0; RECORD])), "a"),
        ("both erased flash", |rig| both_marks(rig, |p| replace(p, &[0xff; RECORD])), "a"),
        (
            "both folders",
            |rig| {
                both_marks(rig, |p| {
                    remove(p);
                    fs::create_dir(p).unwrap();
                })
            },
            "a",
        ),
        ("both pipes", |rig| both_marks(rig, pipe), "a"),
        (
            "both links into nothing",
            |rig| {
                both_marks(rig, |p| {
                    remove(p);
                    symlink("/nonexistent/marks", p).unwrap();
                })
            },
            "a",
        ),
        ("the newer one torn", |rig| replace(&rig.state().join("marks.1"), &fs::read(rig.state().join("marks.1")).unwrap()[..99]), "a"),
        ("the older one torn", |rig| replace(&rig.state().join("marks.0"), b"{"), "a"),
        (
            "one a folder",
            |rig| {
                remove(&rig.state().join("marks.0"));
                fs::create_dir(rig.state().join("marks.0")).unwrap();
            },
            "a",
        ),
        ("a future format", future_format, "a"),
        ("a future word", |rig| both_marks(rig, |p| rewrite(p, "\"confirmed\"", "\"sealed\"")), "a"),
        (
            "both missing, slot A unconfirmed",
            |rig| {
                both_marks(rig, remove);
                remove(&rig.in_slot(Slot::A, "confirmed"));
            },
            "b",
        ),
        (
            "both missing, nothing confirmed",
            |rig| {
                both_marks(rig, remove);
                Slot::BOTH.iter().for_each(|s| remove(&rig.in_slot(*s, "confirmed")));
            },
            "factory",
        ),
    ];
    run_cases(cases);
}

/// Runs each case, and then says whether the marks can be written again: a start that cannot be counted has no end.
fn run_cases(cases: &[Damage]) {
    in_parallel(cases, |(what, damage, expected)| {
        let rig = Rig::with_slots();
        damage(&rig);
        let runs = rig.runs();
        assert_eq!(runs, *expected, "{what}:\n{}", rig.said());
        let active = rig.marks().active;
        assert_eq!(active.name(), *expected, "{what}: the start was not counted\n{}", rig.said());
    });
}

fn rewrite(path: &Path, from: &str, to: &str) {
    let record = String::from_utf8(fs::read(path).unwrap()).unwrap();
    let line = record.lines().next().unwrap().replace(from, to);
    assert!(line.contains(to), "nothing was replaced");
    let sum = vmetric::core::hex::encode(&vmetric::core::hex::sha256(line.as_bytes()));
    let mut record = format!("{line}\n{sum}\n").into_bytes();
    record.resize(RECORD, b' ');
    replace(path, &record);
}

/// What a version from the future may have left: a higher number, and fields that nobody here knows.
fn future_format(rig: &Rig) {
    both_marks(rig, |path| {
        rewrite(path, "{\"format\":1,", "{\"format\":9,\"zone\":{\"x\":[1,null]},");
        rewrite(path, "\"evidence\":{", "\"evidence\":{\"temperature\":-7.5,");
    });
}

fn pipe(path: &Path) {
    remove(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 1;
    let mode = fs::metadata(path).unwrap().permissions();
    replace(path, &bytes);
    fs::set_permissions(path, mode).unwrap();
}

type Change<'a> = (&'a str, &'a (dyn Fn(&Rig) + Sync));

#[test]
fn a_damaged_slot_gives_way_to_the_other_one() {
    let program = |rig: &Rig| rig.in_slot(Slot::A, "vmetric-agent");
    let described = |rig: &Rig| rig.in_slot(Slot::A, "slot.json");
    let cases: &[Change] = &[
        ("slot.json is missing", &|rig| remove(&described(rig))),
        ("slot.json is empty", &|rig| replace(&described(rig), b"")),
        ("slot.json is torn", &|rig| replace(&described(rig), &fs::read(described(rig)).unwrap()[..200])),
        ("slot.json is a folder", &|rig| {
            remove(&described(rig));
            fs::create_dir(described(rig)).unwrap();
        }),
        ("slot.json is a pipe", &|rig| pipe(&described(rig))),
        ("slot.json is that of the other slot", &|rig| {
            fs::copy(rig.in_slot(Slot::B, "slot.json"), described(rig)).unwrap();
        }),
        ("another hash", &|rig| rewrite_text(&described(rig), "\"sha256\":\"", "\"sha256\":\"00")),
        ("another length", &|rig| rewrite_text(&described(rig), "\"length\":", "\"length\":1")),
        ("another platform", &|rig| rewrite_text(&described(rig), "vmetric-agent/2.0.0/", "vmetric-agent/2.0.9/")),
        ("a wrong signature", &|rig| rewrite_text(&described(rig), "\"build_sig\":\"", "\"build_sig\":\"0000")),
        ("another build key's name", &|rig| rewrite_text(&described(rig), "\"build_keyid\":\"", "\"build_keyid\":\"x")),
        ("signed by a key that nobody lists", &|rig| rig.install_signed(Slot::A, &script("a"), 66)),
        ("the program is truncated", &|rig| replace(&program(rig), &script("a")[..9])),
        ("the program is longer", &|rig| replace(&program(rig), &[script("a"), b"\n".to_vec()].concat())),
        ("the program has one bit flipped", &|rig| flip(&program(rig), 25)),
        ("the program is not executable", &|rig| {
            fs::set_permissions(program(rig), fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("the program is empty", &|rig| replace(&program(rig), b"")),
        ("the program is missing", &|rig| remove(&program(rig))),
        ("the program is a folder", &|rig| {
            remove(&program(rig));
            fs::create_dir(program(rig)).unwrap();
        }),
        ("the program is a link into nothing", &|rig| {
            remove(&program(rig));
            symlink("/nonexistent/vmetric-agent", program(rig)).unwrap();
        }),
        ("the program is a link to itself", &|rig| {
            remove(&program(rig));
            symlink("vmetric-agent", program(rig)).unwrap();
        }),
        ("the program is a pipe", &|rig| pipe(&program(rig))),
        ("the slot is gone", &|rig| remove(program(rig).parent().unwrap())),
        ("the slot is a file", &|rig| {
            remove(program(rig).parent().unwrap());
            fs::write(program(rig).parent().unwrap(), b"x").unwrap();
        }),
        ("the interpreter is missing", &|rig| reinstall(rig, b"#!/nonexistent/sh\n")),
        ("no format that the kernel knows", &|rig| reinstall(rig, &noise(2000, 3))),
        ("a processor of another kind", &|rig| {
            let mut elf = fs::read(AGENT).unwrap()[..4096].to_vec();
            elf[18] = 0xf3;
            reinstall(rig, &elf);
        }),
    ];
    in_parallel(cases, |(what, damage)| {
        let rig = Rig::with_slots();
        damage(&rig);
        let (process, name) = rig.run_until_it_runs();
        assert_eq!(name, "b", "{what}:\n{}", rig.said());
        drop(process);
        let marks = rig.marks();
        assert_eq!((marks.a.condition, marks.active), (Condition::Failed, Image::Slot(Slot::B)), "{what}");
        assert!(!marks.a.failure.unwrap().detail.is_empty() && !marks.a.bad, "{what}");
        // Both slots gone: the factory image, whatever it was.
        let rig = Rig::with_slots();
        damage(&rig);
        remove(&rig.in_slot(Slot::B, "vmetric-agent"));
        assert_eq!(rig.runs(), "factory", "{what}, and slot B has no program:\n{}", rig.said());
    });
}

/// Correctly signed, and still nothing that starts.
fn reinstall(rig: &Rig, program: &[u8]) {
    rig.install(Slot::A, program);
    let marks = rig.marks().start_trial(Slot::A, rig.hash(Slot::A)).confirm(Slot::A, 1, "long ago", 0);
    rig.write_marks(&marks);
}

fn rewrite_text(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    let changed = text.replacen(from, to, 1);
    assert_ne!(text, changed, "nothing was replaced");
    // A hash keeps its length.
    let extra = changed.len() - text.len();
    let cut = text.find(from).unwrap() + to.len();
    let hex = from.contains("sha256") || from.contains("sig");
    let changed = if hex { format!("{}{}", &changed[..cut], &changed[cut + extra..]) } else { changed };
    replace(path, changed.as_bytes());
}

#[test]
fn without_root_metadata_a_confirmed_slot_runs_by_its_hash() {
    let cases: &[Damage] = &[
        ("missing", |rig| remove(&rig.path("image/root.json")), "a"),
        ("garbage", |rig| replace(&rig.path("image/root.json"), &noise(900, 2)), "a"),
        ("empty", |rig| replace(&rig.path("image/root.json"), b""), "a"),
        (
            "a folder",
            |rig| {
                remove(&rig.path("image/root.json"));
                fs::create_dir(rig.path("image/root.json")).unwrap();
            },
            "a",
        ),
        ("another one", |rig| replace(&rig.path("image/root.json"), root_json(44).as_bytes()), "factory"),
        (
            "a link to it",
            |rig| {
                fs::rename(rig.path("image/root.json"), rig.path("elsewhere")).unwrap();
                symlink("../elsewhere", rig.path("image/root.json")).unwrap();
            },
            "a",
        ),
        (
            "garbage in the folder of trust",
            |rig| {
                fs::write(rig.state().join("trust/2.root.json"), noise(900, 3)).unwrap();
                fs::create_dir(rig.state().join("trust/timestamp.json")).unwrap();
            },
            "a",
        ),
    ];
    run_cases(cases);
}

#[test]
fn a_changed_factory_image_runs_and_the_slots_stay() {
    let rig = Rig::with_slots();
    let marks = Marks { factory: [3; 32], sequence: 20, ..rig.marks() };
    fs::write(rig.state().join("marks.0"), encode(&marks)).unwrap();
    let (process, name) = rig.run_until_it_runs();
    assert_eq!(name, "factory");
    assert!(rig.said().contains("(manual)"), "{}", rig.said());
    drop(process);
    let marks = rig.marks();
    assert_eq!((marks.a.condition, marks.b.condition, marks.manual), (Condition::Confirmed, Condition::Confirmed, true));
}

#[test]
fn a_factory_image_that_is_replaced_during_a_trial_ends_it_without_a_verdict() {
    let rig = Rig::with_slots();
    let marks = rig.marks().start_trial(Slot::B, rig.hash(Slot::B));
    fs::write(rig.state().join("marks.1"), encode(&Marks { sequence: 20, ..marks })).unwrap();
    let (process, name) = rig.run_until_it_runs();
    assert_eq!(name, "b");
    drop(process);
    // As a package does it: another file under the same name. The agent is its own upgrade: bytes after an ELF file are not read.
    let upgraded = [fs::read(AGENT).unwrap(), b"upgraded".to_vec()].concat();
    fs::remove_file(rig.image()).unwrap();
    crate::write_program(&rig.image(), &upgraded);
    fs::write(rig.path("log"), "").unwrap();
    let (process, name) = rig.run_until_it_runs();
    assert_eq!(name, "factory");
    assert!(rig.said().contains("(manual)"), "{}", rig.said());
    let began = Instant::now();
    while rig.marks().b.condition != Condition::Empty {
        assert!(began.elapsed() < PATIENCE, "the trial has no end: {:?}", rig.marks());
        std::thread::sleep(Duration::from_millis(3));
    }
    drop(process);
    let marks = rig.marks();
    assert_eq!((marks.active, marks.manual, marks.a.condition), (Image::Factory, true, Condition::Confirmed));
    let told = fs::read_to_string(rig.state().join("results.json")).unwrap();
    assert!(told.contains("manual_update") && told.contains("could_not_tell"), "{told}");
    assert!(!rig.state().join("rejected.json").exists(), "nothing was found out about the file");
}

#[test]
fn a_crash_loop_ends_at_the_next_image() {
    let rig = Rig::with_slots();
    reinstall(&rig, b"#!/bin/sh\nkill -SEGV $$\n");
    let mut ends = 0;
    let mut process = rig.start();
    while rig.running_image().is_none() {
        if process.wait(Duration::from_millis(2)).is_some() {
            ends += 1;
            process = rig.start();
        }
    }
    assert_eq!((rig.running_image().unwrap().as_str(), ends), ("b", 5), "{}", rig.said());
    drop(process);
    assert_eq!(rig.marks().a.failure.unwrap().code, "crash_loop");
}

#[test]
fn a_second_agent_refuses_and_names_the_first() {
    let rig = Rig::new();
    let (first, _) = rig.run_until_it_runs();
    let output = rig.command().stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("process {}", first.0.id())), "{said}");

    // The lock goes with the program that a slot holds.
    let rig = Rig::with_slots();
    let (first, name) = rig.run_until_it_runs();
    let output = rig.command().stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), name.as_str()), (Some(3), "a"), "{said}");
    assert!(said.contains(&format!("process {}", first.0.id())), "{said}");
}

/// A device whose slot A holds a copy of the agent itself, on trial.
fn agent_on_trial() -> Rig {
    let rig = Rig::new();
    rig.install(Slot::A, &fs::read(AGENT).unwrap());
    rig.write_marks(&Marks::default().start_trial(Slot::A, rig.hash(Slot::A)));
    rig
}

#[test]
fn a_stop_ends_at_once_and_is_told_from_a_crash() {
    let rig = agent_on_trial();
    let mut fastest = Duration::MAX;
    for (signal, starts) in [(libc::SIGTERM, 1), (libc::SIGINT, 2), (libc::SIGTERM, 3)] {
        let _ = fs::remove_file(rig.path("log"));
        let (mut process, name) = rig.run_until_it_runs();
        assert_eq!(name, "a", "{}", rig.said());
        let began = Instant::now();
        process.signal(signal);
        let status = process.wait(Duration::from_secs(5)).expect("it does not stop");
        fastest = fastest.min(began.elapsed());
        assert_eq!(status.code(), Some(0));
        let evidence = rig.marks().a.evidence;
        assert_eq!((evidence.ended, evidence.starts, evidence.crashes), (Ended::Stopped, starts, 0));
    }
    // The fastest: other tests keep the processors busy.
    assert!(fastest < Duration::from_millis(200), "{fastest:?}");
    // The same for the factory image.
    let rig = Rig::new();
    let (mut process, _) = rig.run_until_it_runs();
    process.signal(libc::SIGTERM);
    assert_eq!(process.wait(Duration::from_secs(5)).unwrap().code(), Some(0));
    assert_eq!(rig.marks().factory_evidence.ended, Ended::Stopped);
}

#[test]
fn a_stop_or_a_wake_at_any_moment_of_the_start_is_no_crash() {
    let delays: Vec<u64> = (0..40).map(|n| n * 3).collect();
    in_parallel(&delays, |delay| {
        for signal in [libc::SIGTERM, libc::SIGHUP] {
            let rig = agent_on_trial();
            let before = rig.marks();
            let mut process = rig.start();
            thread::sleep(Duration::from_millis(*delay));
            process.signal(signal);
            if signal == libc::SIGHUP {
                process.wait(Duration::from_millis(50));
                process.signal(libc::SIGTERM);
            }
            process.wait(Duration::from_secs(5)).expect("it does not stop");
            let after = rig.marks();
            let uncounted = after.a.evidence == before.a.evidence;
            assert!(uncounted || after.a.evidence.ended == Ended::Stopped, "signal {signal} after {delay} ms: {:?}", after.a);
        }
    });
}

#[test]
fn a_killed_trial_is_a_crash_and_goes_back() {
    let rig = agent_on_trial();
    for _ in 0..2 {
        let (process, name) = rig.run_until_it_runs();
        assert_eq!(name, "a");
        drop(process);
        fs::remove_file(rig.path("log")).unwrap();
    }
    assert_eq!(rig.runs(), "factory");
    // The loss is told before the marks forget it.
    let results = fs::read_to_string(rig.state().join("results.json")).unwrap_or_default();
    let failed = rig.marks().a.failure.map(|r| r.code.to_string()).unwrap_or_default();
    assert!(results.contains("crashed_or_hung") || failed == "crashed_or_hung", "{results} {failed}");
}

#[test]
fn a_disk_without_room_stops_nothing_that_was_confirmed() {
    // Every write fails, as on a full disk; the marks' files are there already but refuse as well.
    let full = |rig: &Rig| {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\" 2>/dev/null"]).arg(rig.image());
        rig.command_of(command)
    };
    let rig = Rig::with_slots();
    // The log cannot be written either: the script says by a folder that it runs.
    let says = |name: &str| format!("#!/bin/sh\nmkdir \"$3/ran-{name}\"\nexec sleep 60\n").into_bytes();
    rig.install(Slot::B, &says("b"));
    rig.install(Slot::A, &says("a"));
    let b = Marks::default().start_trial(Slot::B, rig.hash(Slot::B)).confirm(Slot::B, 1, "long ago", 0);
    rig.write_marks(&b.clone().start_trial(Slot::A, rig.hash(Slot::A)).confirm(Slot::A, 1, "long ago", 0));
    let ran = |rig: &Rig, name: &str| wait_for(&rig.state().join(format!("ran-{name}")));
    let process = Process(full(&rig).spawn().unwrap());
    assert!(ran(&rig, "a"), "a confirmed version does not run on a full disk");
    drop(process);
    // On trial it does not start: that start would not be counted.
    fs::remove_dir(rig.state().join("ran-a")).unwrap();
    rig.write_marks(&b.start_trial(Slot::A, rig.hash(Slot::A)));
    let process = Process(full(&rig).spawn().unwrap());
    assert!(ran(&rig, "b") && !rig.state().join("ran-a").exists());
    drop(process);
}

fn wait_for(path: &Path) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        if path.exists() {
            return true;
        }
        thread::sleep(Duration::from_millis(3));
    }
    false
}

/// True where a private mount namespace can be had; a test that needs one says so when it is left out.
fn may_mount() -> bool {
    let may = Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|o| o.status.success());
    if !may {
        crate::left_out("no mount namespaces here");
    }
    may
}

#[test]
fn a_file_system_that_turned_read_only_stops_nothing_that_was_confirmed() {
    if !may_mount() {
        return;
    }
    let read_only = |rig: &Rig| {
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
        command.args(["-rm", "sh", "-c", script]).arg(rig.state()).arg(rig.image());
        rig.command_of(command)
    };
    for locked in [false, true] {
        let rig = Rig::with_slots();
        if locked {
            fs::write(rig.state().join("run.lock"), b"1").unwrap();
            fs::write(rig.state().join("lock"), b"").unwrap();
        }
        let _process = Process(read_only(&rig).spawn().unwrap());
        assert_eq!(wait_to_run(&rig), "a", "{}", rig.said());
    }
    let rig = agent_on_trial();
    let _process = Process(read_only(&rig).spawn().unwrap());
    assert_eq!(wait_to_run(&rig), "factory", "a trial does not start uncounted: {}", rig.said());
}

fn wait_to_run(rig: &Rig) -> String {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        if let Some(name) = rig.running_image() {
            return name;
        }
        thread::sleep(Duration::from_millis(3));
    }
    "nothing".into()
}

type Make = fn(&Path);

#[test]
fn a_request_that_cannot_be_read_does_not_keep_the_agent_busy() {
    let cases: &[(&str, Make)] = &[
        ("a folder", |path| fs::create_dir(path).unwrap()),
        ("too large", |path| fs::write(path, vec![b' '; 100_000]).unwrap()),
        ("garbage", |path| fs::write(path, b"{").unwrap()),
        ("a link into nothing", |path| symlink("/nonexistent", path).unwrap()),
    ];
    in_parallel(cases, |(what, make)| {
        let rig = Rig::new();
        make(&rig.state().join("request.json"));
        let (_process, _) = rig.run_until_it_runs();
        thread::sleep(Duration::from_millis(300));
        assert!(rig.said().lines().count() < 20, "{what}: {} lines in a moment", rig.said().lines().count());
    });
}

/// Files that a device which has worked for years has, with plausible content.
const FILES: [(&str, &str); 12] = [
    ("order.json", "{}"),
    ("results.json", r#"{"results":[]}"#),
    ("rejected.json", r#"{"rejected":[]}"#),
    ("status.json", "{}"),
    ("request.json", "{}"),
    ("tree.json", "{}"),
    ("last-result.json", "{}"),
    ("config/agent.json", r#"{"format":1,"director":"https://127.0.0.1:1","pins":[],"agent_id":"a","credential":"c","issuer":"i"}"#),
    ("trust/timestamp.json", "{}"),
    ("trust/2.root.json", "{}"),
    ("lock", ""),
    ("run.lock", "1"),
];

/// Places that are damaged: all files, and the folders themselves.
const PLACES: [&str; 27] = [
    "order.json",
    "results.json",
    "rejected.json",
    "status.json",
    "request.json",
    "tree.json",
    "last-result.json",
    "config/agent.json",
    "trust/timestamp.json",
    "trust/2.root.json",
    "lock",
    "run.lock",
    "marks.0",
    "marks.1",
    "slots/a/vmetric-agent",
    "slots/a/slot.json",
    "slots/a/confirmed",
    "slots/b/vmetric-agent",
    "slots/b/slot.json",
    "slots/b/confirmed",
    "slots/a",
    "slots/b",
    "slots",
    "config",
    "trust",
    "storage",
    ".status.json.tmp",
];

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % below
    }
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..length).map(|_| dice.roll(256) as u8).collect()
}

/// Damages one place in one of many ways; says how.
fn damage(rig: &Rig, place: &str, dice: &mut Dice) -> &'static str {
    let path = rig.state().join(place);
    let bytes = fs::read(&path).unwrap_or_default();
    match dice.roll(11) {
        0 => (remove(&path), "missing").1,
        1 => (replace(&path, b""), "empty").1,
        2 => (replace(&path, &bytes[..bytes.len() / 2]), "truncated").1,
        3 => (replace(&path, &noise(bytes.len().max(64), dice.0)), "random").1,
        4 => (replace(&path, &vec![0; bytes.len().max(64)]), "zero").1,
        5 => (replace(&path, &[bytes, vec![b'x'; 200_000]].concat()), "longer").1,
        6 => {
            remove(&path);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("inside"), b"x").unwrap();
            "a folder"
        }
        7 => {
            remove(&path);
            symlink("/nonexistent/x", &path).unwrap();
            "a link into nothing"
        }
        8 => (pipe(&path), "a pipe").1,
        9 => {
            remove(&path);
            symlink("/", &path).unwrap();
            "a link to the root folder"
        }
        _ if bytes.is_empty() => "as it is",
        _ => (flip(&path, dice.roll(bytes.len())), "one bit flipped").1,
    }
}

#[test]
fn whatever_happens_to_one_file_something_runs() {
    let seed = std::env::var("VMETRIC_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1u64);
    println!("VMETRIC_TEST_SEED={seed}");
    let cases: Vec<u64> = (0..300).collect();
    in_parallel(&cases, |case| {
        let mut dice = Dice((seed << 32 | case << 8 | 5).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.roll(2);
        // One half with scripts in the slots, one half with the agent itself reading every record.
        let with_slots = case % 2 == 0;
        let rig = if with_slots { Rig::with_slots() } else { Rig::new() };
        for (name, text) in FILES {
            fs::write(rig.state().join(name), text).unwrap();
        }
        let place = PLACES[dice.roll(PLACES.len())];
        let how = damage(&rig, place, &mut dice);
        let runs = rig.runs();
        // Only what a slot is made of may cost that slot.
        let needed = ["slots", "slots/a", "slots/a/vmetric-agent", "slots/a/slot.json"];
        let expected: &[&str] = match with_slots {
            false => &["factory"],
            true if needed.contains(&place) => &["a", "b", "factory"],
            true => &["a"],
        };
        assert!(expected.contains(&runs.as_str()), "seed {seed} case {case}: {place} {how}: {runs} runs\n{}", rig.said());
    });
}
