//! What systemd hears of the real programs, over both kinds of its socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::agent::Device;
use crate::director_bench::Site;

/// Longest silence of a program at work on a busy test machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Reads messages until one has this text; that one, and how many came before it that ask for more time.
fn hear(socket: &UnixDatagram, text: &str) -> (String, usize) {
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut buf, mut extended) = ([0; 4096], 0);
    loop {
        let length = socket.recv(&mut buf).unwrap_or_else(|e| panic!("no message with {text}: {e}"));
        let message = String::from_utf8_lossy(&buf[..length]).into_owned();
        if message.contains(text) {
            return (message, extended);
        }
        assert!(!message.contains("READY=1"), "ready before {text}: {message}");
        extended += usize::from(message.contains("EXTEND_TIMEOUT_USEC="));
    }
}

#[test]
fn an_agent_is_ready_after_its_self_check_also_on_trial() {
    let mut new = std::fs::read(env!("CARGO_BIN_EXE_vmetric-agent")).unwrap();
    new.extend_from_slice(b"two");
    let site = Site::with(&[("2.0.0", new)]);
    let mut device = Device::enrolled(&site);
    let path = site.bench.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = device.command(&["run"]);
    command.env("VMETRIC_RESPAWN", "1").env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(Stdio::null());
    device.process = Some(command.spawn().unwrap());
    let (ready, extended) = hear(&socket, "READY=1");
    assert!(ready.contains("WATCHDOG=1") && ready.contains("(factory)"), "{ready}");
    assert!(extended > 0, "the launcher asked for time");
    device.wait("contact", |s| crate::agent::text(s, "last_contact") != "null");
    site.good("assign --all --version 2.0.0");
    // The same process and the same socket, three programs on: not before the self-check of the one on trial.
    let (ready, extended) = hear(&socket, "READY=1");
    assert!(ready.contains("(trial)") && extended > 0, "{ready}");
    device.wait("confirmed update", |s| crate::agent::text(s, "running_as") == "confirmed");
}

#[test]
fn a_director_is_ready_when_it_listens_and_says_that_it_stops() {
    let site = Site::with(&[]);
    let name = format!("vmetric-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let state = site.bench.path("second");
    let run = |stderr: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmetric-director"));
        command.args(["run", "--listen", "127.0.0.1:0", "--state"]).arg(&state).arg("--root").arg(site.bench.path("release/root.json"));
        command.env("NOTIFY_SOCKET", format!("@{name}")).stdout(Stdio::null()).stderr(stderr).spawn().unwrap()
    };
    let mut director = run(Stdio::null());
    let (ready, _) = hear(&socket, "READY=1");
    assert!(ready.contains("STATUS=listens on 127.0.0.1:"), "{ready}");
    // A second one with this state names the first.
    let second = run(Stdio::piped()).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains(&format!("process {}", director.id())), "{said}");
    vmetric::io::process::stop(director.id());
    hear(&socket, "STOPPING=1");
    assert!(director.wait().unwrap().success());
}
