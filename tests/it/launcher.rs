//! The launcher on a played device: every error of `execve(2)`, every failing write, every failing check.

#[cfg(unix)]
mod device;
#[cfg(unix)]
mod rig;

use std::io;

use vmetric::agent::launcher::{Site, launch};
use vmetric::core::reason::Reason;
use vmetric::core::slots::{Condition, Image, Marks, Slot};

const FACTORY: [u8; 32] = [9; 32];

/// What execve(2) may fail with: POSIX, and what Linux adds.
const EXEC_ERRORS: [i32; 22] = [
    libc::E2BIG,
    libc::EACCES,
    libc::EAGAIN,
    libc::EFAULT,
    libc::EINVAL,
    libc::EIO,
    libc::EISDIR,
    libc::ELIBBAD,
    libc::ELOOP,
    libc::EMFILE,
    libc::ENAMETOOLONG,
    libc::ENFILE,
    libc::ENOENT,
    libc::ENOEXEC,
    libc::ENOMEM,
    libc::ENOTDIR,
    libc::EPERM,
    libc::ETXTBSY,
    libc::EINTR,
    libc::ENOSYS,
    libc::EROFS,
    libc::ESTALE,
];

/// Codes a slot's check fails with, in `agent::run` and below it.
const CHECK_CODES: [&str; 6] = ["slot_damaged", "slot_missing", "slot_signature", "no_root", "root_unreadable", "hash_mismatch"];

/// A device that writes down what the launcher does.
struct Played {
    marks: Marks,
    saves: Vec<Marks>,
    save_fails: Vec<bool>,
    check: [Option<Reason>; 2],
    exec: [Option<Reason>; 2],
    /// Slots whose file was executed, and the marks that were durable then.
    started: Vec<(Slot, Option<Marks>)>,
    told: Vec<String>,
}

impl Played {
    fn new(marks: Marks) -> Played {
        let (saves, save_fails, started, told) = (vec![], vec![], vec![], vec![]);
        Played { marks, saves, save_fails, check: [None, None], exec: [None, None], started, told }
    }

    /// Runs the launcher: the image that runs in the end, and the marks it leaves in memory.
    fn launch(&mut self) -> Image {
        let marks = launch(self);
        match self.started.last() {
            // The played exec "succeeds" by ending the launcher's turns; see `start`.
            Some((slot, _)) if self.exec[*slot as usize].is_none() => Image::Slot(*slot),
            _ => {
                assert_eq!(
                    marks.map(|m| m.active),
                    Some(Image::Factory),
                    "the launcher goes on as the factory image, the marks say otherwise"
                );
                Image::Factory
            }
        }
    }
}

/// Ends the launcher as a successful exec would.
struct Replaced;

impl Site for Played {
    fn load(&mut self) -> Marks {
        self.marks.clone()
    }
    fn factory(&mut self) -> [u8; 32] {
        FACTORY
    }
    fn boot_id(&mut self) -> String {
        "boot".into()
    }
    fn save(&mut self, marks: &Marks) -> Result<(), Reason> {
        let turn = self.saves.len();
        self.saves.push(marks.clone());
        match self.save_fails.get(turn).copied().unwrap_or(false) {
            true => Err(Reason::new("state_not_writable", io::Error::from_raw_os_error(libc::EROFS).to_string())),
            false => {
                self.marks = marks.clone();
                Ok(())
            }
        }
    }
    fn check(&mut self, slot: Slot, _: &[u8; 32]) -> Result<(), Reason> {
        self.check[slot as usize].clone().map_or(Ok(()), Err)
    }
    fn start(&mut self, slot: Slot) -> Result<(), Reason> {
        self.started.push((slot, self.saves.last().filter(|m| **m == self.marks).cloned()));
        match self.exec[slot as usize].clone() {
            Some(reason) => Err(reason),
            None => std::panic::panic_any(Replaced),
        }
    }
    fn tell(&mut self, what: &str) {
        self.told.push(what.to_string());
    }
}

