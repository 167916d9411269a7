//! Bit rot: random damage to files of the state folder, then a start, the truth, and an update.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use vmetric::core::hex;

use crate::device::{Device, Flow, copy_folder};
use crate::matrix::{flow_word, tail};
use crate::stage::{NEW, OLD, Stage};
use crate::table::Table;
use crate::{Args, Ended, each};

/// Cases of a run.
const CASES: u64 = 300;
/// The same with `--deep`.
const CASES_DEEP: u64 = 1000;
/// Places damaged at once, at most: rot rarely comes alone.
const PLACES_MAX: u64 = 3;

/// Random numbers from a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// The group `bit-rot`.
pub fn run(stage: &Stage, args: &Args) -> Result<Table, Ended> {
    println!("seed {}", args.seed);
    let both = stage.work.join("both");
    // A device with two confirmed slots: the second update has just been settled by another boot.
    let device = Device::of_seed(stage, &both, &both.join("state"), Flow::File)?;
    device.update_to(stage, Flow::File, NEW, "boot-2", None)?;
    let first = |name: &str| name.rsplit(':').next().and_then(|n| n.parse::<u64>().ok());
    let cases: Vec<u64> = match &args.only {
        Some(name) => vec![first(name).ok_or(format!("'{name}' is no case"))?],
        None => (0..if args.deep { CASES_DEEP } else { CASES }).map(|n| args.seed * 1_000_000 + n).collect(),
    };
    Ok(each(args, &stage.work, &cases, |seed, folder, table| {
        let mut said = Vec::new();
        let outcome = play(stage, *seed, folder, &both.join("state"), &mut said);
        let outcome = outcome.map_err(|why| format!("{why}\n  damage: {}\n  log: {}", said.join("; "), tail(&folder.join("log"))));
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        let flow = flow_word(flow(*seed));
        table.add((flow, &format!("{} damaged", said.len())), &format!("bit-rot:{seed}"), outcome);
    }))
}

fn flow(seed: u64) -> Flow {
    if seed.is_multiple_of(2) { Flow::Online } else { Flow::File }
}

fn play(stage: &Stage, seed: u64, folder: &Path, both: &Path, said: &mut Vec<String>) -> Result<String, String> {
    let mut random = Random(seed);
    let flow = flow(seed);
    let mut device = Device::of_seed(stage, folder, &folder.join("state"), flow)?;
    if random.below(2) == 0 {
        for name in ["slots", "trust", "storage", "marks.0", "marks.1", "order.json", "results.json", "last-result.json", "rejected.json"] {
            let (from, to) = (both.join(name), device.state.join(name));
            let copied = if from.is_dir() { copy_folder(&from, &to) } else { fs::copy(&from, &to).map(drop) };
            // Not every device has every file.
            let _ = copied;
        }
    }
    for _ in 0..=random.below(PLACES_MAX) {
        said.push(damage(&device.state, &mut random)?);
    }
    let mut agent = device.spawn("boot-4", None)?;
    let runs = device.truth(stage, &mut agent);
    // It has read, and repaired, everything when it says what it does.
    device.until_it_speaks();
    // An operator's look at a damaged device must not make it worse, and must say what to do.
    let asked = device.agent(&["-validate"]);
    device.stop(&mut agent);
    let runs = runs?;
    let mut outcome = "repaired itself".to_string();
    if flow == Flow::Online
        && let Err(why) = asked
    {
        let code = why.rsplit_once('(').map_or("", |(_, code)| code.trim_end_matches(')'));
        if code.is_empty() {
            return Err(format!("-validate names no code: {why}"));
        }
        // As the refusal says: what is damaged goes, and the identity is replaced.
        let replace = code.starts_with("device_key");
        if replace {
            remove(&device.state.join("config/device.key")).unwrap_or_default();
        }
        device.enroll(stage, replace).map_err(|e| format!("enrolling after {code}: {e}"))?;
        outcome = format!("had to be enrolled again ({code})");
    }
    let story = device.update_to(stage, flow, NEW, "boot-5", None)?;
    Ok(match (story.codes.first(), runs.as_str()) {
        (_, version) if ![OLD, NEW].contains(&version) => format!("{outcome}, from the factory image"),
        _ => outcome,
    })
}

fn all(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
            all(&path, found);
        }
        found.push(path);
    }
}

/// Damages one file or folder; says what it did.
fn damage(state: &Path, random: &mut Random) -> Result<String, String> {
    let mut found = Vec::new();
    all(state, &mut found);
    let Some(path) = found.get(random.below(found.len() as u64) as usize) else { return Ok("nothing left".into()) };
    let name = path.strip_prefix(state).unwrap_or(path).display().to_string();
    let length = fs::symlink_metadata(path).map_or(0, |m| m.len());
    let plain = fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    let kind = if plain { random.below(10) } else { 6 + random.below(4) };
    let at = random.below(length);
    let open = || File::options().read(true).write(true).open(path);
    let done = match kind {
        0 | 1 => open().and_then(|file| {
            let mut byte = [0];
            file.read_at(&mut byte, at)?;
            byte[0] ^= 1 << random.below(8);
            file.write_all_at(&byte, at)
        }),
        2 => open().and_then(|file| file.set_len(at)),
        3 => open().and_then(|file| file.write_all_at(&vec![0; length.saturating_sub(at & !4095).min(4096) as usize], at & !4095)),
        4 => fs::read(path).and_then(|bytes| fs::write(path, [&bytes[..], &bytes[at as usize..]].concat())),
        5 => fs::rename(state.join("marks.0"), state.join("marks.x"))
            .and_then(|()| fs::rename(state.join("marks.1"), state.join("marks.0")))
            .and_then(|()| fs::rename(state.join("marks.x"), state.join("marks.1")))
            .or(Ok(())),
        6 => remove(path),
        7 => remove(path).and_then(|()| fs::create_dir_all(path.join("lost+found"))),
        8 => remove(path).and_then(|()| std::os::unix::fs::symlink("/nonexistent/lost", path)),
        _ => remove(path).and_then(|()| fs::write(path, hex::encode(&random.next().to_le_bytes()))),
    };
    let what = ["flip", "flip", "truncate", "zero a page", "double", "swap marks", "delete", "folder", "link", "garbage"][kind as usize];
    done.map_err(|e| format!("{what} {name}: {e}"))?;
    Ok(format!("{what} {name} at {at} of {length}"))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}
