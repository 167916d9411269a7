//! Runs a program and everything it starts, counts its state-changing system calls, and does something to one of them:
//! SIGKILL before it happens, an error instead of it, half of a write, or the end of the file system below it.
//!
//! The part of `strace -e inject=` that is needed here, and two things that it cannot do: a short write that writes what it
//! says (the kernel gets a smaller count), and a power cut at exactly this call (the ioctl of [`Act::PowerCut`]).

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libc::{c_long, c_void, pid_t};

/// Kinds of calls that change something that outlives the process, in the order of the table.
pub const KINDS: [&str; 10] = ["openat", "write", "ftruncate", "fsync", "rename", "unlink", "mkdir", "execve", "chmod", "link"];

/// What happens at the call.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Nothing: count only.
    Count,
    /// SIGKILL for the process that makes the call.
    Kill,
    /// This error instead of the call.
    Error(i32),
    /// This error instead of the call and of every later one that can give it, of whatever kind.
    ErrorsFrom(i32),
    /// A write writes half of what it was given.
    Short,
    /// What was not synced is lost, and everything dies: ext4's GOINGDOWN on this mount point.
    PowerCut(PathBuf),
}

impl Act {
    /// `kill`, `ENOSPC`, `ENOSPC+`, `short`, `power=DIR`, `count`.
    pub fn parse(text: &str) -> Option<Act> {
        Some(match text {
            "count" => Act::Count,
            "kill" => Act::Kill,
            "short" => Act::Short,
            _ => match (text.strip_prefix("power="), text.strip_suffix('+')) {
                (Some(at), _) => Act::PowerCut(at.into()),
                (None, Some(name)) => Act::ErrorsFrom(errno(name)?),
                (None, None) => Act::Error(errno(text)?),
            },
        })
    }

    fn applies(&self, call: &Call) -> bool {
        match self {
            Act::Count | Act::Kill | Act::PowerCut(_) => true,
            Act::Short => call.kind == "write" && call.length > 1,
            Act::Error(error) | Act::ErrorsFrom(error) => can_give(call, *error),
        }
    }
}

fn errno(name: &str) -> Option<i32> {
    Some(match name {
        "ENOSPC" => libc::ENOSPC,
        "EIO" => libc::EIO,
        "EROFS" => libc::EROFS,
        _ => return None,
    })
}

/// Which errors a call can give on a real file system. What only reads meets neither a full disk nor a read-only one.
fn can_give(call: &Call, error: i32) -> bool {
    match call.kind {
        "execve" => error == libc::EIO,
        "openat" => match error {
            libc::ENOSPC => call.flags & libc::O_CREAT != 0,
            libc::EROFS => call.flags & (libc::O_CREAT | libc::O_WRONLY | libc::O_RDWR | libc::O_TRUNC) != 0,
            _ => true,
        },
        "unlink" => error != libc::ENOSPC,
        _ => true,
    }
}

/// One counted call, before it happens.
struct Call {
    kind: &'static str,
    name: &'static str,
    flags: i32,
    length: u64,
}

/// Names of the calls that are counted, as `strace` has them, and the kind that each belongs to.
const COUNTED: [(&str, &str); 29] = [
    ("openat", "openat"),
    ("openat2", "openat"),
    ("open", "openat"),
    ("creat", "openat"),
    ("write", "write"),
    ("pwrite64", "write"),
    ("writev", "write"),
    ("pwritev", "write"),
    ("ftruncate", "ftruncate"),
    ("truncate", "ftruncate"),
    ("fallocate", "ftruncate"),
    ("fsync", "fsync"),
    ("fdatasync", "fsync"),
    ("rename", "rename"),
    ("renameat", "rename"),
    ("renameat2", "rename"),
    ("unlink", "unlink"),
    ("unlinkat", "unlink"),
    ("rmdir", "unlink"),
    ("mkdir", "mkdir"),
    ("mkdirat", "mkdir"),
    ("execve", "execve"),
    ("chmod", "chmod"),
    ("fchmod", "chmod"),
    ("fchmodat", "chmod"),
    ("link", "link"),
    ("linkat", "link"),
    ("symlink", "link"),
    ("symlinkat", "link"),
];

/// True when the matrix cuts this call.
pub fn is_counted(name: &str) -> bool {
    COUNTED.iter().any(|(counted, _)| *counted == name)
}

