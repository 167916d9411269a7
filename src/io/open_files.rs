//! How many files and connections this process may have open.

use std::io;

use crate::core::reason::Reason;

/// Descriptors that are not connections: the store, logs, files under way, the reactor's own.
const OTHERS: u64 = 128;

/// Raises the limit of open files as far as the system permits, so that `connections` fit. What is permitted then.
///
/// # Errors
/// `open_files_too_low`: fewer than `connections` fit; the detail says what to set. The process can go on with fewer.
pub fn raise(connections: u64) -> Result<u64, Reason> {
    let wanted = connections.saturating_add(OTHERS);
    let allowed = set(wanted).unwrap_or(0);
    if allowed >= wanted {
        return Ok(allowed);
    }
    let remedy = "set LimitNOFILE= in the systemd unit, or `ulimit -n` (its hard limit too) in the shell that starts it";
    Err(Reason::new(
        "open_files_too_low",
        format!("this process may open {allowed} files and {connections} connections need {wanted}; {remedy}"),
    ))
}

/// How many connections fit into the limit as it is.
pub fn connections() -> u64 {
    set(0).unwrap_or(0).saturating_sub(OTHERS)
}

/// Lets the kernel queue this many connections that nobody has accepted yet (`net.core.somaxconn` is the upper limit):
/// a fleet that comes back at once is answered in turn instead of trying again.
pub fn widen_queue(listener: &std::net::TcpListener, connections: i32) {
    use std::os::fd::AsRawFd;
    // A second `listen` changes the length only; should it fail, the queue stays as short as it was.
    #[expect(unsafe_code, reason = "listen takes two numbers, one a descriptor that the caller owns")]
    unsafe {
        libc::listen(listener.as_raw_fd(), connections);
    }
}

/// Sets the limit to what is wanted, or else to what is possible; what it is then.
#[expect(unsafe_code, reason = "getrlimit and setrlimit read and write one struct of ours")]
fn set(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    #[allow(clippy::useless_conversion, reason = "rlim_t is narrower on some systems")]
    let wanted = libc::rlim_t::try_from(wanted).unwrap_or(libc::rlim_t::MAX);
    let attempt = |cur, max| {
        let limit = libc::rlimit { rlim_cur: cur, rlim_max: max };
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0 }
    };
    if limit.rlim_cur < wanted {
        // The hard limit first, which only a privileged process may raise; then as far as it goes.
        let raised = (limit.rlim_max < wanted && attempt(wanted, wanted)) || attempt(wanted.min(limit.rlim_max), limit.rlim_max);
        if raised && unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    #[allow(clippy::useless_conversion, reason = "rlim_t is narrower on some systems")]
    Ok(u64::try_from(limit.rlim_cur).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_said() {
        assert!(raise(1).unwrap() > OTHERS);
        let reason = raise(u64::MAX / 2).unwrap_err();
        assert_eq!(reason.code, "open_files_too_low");
        assert!(reason.detail.contains("LimitNOFILE"), "{}", reason.detail);
    }
}
