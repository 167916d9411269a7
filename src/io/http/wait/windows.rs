//! `WSAEventSelect` on the socket, and the wake event beside it.

use std::net::{SocketAddr, TcpStream};
use std::os::windows::io::{AsRawSocket, FromRawSocket, RawSocket};
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::{HANDLE, WAIT_OBJECT_0};
use windows_sys::Win32::Networking::WinSock as sock;
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, WaitForMultipleObjects, WaitForSingleObject};

use super::*;

/// The event that sockets signal. One thread waits, for one socket at a time.
fn event() -> io::Result<HANDLE> {
    static EVENT: OnceLock<isize> = OnceLock::new();
    use std::ptr::null as none;
    #[expect(unsafe_code, reason = "makes an unnamed event, kept for the life of the process")]
    let event = *EVENT.get_or_init(|| unsafe { CreateEventW(none(), 1, 0, none()) } as isize);
    if event != 0 { Ok(event as HANDLE) } else { Err(io::Error::last_os_error()) }
}

/// Waits until the socket is ready. The wake event goes first: data that never pauses must not hide it.
pub(in crate::io::http) fn wait(stream: &TcpStream, want: Want, watch: &Watch) -> Result<(), Unready> {
    let events = sock::FD_CLOSE | if want == Want::Read { sock::FD_READ } else { sock::FD_WRITE };
    loop {
        (watch.tick)();
        let slice = watch.slice()?;
        // Before the wait: asked for anew, the event is signalled at once if the socket is ready by then.
        select(stream.as_raw_socket(), events)?;
        if is_ready(stream.as_raw_socket(), want) {
            return if woken(watch) { Err(Unready::Woken) } else { Ok(()) };
        }
        let [woken, ready] = wait_both(watch.wake_fd, slice)?;
        if woken {
            return Err(Unready::Woken);
        }
        if ready {
            return Ok(());
        }
    }
}

/// Is the wake event signalled right now?
pub(in crate::io::http) fn woken(watch: &Watch) -> bool {
    #[expect(unsafe_code, reason = "looks at an event; a wrong number is an answer")]
    watch.wake_fd.is_some_and(|fd| unsafe { WaitForSingleObject(fd as HANDLE, 0) } == WAIT_OBJECT_0)
}

/// `[wake, socket]`, or neither within the slice.
fn wait_both(wake_fd: Option<WakeFd>, slice: Duration) -> io::Result<[bool; 2]> {
    let millis = u32::try_from(slice.as_millis() + 1).unwrap_or(INFINITE - 1);
    let socket = event()?;
    let both = [wake_fd.map_or(socket, |fd| fd as HANDLE), socket];
    let count = if wake_fd.is_some() { 2 } else { 1 };
    #[expect(unsafe_code, reason = "waits for at most two handles of a live array")]
    let rc = unsafe { WaitForMultipleObjects(count, both.as_ptr(), 0, millis) };
    match (rc.wrapping_sub(WAIT_OBJECT_0), wake_fd) {
        (0, Some(_)) => Ok([true, false]),
        (0, None) | (1, _) => Ok([false, true]),
        _ if rc == windows_sys::Win32::Foundation::WAIT_FAILED => Err(io::Error::last_os_error()),
        _ => Ok([false; 2]),
    }
}

/// From now on these happenings at the socket signal the event. The socket does not block any more.
fn select(socket: RawSocket, events: u32) -> io::Result<()> {
    let event = event()?;
    #[expect(unsafe_code, reason = "a live socket and a live event; the system forgets both when the socket is closed")]
    let failed = unsafe {
        windows_sys::Win32::System::Threading::ResetEvent(event);
        sock::WSAEventSelect(socket as sock::SOCKET, event as sock::WSAEVENT, events as i32) != 0
    };
    if failed { Err(last_error()) } else { Ok(()) }
}

/// Asked without waiting: an event that is missed must not cost a slice.
fn is_ready(socket: RawSocket, want: Want) -> bool {
    let events = if want == Want::Read { sock::POLLRDNORM } else { sock::POLLWRNORM };
    let mut entry = sock::WSAPOLLFD { fd: socket as sock::SOCKET, events, revents: 0 };
    #[expect(unsafe_code, reason = "looks at one struct of ours")]
    let rc = unsafe { sock::WSAPoll(&mut entry, 1, 0) };
    rc > 0 && entry.revents != 0
}

fn last_error() -> io::Error {
    #[expect(unsafe_code, reason = "takes nothing, returns a number")]
    io::Error::from_raw_os_error(unsafe { sock::WSAGetLastError() })
}