#[cfg(target_arch = "x86_64")]
fn call(nr: c_long, args: &[u64; 3]) -> Option<Call> {
    let name = match nr {
        libc::SYS_openat => "openat",
        libc::SYS_openat2 => "openat2",
        libc::SYS_open => "open",
        libc::SYS_creat => "creat",
        libc::SYS_write => "write",
        libc::SYS_pwrite64 => "pwrite64",
        libc::SYS_writev => "writev",
        libc::SYS_pwritev => "pwritev",
        libc::SYS_ftruncate => "ftruncate",
        libc::SYS_truncate => "truncate",
        libc::SYS_fallocate => "fallocate",
        libc::SYS_fsync => "fsync",
        libc::SYS_fdatasync => "fdatasync",
        libc::SYS_rename => "rename",
        libc::SYS_renameat => "renameat",
        libc::SYS_renameat2 => "renameat2",
        libc::SYS_unlink => "unlink",
        libc::SYS_unlinkat => "unlinkat",
        libc::SYS_rmdir => "rmdir",
        libc::SYS_mkdir => "mkdir",
        libc::SYS_mkdirat => "mkdirat",
        libc::SYS_execve => "execve",
        libc::SYS_chmod => "chmod",
        libc::SYS_fchmod => "fchmod",
        libc::SYS_fchmodat => "fchmodat",
        libc::SYS_link => "link",
        libc::SYS_linkat => "linkat",
        libc::SYS_symlink => "symlink",
        libc::SYS_symlinkat => "symlinkat",
        _ => return None,
    };
    let kind = COUNTED.iter().find(|(counted, _)| *counted == name)?.1;
    let flags = match nr {
        libc::SYS_open => args[1] as i32,
        libc::SYS_creat => libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC,
        _ => args[2] as i32,
    };
    let length = if nr == libc::SYS_write || nr == libc::SYS_pwrite64 { args[2] } else { 0 };
    Some(Call { kind, name, flags, length })
}

/// What to do.
pub struct Plan {
    /// Kind of the call; `any` = each of them.
    pub kind: String,
    /// The n-th that the act applies to, from 1.
    pub at: u64,
    /// What happens then.
    pub act: Act,
    /// Ends [`Act::ErrorsFrom`] when it is there.
    pub until: Option<PathBuf>,
    /// Where each counted call is noted.
    pub log: Option<PathBuf>,
    /// Made when it has happened.
    pub hit: Option<PathBuf>,
}

struct Tracer {
    plan: Plan,
    seen: u64,
    done: bool,
    /// Errors that stand for calls which are being skipped.
    pending: HashMap<pid_t, i32>,
    log: Option<fs::File>,
}

/// Runs it to its end. Returns its exit code, 128 + signal when it was killed.
pub fn trace(plan: Plan, program: &Path, args: &[String]) -> Result<i32, String> {
    let mut command = Command::new(program);
    command.args(args);
    #[expect(unsafe_code, reason = "between fork and exec: one system call that takes numbers")]
    unsafe {
        command.pre_exec(|| match ptrace(libc::PTRACE_TRACEME, 0, 0) {
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        });
    }
    let child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
    let main = child.id() as pid_t;
    let log = plan.log.as_ref().map(fs::File::create).transpose().map_err(|e| e.to_string())?;
    Tracer { plan, seen: 0, done: false, pending: HashMap::new(), log }.run(main)
}

