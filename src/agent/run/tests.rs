use super::*;
use crate::core::slots::{Condition, Slot};
use crate::io::fs::cut;
use crate::wire::agent_api::OrderWire;

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
