//! Who is on the other end of a Unix socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The user id of the process that opened the connection, as the kernel noted it then; nobody can claim another.
///
/// # Errors
/// Not a connected Unix socket.
#[cfg(target_os = "linux")]
pub fn user_id(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    #[expect(unsafe_code, reason = "the kernel writes at most `length` bytes into a plain struct of ours")]
    let rc = unsafe {
        let place = (&raw mut peer).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, place, &raw mut length)
    };
    if rc == 0 { Ok(peer.uid) } else { Err(io::Error::last_os_error()) }
}

/// The user id of the process that opened the connection.
///
/// # Errors
/// Not a connected Unix socket.
#[cfg(not(target_os = "linux"))]
pub fn user_id(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let (mut uid, mut gid) = (0, 0);
    #[expect(unsafe_code, reason = "fills two numbers of ours")]
    let rc = unsafe { libc::getpeereid(socket.as_raw_fd(), &raw mut uid, &raw mut gid) };
    if rc == 0 { Ok(uid) } else { Err(io::Error::last_os_error()) }
}
