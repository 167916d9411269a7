//! The log goes to stderr, and nothing that happens to stderr may happen to the program: a full disk behind it, a log
//! collector that died or hangs. A line that cannot be written at once is counted and left out; the next one that can be
//! written says how many were lost. On a terminal, where a person reads along, `simple_logger` writes instead: its `eprintln!`
//! panics on the first error and waits for ever on a pipe that nobody reads, and neither happens there.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use log::{LevelFilter, Log, Metadata, Record};
use sys::{ready, write};

/// Longest line, bytes: a pipe that is ready takes as many as `PIPE_BUF` without waiting.
const LINE_MAX: usize = 4096;
/// How long the first line waits for a collector that is only slow. Those after a lost one do not wait.
const PATIENCE_MS: i32 = 100;
const STDERR: i32 = 2;

/// Lines lost in a row.
static LOST: AtomicU64 = AtomicU64::new(0);

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let lost = LOST.load(Ordering::Relaxed);
        let before = if lost > 0 { format!("WARN  [log] {lost} lines before this one were lost\n") } else { String::new() };
        let mut line = format!("{before}{:<5} [{}] {}", record.level(), record.target(), record.args());
        let mut end = line.len().min(LINE_MAX - 1);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('\n');
        if !(ready(STDERR, if lost > 0 { 0 } else { PATIENCE_MS }) && write(STDERR, line.as_bytes())) {
            LOST.fetch_add(1, Ordering::Relaxed);
        } else if lost > 0 {
            LOST.fetch_sub(lost, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Logs to stderr from now on. A log that is there already stays.
pub fn install(level: LevelFilter) {
    if std::io::stderr().is_terminal() {
        let _ = simple_logger::SimpleLogger::new().with_level(level).init();
    } else if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(unix)]
mod sys {
    /// True when the descriptor takes a line now, or within this time. A closed pipe is ready too; writing tells.
    pub fn ready(fd: i32, patience_ms: i32) -> bool {
        let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
        #[expect(unsafe_code, reason = "poll looks at one struct of ours")]
        let rc = unsafe { libc::poll(&mut poll, 1, patience_ms) };
        rc > 0
    }

    pub fn write(fd: i32, bytes: &[u8]) -> bool {
        #[expect(unsafe_code, reason = "writes bytes of ours; an error is an answer")]
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        // Less than the whole line is a disk that is nearly full: not worth a second try, but not nothing either.
        written > 0
    }
}

#[cfg(windows)]
pub use sys::{file, to_file};

#[cfg(windows)]
mod sys {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;

    /// Names the log file to programs and their children.
    pub const ENV_LOG: &str = "VMETRIC_LOG";
    /// A log longer than this becomes `<name>.old`, bytes: weeks of ordinary life.
    const FILE_MAX: u64 = 1024 * 1024;

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

    /// Lines go into this file from now on, not to standard error.
    pub fn to_file(path: PathBuf) {
        let _ = FILE.set(Some(path));
    }

    /// The log file, if lines go into one.
    #[expect(clippy::disallowed_methods, reason = "the launcher names its log to its programs in the environment")]
    pub fn file() -> Option<&'static Path> {
        FILE.get_or_init(|| std::env::var_os(ENV_LOG).map(PathBuf::from)).as_deref()
    }

    /// A pipe that is full is told by nothing but a write to it.
    pub fn ready(_: i32, _: i32) -> bool {
        true
    }

    pub fn write(_: i32, bytes: &[u8]) -> bool {
        match file() {
            Some(path) => append(path, bytes).is_ok(),
            None => std::io::stderr().write_all(bytes).is_ok(),
        }
    }

    /// Opened anew for each line: launcher and program share it, and either may be the one that finds it long enough.
    fn append(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        if path.metadata().is_ok_and(|meta| meta.len() > FILE_MAX) {
            let _ = std::fs::rename(path, path.with_extension("old"));
        }
        let mut line = format!("{} ", crate::core::time::format(crate::io::clock::unix())).into_bytes();
        line.extend_from_slice(bytes);
        OpenOptions::new().append(true).create(true).open(path)?.write_all(&line)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_or_has_closed_stops_nobody() {
        let (mut read, write_end) = std::io::pipe().unwrap();
        let fd = write_end.as_raw_fd();
        let line = [b'x'; LINE_MAX];
        let mut lines = 0;
        while ready(fd, 0) {
            assert!(write(fd, &line));
            lines += 1;
        }
        assert!(lines > 0, "an empty pipe takes lines");
        read.read_exact(&mut [0; LINE_MAX]).unwrap();
        assert!(ready(fd, 0) && write(fd, &line), "it takes lines again once somebody reads");
        drop(read);
        assert!(!write(fd, &line), "nobody there: an error, not the end");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_answer() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(ready(full.as_raw_fd(), 0) && !write(full.as_raw_fd(), b"a line\n"));
    }
}
