//! The list of calls that the matrix covers, against what `strace -c` sees of an undisturbed update: a state-changing call
//! that nobody has thought of fails the group.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::device::{Device, Flow};
use crate::matrix::flow_word;
use crate::stage::Stage;
use crate::{Ended, tracer};

/// Calls that are not cut, and why a cut there would show nothing.
const NOT_CUT: [(&str, &str); 7] = [
    (
        "read pread64 readv lseek close stat fstat lstat newfstatat statx statfs fstatfs readlink readlinkat getdents64 access faccessat \
         faccessat2 getcwd",
        "read only; close gives nothing back that fsync has not",
    ),
    (
        "mmap munmap mprotect brk madvise mremap arch_prctl set_tid_address set_robust_list rseq futex prlimit64 getrandom uname sysinfo \
         sched_getaffinity sched_yield clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday getuid geteuid getgid getegid getpid \
         getppid gettid personality",
        "the process's own memory and facts",
    ),
    (
        "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack alarm setitimer kill tgkill poll ppoll restart_syscall pipe pipe2 dup dup2 dup3 \
         fcntl ioctl prctl setpgid wait4 waitid clone clone3 fork vfork exit exit_group",
        "processes, signals, descriptors: gone with the process",
    ),
    ("flock", "a lock in memory, gone with the process"),
    (
        "epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd2 timerfd_create timerfd_settime",
        "the event loop of a Director: memory",
    ),
    (
        "socket socketpair connect bind listen accept accept4 getsockname getpeername setsockopt getsockopt shutdown sendto recvfrom \
         sendmsg recvmsg sendmmsg",
        "network: a cut connection is in the demo and in the tests of the client",
    ),
    ("umask", "is not called between a file's making and its mode"),
];

/// Both updates below `strace -c`; the calls that are cut, with how often they came.
pub fn compare(stage: &Stage) -> Result<Vec<String>, Ended> {
    if Command::new("strace").arg("-V").output().is_err() {
        return Err(Ended::DidNotRun("needs strace".into()));
    }
    let mut notes = Vec::new();
    for flow in stage.flows.iter().copied() {
        let seen = seen(stage, flow)?;
        let covered = |name: &str| tracer::is_counted(name);
        let excused = |name: &str| NOT_CUT.iter().any(|(names, _)| names.split_whitespace().any(|n| n == name));
        let unknown: Vec<&String> = seen.keys().filter(|name| !covered(name) && !excused(name)).collect();
        if !unknown.is_empty() {
            return Err(Ended::Failed(format!("{}: neither cut nor excused (tests/crash/covered.rs): {unknown:?}", flow_word(flow))));
        }
        let cut: Vec<String> = seen.iter().filter(|(name, _)| covered(name)).map(|(name, n)| format!("{name} {n}")).collect();
        notes.push(format!("strace -c ({}): cut {}; not cut, with reasons, {}", flow_word(flow), cut.join(", "), seen.len() - cut.len()));
    }
    Ok(notes)
}

fn seen(stage: &Stage, flow: Flow) -> Result<BTreeMap<String, u64>, String> {
    let folder = stage.work.join("strace");
    let mut device = Device::of_seed(stage, &folder, &folder.join("state"), flow)?;
    let out = folder.join("counts");
    device.below = ["strace", "-f", "-c", "-o", &out.display().to_string()].map(String::from).to_vec();
    device.update_to(stage, flow, stage.new, "boot-2", None)?;
    let text = fs::read_to_string(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let lines = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let calls = words.get(3)?.parse().ok()?;
        Some((words.last()?.to_string(), calls))
    });
    Ok(lines.filter(|(name, _)| name != "total").collect())
}