fn run(site: &mut Played) -> Image {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| site.launch()));
    match result {
        Ok(image) => image,
        Err(payload) if payload.is::<Replaced>() => Image::Slot(site.started.last().unwrap().0),
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

fn confirmed(slots: &[Slot]) -> Marks {
    let marks = slots
        .iter()
        .rev()
        .fold(Marks::default(), |marks, slot| marks.start_trial(*slot, [*slot as u8 + 1; 32]).confirm(*slot, 0, "long ago", 0));
    Marks { factory: FACTORY, ..marks }
}

/// A on trial, B confirmed.
fn trial() -> Marks {
    confirmed(&[Slot::B]).start_trial(Slot::A, [1; 32])
}

fn exec_failed(errno: i32) -> Reason {
    Reason::new("exec_failed", io::Error::from_raw_os_error(errno).to_string())
}

const A: Image = Image::Slot(Slot::A);
const B: Image = Image::Slot(Slot::B);

#[test]
fn whatever_exec_says_the_next_image_starts() {
    quiet();
    for errno in EXEC_ERRORS {
        for (marks, fail, expected) in [
            (confirmed(&[Slot::A, Slot::B]), [true, false], B),
            (confirmed(&[Slot::B, Slot::A]), [false, true], A),
            (confirmed(&[Slot::A, Slot::B]), [true, true], Image::Factory),
            (confirmed(&[Slot::A]), [true, false], Image::Factory),
            (trial(), [true, false], B),
            (trial(), [true, true], Image::Factory),
            (confirmed(&[Slot::A, Slot::B]), [false, true], A),
        ] {
            let mut site = Played::new(marks);
            site.exec = fail.map(|fails| fails.then(|| exec_failed(errno)));
            let what = exec_failed(errno).to_string();
            assert_eq!(run(&mut site), expected, "{what} {fail:?}");
            let failed: Vec<Slot> = Slot::BOTH.into_iter().filter(|s| site.marks.slot(*s).condition == Condition::Failed).collect();
            for slot in &failed {
                let marks = site.marks.slot(*slot);
                assert_eq!((marks.failure.as_ref().unwrap(), marks.bad), (&exec_failed(errno), false), "no fault of the release");
            }
            assert_eq!(site.told.len(), failed.len(), "every fall is told: {:?}", site.told);
            assert!(site.told.iter().all(|t| t.contains("exec_failed")), "{:?}", site.told);
        }
    }
}

#[test]
fn whatever_the_check_finds_the_file_is_not_started() {
    quiet();
    for code in CHECK_CODES {
        for (marks, fail, expected) in [
            (confirmed(&[Slot::A, Slot::B]), [true, false], B),
            (confirmed(&[Slot::A, Slot::B]), [true, true], Image::Factory),
            (trial(), [true, false], B),
            (trial(), [true, true], Image::Factory),
        ] {
            let mut site = Played::new(marks);
            site.check = fail.map(|fails| fails.then(|| Reason::new(code, "x")));
            assert_eq!(run(&mut site), expected, "{code}");
            assert!(site.started.iter().all(|(slot, _)| !fail[*slot as usize]), "{code}: {:?}", site.started);
            assert_eq!(site.marks.a.failure.as_ref().unwrap().code, code);
        }
    }
}

#[test]
fn a_trial_starts_only_when_its_start_is_counted() {
    quiet();
    // Every pattern of failing and succeeding writes over all turns.
    for pattern in 0..16u32 {
        let fails: Vec<bool> = (0..4).map(|turn| pattern & (1 << turn) != 0).collect();
        let mut site = Played::new(trial());
        site.save_fails = fails.clone();
        let image = run(&mut site);
        assert_eq!(image, if fails[0] { B } else { A }, "{fails:?}");
        for (slot, durable) in &site.started {
            let condition = site.saves.last().unwrap().slot(*slot).condition;
            let counted = durable.as_ref().is_some_and(|m| m.slot(*slot).evidence.starts == 1);
            assert!(condition == Condition::Confirmed || counted, "a trial started uncounted: {fails:?}");
        }
        if fails == [true, false, false, false] {
            assert_eq!(site.marks.a.failure.as_ref().unwrap().code, "start_not_counted");
            assert!(!site.marks.a.bad);
        }

        let mut site = Played::new(confirmed(&[Slot::A, Slot::B]));
        site.save_fails = fails.clone();
        assert_eq!(run(&mut site), A, "a read-only disk does not stop a confirmed version: {fails:?}");

        let mut site = Played::new(Marks { factory: FACTORY, ..Marks::default() });
        site.save_fails = fails;
        assert_eq!(run(&mut site), Image::Factory);
    }
    // A full disk and two broken slots at once.
    let mut site = Played::new(trial());
    site.save_fails = vec![true; 9];
    site.check = [None, Some(Reason::new("slot_damaged", "x"))];
    assert_eq!(run(&mut site), Image::Factory);
    assert!(site.started.is_empty());
}

#[test]
fn marks_are_durable_before_anything_starts() {
    quiet();
    for marks in [trial(), confirmed(&[Slot::A, Slot::B]), confirmed(&[Slot::B, Slot::A])] {
        for broken in 0..3 {
            let mut site = Played::new(marks.clone());
            if broken > 0 {
                site.check[broken - 1] = Some(Reason::new("slot_damaged", "x"));
            }
            let image = run(&mut site);
            let (slot, durable) = site.started.last().expect("a slot starts");
            let durable = durable.as_ref().expect("the decision was not saved before the start");
            assert_eq!((durable.active, image), (Image::Slot(*slot), Image::Slot(*slot)));
            assert!(durable.slot(*slot).evidence.starts >= 1);
        }
    }
}

/// A played exec unwinds; nobody wants to read about it.
fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Replaced>() {
                default(info);
            }
        }));
    });
}
