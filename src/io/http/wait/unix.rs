//! `poll(2)` on the socket and on the wake descriptor.

use std::net::{SocketAddr, TcpStream};

use super::*;
use std::os::fd::{AsRawFd, FromRawFd};

/// Waits until the socket is ready. The wake descriptor goes first: data that never pauses must not hide a signal.
pub(in crate::io::http) fn wait(stream: &TcpStream, want: Want, watch: &Watch) -> Result<(), Unready> {
    loop {
        (watch.tick)();
        let slice = watch.slice()?;
        // Rounded up, so that the last slice does not become a busy loop of zero milliseconds.
        let millis = i32::try_from(slice.as_millis() + 1).unwrap_or(i32::MAX);
        let [woken, ready] = poll(watch.wake_fd, Some((stream.as_raw_fd(), want)), millis)?;
        if woken {
            return Err(Unready::Woken);
        }
        if ready {
            return Ok(());
        }
    }
}

/// Is the wake descriptor readable right now?
pub(in crate::io::http) fn woken(watch: &Watch) -> bool {
    watch.wake_fd.is_some() && matches!(poll(watch.wake_fd, None, 0), Ok([true, _]))
}

/// `[wake, socket]`; an interrupted call is "nothing yet". An error or hang-up counts as ready: reading tells which.
#[expect(unsafe_code, reason = "poll(2) is the only way to wait for a socket and a signal pipe on one thread")]
fn poll(wake_fd: Option<i32>, socket: Option<(i32, Want)>, millis: i32) -> io::Result<[bool; 2]> {
    let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
    let (fd, want) = socket.unwrap_or((-1, Want::Read));
    let events = if want == Want::Read { libc::POLLIN } else { libc::POLLOUT };
    // A negative descriptor is skipped by poll.
    let mut fds = [entry(wake_fd.unwrap_or(-1), libc::POLLIN), entry(fd, events)];
    // SAFETY: the pointer and the length are those of a live array, which poll writes `revents` of and does not keep.
    let n = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
    if n < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok([false; 2]) } else { Err(error) };
    }
    Ok([fds[0].revents & libc::POLLIN != 0, fds[1].revents != 0])
}

/// Connects, giving up at the deadline or when woken. The stream is non-blocking and closed on exec.
pub(in crate::io::http) fn connect(address: SocketAddr, watch: &Watch) -> Result<TcpStream, Unready> {
    let stream = begin_connect(address)?;
    wait(&stream, Want::Write, watch)?;
    match stream.take_error()? {
        Some(error) => Err(error.into()),
        None => Ok(stream),
    }
}

#[expect(unsafe_code, reason = "the standard library connects blocking or with a timeout that no signal ends")]
fn begin_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let kind = libc::SOCK_STREAM;
    // SAFETY: socket takes no pointer.
    let fd = unsafe { libc::socket(family, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made above and belongs to nobody else; the stream closes it.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    // SAFETY: F_SETFD takes an integer.
    unsafe {
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC)
    };
    stream.set_nonblocking(true)?;
    // SAFETY: both structures are plain integers, for which zero is a value; each pointer and length name a live local.
    let result = unsafe {
        match address {
            SocketAddr::V4(v4) => {
                let mut raw: libc::sockaddr_in = std::mem::zeroed();
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                libc::connect(fd, (&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t)
            }
            SocketAddr::V6(v6) => {
                let mut raw: libc::sockaddr_in6 = std::mem::zeroed();
                raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                raw.sin6_port = v6.port().to_be();
                raw.sin6_flowinfo = v6.flowinfo();
                raw.sin6_addr.s6_addr = v6.ip().octets();
                raw.sin6_scope_id = v6.scope_id();
                libc::connect(fd, (&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t)
            }
        }
    };
    if result == 0 {
        return Ok(stream);
    }
    let error = io::Error::last_os_error();
    // An interrupted connect goes on by itself, like one in progress.
    match error.raw_os_error() {
        Some(libc::EINPROGRESS | libc::EINTR) => Ok(stream),
        _ => Err(error),
    }
}

/// Has the system give the connection up when the peer's machine is silent for so many seconds, whatever was sent.
pub(in crate::io::http) fn keep_alive(stream: &TcpStream, seconds: u32) -> io::Result<()> {
    let probe = (seconds / (PROBES + 1)).max(1) as libc::c_int;
    set(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, probe)?;
        // Of what was sent and never acknowledged.
        set(stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, seconds as libc::c_int * 1_000)?;
    }
    #[cfg(target_vendor = "apple")]
    {
        set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPALIVE, probe)?;
        set(stream, libc::IPPROTO_TCP, TCP_RXT_CONNDROPTIME, seconds as libc::c_int)?;
    }
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, probe)?;
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, PROBES as libc::c_int)
}

/// `netinet/tcp.h` of macOS: seconds after which a retransmission gives up.
#[cfg(target_vendor = "apple")]
const TCP_RXT_CONNDROPTIME: libc::c_int = 0x80;

#[expect(unsafe_code, reason = "the standard library has no such options")]
fn set(stream: &TcpStream, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length name a live local, which the system reads.
    let result =
        unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, (&raw const value).cast(), size_of_val(&value) as libc::socklen_t) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
