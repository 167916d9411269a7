//! SIGTERM and SIGINT as something an asynchronous program can wait for.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

static WRITE: AtomicI32 = AtomicI32::new(-1);

#[expect(unsafe_code, reason = "async-signal-safe: write of one byte to our own socket pair")]
extern "C" fn on_signal(_: libc::c_int) {
    unsafe {
        libc::write(WRITE.load(Ordering::SeqCst), b"!".as_ptr().cast(), 1);
    }
}

/// Installs the handlers once. A byte can be read from the returned end for each signal; the other end lives as long as
/// the process.
///
/// # Errors
/// The kernel has no descriptors left.
pub fn stop_signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    write.set_nonblocking(true)?;
    WRITE.store(write.as_raw_fd(), Ordering::SeqCst);
    // The handler may run until the process ends, so its end must never be closed.
    std::mem::forget(write);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        #[expect(unsafe_code, reason = "installs a handler that makes async-signal-safe calls only")]
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&mut action.sa_mask);
            if libc::sigaction(signal, &action, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            // A launcher holds them back until the program that it starts can take them.
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, signal);
            libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        }
    }
    Ok(read)
}
