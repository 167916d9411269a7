//! Reads the clocks. Everyone else gets time as an argument.
#![expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::core::clock::Moment;

/// The wall clock, seconds since 1970; 0 for a clock before that.
pub fn unix() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    #[cfg(feature = "fault")]
    let unix = unix.saturating_add_signed(shifted::read().wall_s);
    unix
}

/// Time since boot, suspend included where the system tells; never goes back.
pub fn monotonic() -> Duration {
    let time = sys::since_boot();
    #[cfg(feature = "fault")]
    let time = Duration::from_millis((time.as_millis() as u64).saturating_add_signed(shifted::read().uptime_s.saturating_mul(1000)));
    time
}

/// Time that this system was awake since boot: for deadlines that end in an act nobody could have prevented while asleep.
pub fn awake() -> Duration {
    sys::awake()
}

/// The id of this boot; all that is known of it where the system has none is that it is this process's.
pub fn boot_id() -> String {
    #[cfg(feature = "fault")]
    if let Ok(id) = std::env::var("VMETRIC_TEST_BOOT_ID") {
        return id;
    }
    // Where there is none: the second in which this system started, by its own clock.
    sys::boot_id().unwrap_or_else(|| format!("started-{}", unix().saturating_sub(monotonic().as_secs()) / 10))
}

/// Now, in all the ways a decision needs. `floor` is the latest signed time known.
pub fn moment(floor: u64, director: Option<u64>) -> Moment {
    Moment { unix: unix().max(floor), monotonic: monotonic().as_secs(), boot_id: boot_id(), director }
}

#[cfg(target_os = "macos")]
use super::darwin as sys;

/// One of the kernel's clocks.
#[cfg(unix)]
pub(super) fn read(clock: libc::clockid_t) -> Duration {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "clock_gettime writes one timespec that we own")]
    let rc = unsafe { libc::clock_gettime(clock, &mut ts) };
    if rc == 0 { Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32) } else { Duration::ZERO }
}

#[cfg(all(unix, not(target_os = "macos")))]
mod sys {
    use std::time::Duration;

    use super::read;

    pub fn since_boot() -> Duration {
        #[cfg(target_os = "linux")]
        return read(libc::CLOCK_BOOTTIME);
        #[cfg(not(target_os = "linux"))]
        awake()
    }

    pub fn awake() -> Duration {
        read(libc::CLOCK_MONOTONIC)
    }

    pub fn boot_id() -> Option<String> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().chars().take(64).collect())
    }
}

#[cfg(windows)]
mod sys {
    use std::time::Duration;

    use windows_sys::Wdk::System::SystemInformation::{NtQuerySystemInformation, SystemTimeOfDayInformation};
    use windows_sys::Win32::System::SystemInformation::GetTickCount64;
    use windows_sys::Win32::System::WindowsProgramming::QueryUnbiasedInterruptTime;

    /// Goes on while the system sleeps. Its steps of 16 ms are fine enough for everything that is timed here.
    pub fn since_boot() -> Duration {
        #[expect(unsafe_code, reason = "takes nothing, returns a number")]
        Duration::from_millis(unsafe { GetTickCount64() })
    }

    pub fn awake() -> Duration {
        let mut ticks = 0;
        #[expect(unsafe_code, reason = "writes one number of ours")]
        unsafe {
            QueryUnbiasedInterruptTime(&mut ticks);
        }
        Duration::from_micros(ticks / 10)
    }

    /// When the kernel started, in 100 ns, without what the wall clock was set by since. The registry's `BootId` counts
    /// only where prefetching is on, which it is not on servers; the identifier of the boot environment names the
    /// installation, not the boot.
    pub fn boot_id() -> Option<String> {
        // SYSTEM_TIMEOFDAY_INFORMATION: boot time, current time, zone bias, zone id, reserved, boot time bias, sleep bias.
        let mut info = [0u64; 6];
        #[expect(unsafe_code, reason = "the system writes at most as many bytes as the array has")]
        let status = unsafe {
            let (place, size) = (info.as_mut_ptr().cast(), size_of_val(&info) as u32);
            NtQuerySystemInformation(SystemTimeOfDayInformation, place, size, std::ptr::null_mut())
        };
        (status >= 0 && info[0] != 0).then(|| format!("boot-{:x}", info[0].wrapping_sub(info[4])))
    }
}

/// Clocks that a test sets while the process runs.
#[cfg(feature = "fault")]
mod shifted {
    /// What the file named by `VMETRIC_TEST_CLOCK` says: two numbers, `WALL UPTIME`.
    #[derive(Default)]
    pub struct Shift {
        /// Seconds that the wall clock is off, either way.
        pub wall_s: i64,
        /// Seconds that the system seems to be up longer, asleep for instance; below zero after a seeming reboot.
        pub uptime_s: i64,
    }

    /// Read anew for each look at a clock: a step may come at any time.
    pub fn read() -> Shift {
        let text = std::env::var_os("VMETRIC_TEST_CLOCK").and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let mut words = text.split_whitespace();
        let wall_s = words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
        Shift { wall_s, uptime_s: words.next().and_then(|w| w.parse().ok()).unwrap_or(0) }
    }
}
