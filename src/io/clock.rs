//! Reads the clocks. Everyone else gets time as an argument.
#![expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::core::rejected::Moment;

/// The wall clock, seconds since 1970; 0 for a clock before that.
pub fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Time since boot, suspend included where the system tells; never goes back.
pub fn monotonic() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(all(unix, not(target_os = "linux")))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    #[cfg(unix)]
    {
        let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        #[expect(unsafe_code, reason = "clock_gettime writes one timespec that we own")]
        let rc = unsafe { libc::clock_gettime(CLOCK, &mut ts) };
        if rc == 0 { Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32) } else { Duration::ZERO }
    }
    #[cfg(not(unix))]
    {
        use std::sync::OnceLock;
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }
}

/// The id of this boot; all that is known of it where the system has none is that it is this process's.
pub fn boot_id() -> String {
    #[cfg(feature = "fault")]
    if let Ok(id) = std::env::var("VMETRIC_TEST_BOOT_ID") {
        return id;
    }
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => id.trim().chars().take(64).collect(),
        Err(_) => boot_time(),
    }
}

/// Where there is no boot id: the second in which this system started, by its own clock.
fn boot_time() -> String {
    format!("started-{}", unix().saturating_sub(monotonic().as_secs()) / 10)
}

/// Now, in all the ways a decision needs. `floor` is the latest signed time known.
pub fn moment(floor: u64) -> Moment {
    Moment { unix: unix().max(floor), monotonic: monotonic().as_secs(), boot_id: boot_id() }
}
