use super::*;
use crate::core::copies::KeyFile;

fn enrolled(folder: &std::path::Path) -> (State, Link) {
    let state = State::open(folder).unwrap();
    let key = device_key::read_or_make(&state, KeyFile::Key).unwrap();
    let config = ConfigWire {
        format: 1,
        director: "https://127.0.0.1:1".into(),
        pins: vec![format!("sha256:{}", "00".repeat(32))],
        credential: "credential".into(),
        device_key: Some(key.public()),
        ..Default::default()
    };
    let link = Link::new(&config, &state, None, || {}).unwrap();
    (state, link)
}

#[test]
fn a_key_that_cannot_be_read_is_looked_for_until_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (state, link) = enrolled(folder.path());
    let (config, aside) = (state.path("config"), state.path("config.aside"));
    // Not missing, not damaged: it cannot be told, as on a disk that does not answer.
    std::fs::rename(&config, &aside).unwrap();
    std::fs::File::create(&config).unwrap();
    for _ in 0..2 {
        let said = link.exchange("/agent/v1/report", &ReportWire::default()).unwrap_err();
        assert!(said.reason.detail.contains("device.key"), "it was sent without its proof: {}", said.reason);
        assert!(!said.refused && !said.woken);
    }
    std::fs::remove_file(&config).unwrap();
    std::fs::rename(&aside, &config).unwrap();
    let said = link.exchange("/agent/v1/report", &ReportWire::default()).unwrap_err();
    assert!(!said.reason.detail.contains("device.key"), "nobody listens there, that is all: {}", said.reason);
    assert!(link.bearer("/agent/v1/report", b"").starts_with(&format!("credential{SEPARATOR}")));
}

#[test]
fn a_key_that_is_gone_is_said_by_the_director_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (state, link) = enrolled(folder.path());
    for name in ["config/device.key", "config/device.key.copy"] {
        let _ = std::fs::remove_file(state.path(name));
    }
    assert_eq!(link.find_key(), Ok(()));
    assert_eq!(link.bearer("/agent/v1/report", b""), "credential", "the Director names what is missing");
}
