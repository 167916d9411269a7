use super::*;
use crate::core::rejected::Rejected;
use crate::core::slots::{Condition, Slot};
use crate::io::fs::cut;
use crate::wire::agent_api::{OrderWire, ResultWire};
use crate::wire::records::AcceptedWire;

const SHA: &str = "0202020202020202020202020202020202020202020202020202020202020202";

/// A device with an open order, and a trial in slot b that was lost.
fn device(folder: &Path) -> Device {
    let state = State::open(folder).unwrap();
    let args = RunArgs {
        product: &crate::core::product::AGENT,
        state: folder.to_path_buf(),
        supervise: false,
        raw: Vec::new(),
        env: RunEnv::default(),
    };
    let mut device = load(&args, state, Path::new("/nowhere/vmetric-agent"), Image::Factory, [9; 32], None).unwrap();
    let order = OrderWire {
        issuer: "site".into(),
        generation: 7,
        kind: "update".into(),
        target: "vmetric-agent/2.0.0/linux-amd64/vmetric-agent".into(),
        version: "2.0.0".into(),
        sha256: SHA.into(),
        length: 3,
        ..Default::default()
    };
    assert_eq!(device.accept(order), Ok(true));
    let mut lost = device.marks.clone().start_trial(Slot::B, [3; 32]);
    lost.b.condition = Condition::Failed;
    device.save_marks(lost).unwrap();
    device
}

/// The same device's next process.
#[cfg(unix)]
fn restarted(device: Device, folder: &Path) -> Device {
    drop(device);
    let args = RunArgs {
        product: &crate::core::product::AGENT,
        state: folder.to_path_buf(),
        supervise: false,
        raw: Vec::new(),
        env: RunEnv::default(),
    };
    load(&args, State::open(folder).unwrap(), Path::new("/nowhere/vmetric-agent"), Image::Factory, [9; 32], None).unwrap()
}

/// Whoever opens a link to itself gets an error of the system, as with a bad block.
#[cfg(unix)]
#[test]
fn a_record_that_could_not_be_read_is_read_again_and_never_written_over() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = device(folder.path());
    assert_eq!(next(&mut first), Ok(Turn::Again));
    let lost = first.results.clone();
    assert_eq!((lost.len(), first.rejected.len()), (1, 1));
    let order = first.accepted.clone().unwrap().order;
    let names = ["order.json", "results.json", "rejected.json"];
    let (path, kept) = (|name: &str| folder.path().join(name), |name: &str| elsewhere.path().join(name));
    for name in names {
        std::fs::rename(path(name), kept(name)).unwrap();
        std::os::unix::fs::symlink(name, path(name)).unwrap();
    }
    let mut second = restarted(first, folder.path());
    assert!(second.accepted.is_none() && second.results.is_empty() && second.rejected.is_empty());
    assert_eq!(next(&mut second), Ok(Turn::Idle), "as if there was nothing");
    for name in names {
        std::fs::remove_file(path(name)).unwrap();
        std::fs::rename(kept(name), path(name)).unwrap();
    }
    // A new result and a new rejection come before the next turn: what was there stays.
    let other = ResultWire { id: "other".into(), outcome: "refused".into(), ..Default::default() };
    second.add_result(other.clone()).unwrap();
    let newer = Rejected { sha256: [7; 32], ..second_rejected(folder.path()) };
    second.reject(newer).unwrap();
    assert_eq!(second.results, [lost[0].clone(), other]);
    let mut third = restarted(second, folder.path());
    assert_eq!((third.results.len(), third.rejected.len()), (2, 2));
    assert_eq!(third.accepted.as_ref().map(|a| &a.order), Some(&order));
    third.read_unread();
    assert_eq!((third.results.len(), third.rejected.len()), (2, 2), "nothing is read twice");
}

#[cfg(unix)]
fn second_rejected(folder: &Path) -> Rejected {
    let state = State::open(folder).unwrap();
    let list = state.read::<crate::wire::records::RejectedListWire>("rejected.json").unwrap().unwrap().rejected;
    Rejected::try_from(list.into_iter().next().unwrap()).unwrap()
}

fn on_disk(device: &Device) -> AcceptedWire {
    device.state.read("order.json").unwrap().unwrap()
}

#[test]
fn the_end_of_an_order_that_could_not_be_written_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut device = device(folder.path());
    cut::after(0);
    let said = device.end_order().unwrap_err();
    assert!(said.detail.contains("order.json"), "{said}");
    assert!(device.unsaved && device.accepted.as_ref().unwrap().ended, "ended here");
    assert!(!on_disk(&device).ended, "and still open for the next start");
    for _ in 0..3 {
        assert!(next(&mut device).is_err(), "nothing else is done before");
        assert!(device.unsaved && device.results.is_empty());
    }
    cut::after(usize::MAX);
    assert_eq!(next(&mut device), Ok(Turn::Again));
    assert!(on_disk(&device).ended && !device.unsaved && device.results.is_empty());
    // And now what else there is: the lost trial.
    assert_eq!(next(&mut device), Ok(Turn::Again));
    assert_eq!(device.results.len(), 1);
    assert_eq!(next(&mut device), Ok(Turn::Idle));
}