/// Connects, giving up at the deadline or when woken. The stream does not block, and no child inherits it.
pub(in crate::io::http) fn connect(address: SocketAddr, watch: &Watch) -> Result<TcpStream, Unready> {
    let stream = begin_connect(address)?;
    loop {
        (watch.tick)();
        let slice = watch.slice()?;
        let [woken, ready] = wait_both(watch.wake_fd, slice)?;
        if woken {
            return Err(Unready::Woken);
        }
        if ready {
            break;
        }
    }
    match connect_error(stream.as_raw_socket())? {
        0 => Ok(stream),
        code => Err(io::Error::from_raw_os_error(code).into()),
    }
}

/// How the connect ended: told with the event, not by the socket.
fn connect_error(socket: RawSocket) -> io::Result<i32> {
    #[expect(unsafe_code, reason = "the system fills one struct of plain numbers, ours")]
    unsafe {
        let mut events: sock::WSANETWORKEVENTS = std::mem::zeroed();
        match sock::WSAEnumNetworkEvents(socket as sock::SOCKET, event()? as sock::WSAEVENT, &mut events) {
            0 => Ok(events.iErrorCode[sock::FD_CONNECT_BIT as usize]),
            _ => Err(last_error()),
        }
    }
}

#[expect(unsafe_code, reason = "the standard library connects blocking or with a timeout that nothing ends")]
fn begin_connect(address: SocketAddr) -> io::Result<TcpStream> {
    static STARTED: OnceLock<()> = OnceLock::new();
    // SAFETY: fills one struct of ours; undone by the end of the process.
    STARTED.get_or_init(|| unsafe {
        let mut data = std::mem::zeroed();
        sock::WSAStartup(0x0202, &mut data);
    });
    let family = if address.is_ipv4() { sock::AF_INET } else { sock::AF_INET6 };
    let flags = sock::WSA_FLAG_OVERLAPPED | sock::WSA_FLAG_NO_HANDLE_INHERIT;
    // SAFETY: socket takes no pointer but null.
    let raw = unsafe { sock::WSASocketW(i32::from(family), sock::SOCK_STREAM, 0, std::ptr::null(), 0, flags) };
    if raw == sock::INVALID_SOCKET {
        return Err(last_error());
    }
    // SAFETY: the socket was made above and belongs to nobody else; the stream closes it.
    let stream = unsafe { TcpStream::from_raw_socket(raw as RawSocket) };
    select(stream.as_raw_socket(), sock::FD_CONNECT)?;
    // SAFETY: both structures are plain integers, for which zero is a value; each pointer and length name a live local.
    let result = unsafe {
        match address {
            SocketAddr::V4(v4) => {
                let mut to: sock::SOCKADDR_IN = std::mem::zeroed();
                to.sin_family = family;
                to.sin_port = v4.port().to_be();
                to.sin_addr.S_un.S_addr = u32::from_ne_bytes(v4.ip().octets());
                sock::connect(raw, (&raw const to).cast(), size_of_val(&to) as i32)
            }
            SocketAddr::V6(v6) => {
                let mut to: sock::SOCKADDR_IN6 = std::mem::zeroed();
                to.sin6_family = family;
                to.sin6_port = v6.port().to_be();
                to.sin6_flowinfo = v6.flowinfo();
                to.sin6_addr.u.Byte = v6.ip().octets();
                to.Anonymous.sin6_scope_id = v6.scope_id();
                sock::connect(raw, (&raw const to).cast(), size_of_val(&to) as i32)
            }
        }
    };
    if result == 0 {
        return Ok(stream);
    }
    match last_error() {
        e if e.raw_os_error() == Some(sock::WSAEWOULDBLOCK) => Ok(stream),
        e => Err(e),
    }
}

/// Has the system give the connection up when the peer's machine is silent for so many seconds, whatever was sent
/// (Windows 10 of 2017 and later; an older one refuses, and the call's own deadline stays).
pub(in crate::io::http) fn keep_alive(stream: &TcpStream, seconds: u32) -> io::Result<()> {
    let probe = (seconds / (PROBES + 1)).max(1);
    set(stream, sock::SOL_SOCKET, sock::SO_KEEPALIVE, 1)?;
    set(stream, sock::IPPROTO_TCP, sock::TCP_MAXRT, seconds)?;
    set(stream, sock::IPPROTO_TCP, sock::TCP_KEEPIDLE, probe)?;
    set(stream, sock::IPPROTO_TCP, sock::TCP_KEEPINTVL, probe)?;
    set(stream, sock::IPPROTO_TCP, sock::TCP_KEEPCNT, PROBES)
}

#[expect(unsafe_code, reason = "the standard library has no such options")]
fn set(stream: &TcpStream, level: i32, name: i32, value: u32) -> io::Result<()> {
    let bytes = value.to_ne_bytes();
    // SAFETY: the pointer and the length name a live local, which the system reads.
    match unsafe { sock::setsockopt(stream.as_raw_socket() as sock::SOCKET, level, name, bytes.as_ptr(), bytes.len() as i32) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}