impl Tracer {
    fn run(mut self, main: pid_t) -> Result<i32, String> {
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_EXITKILL
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE;
        let mut begun = false;
        loop {
            let Some((pid, status)) = wait_any() else { return Ok(0) };
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                self.pending.remove(&pid);
                if pid == main {
                    return Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) });
                }
                continue;
            }
            let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
            let pass = match signal {
                _ if !begun => {
                    begun = true;
                    ptrace(libc::PTRACE_SETOPTIONS, pid, options as usize).map_err(|e| format!("ptrace: {e}"))?;
                    0
                }
                s if s == libc::SIGTRAP | 0x80 => {
                    self.syscall(pid);
                    0
                }
                libc::SIGTRAP if event != 0 => 0,
                // The first stop of a new child; nobody else stops anything here.
                libc::SIGSTOP => 0,
                other => other,
            };
            // A process that has just been killed is no longer there to go on.
            let _ = ptrace(libc::PTRACE_SYSCALL, pid, pass as usize);
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn syscall(&mut self, pid: pid_t) {
        let Some(mut regs) = registers(pid) else { return };
        if let Some(error) = self.pending.remove(&pid) {
            // The exit of a call that was skipped.
            regs.rax = (-i64::from(error)) as u64;
            set_registers(pid, &regs);
            return;
        }
        // At the entry the kernel has put -ENOSYS where the result will be.
        if regs.rax as i64 != -i64::from(libc::ENOSYS) {
            return;
        }
        let Some(call) = call(regs.orig_rax as c_long, &[regs.rdi, regs.rsi, regs.rdx]) else { return };
        self.note(pid, &call, &regs);
        if !self.is_hit(&call) {
            return;
        }
        match &self.plan.act {
            Act::Count => {}
            Act::Kill => kill(pid),
            Act::Error(error) | Act::ErrorsFrom(error) => {
                self.pending.insert(pid, *error);
                regs.orig_rax = u64::MAX;
                set_registers(pid, &regs);
            }
            Act::Short => {
                regs.rdx /= 2;
                set_registers(pid, &regs);
            }
            Act::PowerCut(at) => {
                if let Err(e) = crate::mount::going_down(at) {
                    eprintln!("{}: power cut: {e}", at.display());
                }
                kill(pid);
                std::process::exit(137);
            }
        }
    }

    fn is_hit(&mut self, call: &Call) -> bool {
        let of_kind = self.plan.kind == "any" || self.plan.kind == call.kind;
        if self.done {
            let over = self.plan.until.as_ref().is_some_and(|file| file.exists());
            return matches!(self.plan.act, Act::ErrorsFrom(_)) && !over && self.plan.act.applies(call);
        }
        if !of_kind || !self.plan.act.applies(call) {
            return false;
        }
        self.seen += 1;
        self.done = self.seen == self.plan.at;
        if self.done
            && let Some(hit) = &self.plan.hit
        {
            let _ = fs::write(hit, b"");
        }
        self.done
    }

    /// `pid kind name can-give what`, for whoever plans the cuts.
    #[cfg(target_arch = "x86_64")]
    fn note(&mut self, pid: pid_t, call: &Call, regs: &libc::user_regs_struct) {
        let Some(log) = &mut self.log else { return };
        let fd = |fd: u64| fs::read_link(format!("/proc/{pid}/fd/{fd}")).map(|p| p.display().to_string()).unwrap_or_default();
        let what = match call.name {
            "openat" | "mkdirat" | "renameat" | "renameat2" | "unlinkat" | "fchmodat" => text(pid, regs.rsi),
            "open" | "creat" | "rename" | "unlink" | "rmdir" | "mkdir" | "execve" | "chmod" | "truncate" => text(pid, regs.rdi),
            _ => fd(regs.rdi),
        };
        let gives: Vec<&str> = ["ENOSPC", "EIO", "EROFS"].into_iter().filter(|e| can_give(call, errno(e).unwrap_or(0))).collect();
        let short = if Act::Short.applies(call) { ",short" } else { "" };
        let _ = writeln!(log, "{pid} {} {} {}{short} {what}", call.kind, call.name, gives.join(","));
    }
}

#[cfg(target_arch = "x86_64")]
fn text(pid: pid_t, at: u64) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; 256];
    let read = fs::File::open(format!("/proc/{pid}/mem")).and_then(|memory| memory.read_at(&mut bytes, at));
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    read.map(|_| String::from_utf8_lossy(&bytes[..end]).into_owned()).unwrap_or_default()
}

fn wait_any() -> Option<(pid_t, i32)> {
    let mut status = 0;
    #[expect(unsafe_code, reason = "waitpid fills one number of ours")]
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
    (pid > 0).then_some((pid, status))
}

fn ptrace(request: libc::c_uint, pid: pid_t, data: usize) -> std::io::Result<c_long> {
    #[expect(unsafe_code, reason = "requests that take numbers only")]
    let rc = unsafe { libc::ptrace(request, pid, std::ptr::null_mut::<c_void>(), data as *mut c_void) };
    if rc < 0 { Err(std::io::Error::last_os_error()) } else { Ok(rc) }
}

#[cfg(target_arch = "x86_64")]
fn registers(pid: pid_t) -> Option<libc::user_regs_struct> {
    let mut regs = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
    #[expect(unsafe_code, reason = "fills a struct of ours; every bit pattern of it is valid")]
    unsafe {
        let rc = libc::ptrace(libc::PTRACE_GETREGS, pid, std::ptr::null_mut::<c_void>(), regs.as_mut_ptr().cast::<c_void>());
        (rc >= 0).then(|| regs.assume_init())
    }
}

#[cfg(target_arch = "x86_64")]
fn set_registers(pid: pid_t, regs: &libc::user_regs_struct) {
    #[expect(unsafe_code, reason = "reads a struct of ours; the process is stopped")]
    unsafe {
        libc::ptrace(libc::PTRACE_SETREGS, pid, std::ptr::null_mut::<c_void>(), std::ptr::from_ref(regs) as *mut c_void);
    }
}

fn kill(pid: pid_t) {
    #[expect(unsafe_code, reason = "kill takes two numbers")]
    unsafe {
        libc::kill(pid, libc::SIGKILL);
    }
}
