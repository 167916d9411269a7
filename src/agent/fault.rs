//! Faults and lowered times, for the demo and the tests. Without the feature `fault` there is nothing here.

use crate::core::times::Times;

/// A fault that is built into a binary (`VMETRIC_FAULT` at build time, feature `fault`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None: every release build.
    None,
    /// Ends with an abort right after its start.
    Crash,
    /// Never takes a turn.
    Hang,
    /// Does not find its Director.
    NoContact,
    /// Fails its self-check.
    SelfCheck,
    /// Fails its self-test before the switch.
    SelfTest,
    /// Aborts at each start once the file `storage/crash-later` is there.
    CrashLater,
    /// A Director whose main loop stands still once the file `storage/hang-main` names its version; its engine's thread goes on.
    HangMain,
}

/// The fault of this build.
#[cfg(feature = "fault")]
pub fn built_in() -> Fault {
    match env!("VMETRIC_BUILT_FAULT") {
        "crash" => Fault::Crash,
        "hang" => Fault::Hang,
        "no-contact" => Fault::NoContact,
        "self-check" => Fault::SelfCheck,
        "self-test" => Fault::SelfTest,
        "crash-later" => Fault::CrashLater,
        "hang-main" => Fault::HangMain,
        _ => Fault::None,
    }
}

/// The fault of this build: none.
#[cfg(not(feature = "fault"))]
pub const fn built_in() -> Fault {
    Fault::None
}

/// The times in force: the default, or in a `fault` build what `VMETRIC_TEST_TIMES` says
/// (`liveness=3,contact=4,cooldown=3,...`, seconds).
#[cfg(not(feature = "fault"))]
pub const fn times() -> Times {
    Times::DEFAULT
}

/// The times in force: the default, or in a `fault` build what `VMETRIC_TEST_TIMES` says
/// (`liveness=3,contact=4,cooldown=3,...`, seconds).
#[cfg(feature = "fault")]
pub fn times() -> Times {
    #[expect(clippy::disallowed_methods, reason = "a test build takes its times from the environment")]
    let text = std::env::var("VMETRIC_TEST_TIMES").unwrap_or_default();
    lowered(&text)
}

/// A name of the device that a test gave it: several devices on one machine.
#[cfg(feature = "fault")]
pub fn hostname() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a test build takes its name from the environment")]
    std::env::var("VMETRIC_TEST_HOSTNAME").ok()
}

/// No test gives a name to a release build's device.
#[cfg(not(feature = "fault"))]
pub const fn hostname() -> Option<String> {
    None
}

#[cfg(feature = "fault")]
fn lowered(text: &str) -> Times {
    let mut times = Times::DEFAULT;
    for (name, value) in text.split(',').filter_map(|p| p.split_once('=')) {
        let Ok(value) = value.parse::<u64>() else { continue };
        match name {
            "liveness" => times.liveness_s = value as u32,
            // The upper bound, too: a Director's order names its own deadline, which is clamped to these.
            "contact" => (times.contact_min_s, times.contact_default_s, times.contact_max_s) = (value, value, value),
            "fresh" => times.contact_fresh_s = value,
            "cooldown" => times.cooldown_s = [value; 4],
            "settled" => times.settled_s = value,
            "recheck" => times.recheck_s = value,
            "answer" => times.answer_s = value,
            "park" => times.park_s = value,
            "check" => times.check_s = value,
            _ => {}
        }
    }
    times
}
