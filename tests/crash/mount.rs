//! File systems of our own: an ext4 in a file, a tmpfs of a size. Root only; in a mount namespace that ends with us.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::pause;

/// Why there is no table.
#[derive(Debug)]
pub enum Ended {
    /// It found a defect, or is one.
    Failed(String),
    /// This machine cannot run it.
    DidNotRun(String),
}

impl From<String> for Ended {
    fn from(why: String) -> Ended {
        Ended::Failed(why)
    }
}

/// Mounts are seen by this process and its children only, and go with them.
pub fn own_namespace() -> Result<(), Ended> {
    #[expect(unsafe_code, reason = "unshare takes a number")]
    let rc = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if rc != 0 {
        return Err(Ended::DidNotRun(format!("needs root's mount namespaces: {}", std::io::Error::last_os_error())));
    }
    run("mount", &["--make-rprivate", "/"]).map_err(Ended::DidNotRun)
}

/// Runs a program of the system; its words when it fails.
pub fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let out = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim())),
    }
}

/// A mount, until dropped.
pub struct Mount {
    /// Where.
    pub at: PathBuf,
    /// The file of a loop mount.
    image: Option<PathBuf>,
}

impl Mount {
    /// An ext4 of this file.
    pub fn ext4(image: &Path, at: &Path) -> Result<Mount, String> {
        fs::create_dir_all(at).map_err(|e| format!("{}: {e}", at.display()))?;
        let mount = Mount { at: at.to_path_buf(), image: Some(image.to_path_buf()) };
        mount.up()?;
        Ok(mount)
    }

    /// A tmpfs with these options.
    pub fn tmpfs(at: &Path, options: &str) -> Result<Mount, String> {
        fs::create_dir_all(at).map_err(|e| format!("{}: {e}", at.display()))?;
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &at.display().to_string()])?;
        Ok(Mount { at: at.to_path_buf(), image: None })
    }

    fn up(&self) -> Result<(), String> {
        let Some(image) = &self.image else { return Ok(()) };
        run("mount", &["-t", "ext4", "-o", "loop", &image.display().to_string(), &self.at.display().to_string()])
    }

    /// Unmounts; whoever still has a file open has been killed and is gone in a moment.
    fn down(&self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..100 {
            match run("umount", &[&self.at.display().to_string()]) {
                Ok(()) => return self.detached(),
                Err(why) => last = why,
            }
            pause(20);
        }
        Err(last)
    }

    /// Waits until the kernel has let the file go. Another mount namespace that is about to end may hold the same mount, and
    /// who mounts the file again meanwhile gets that one, shut down as it is.
    fn detached(&self) -> Result<(), String> {
        let Some(image) = &self.image else { return Ok(()) };
        let name = image.display().to_string();
        let backs = |disk: fs::DirEntry| fs::read_to_string(disk.path().join("loop/backing_file")).is_ok_and(|file| file.trim() == name);
        for _ in 0..500 {
            let held = fs::read_dir("/sys/block").into_iter().flatten().flatten().any(backs);
            if !held {
                return Ok(());
            }
            pause(20);
        }
        Err(format!("{name}: is still mounted somewhere, 10 s after it was unmounted here"))
    }

    /// What a boot does after a power cut: the journal is replayed.
    pub fn again(&self) -> Result<(), String> {
        self.down()?;
        self.up()
    }

    /// `mount -o remount,...`
    pub fn remount(&self, options: &str) -> Result<(), String> {
        run("mount", &["-o", &format!("remount,{options}"), &self.at.display().to_string()])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.down().is_err() {
            let _ = run("umount", &["-l", &self.at.display().to_string()]);
        }
    }
}

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: from now on nothing reaches the disk, not even the journal.
pub fn going_down(mount_point: &Path) -> std::io::Result<()> {
    const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
    let flags: u32 = 2;
    let folder = fs::File::open(mount_point)?;
    #[expect(unsafe_code, reason = "the ioctl reads one number of ours")]
    let rc = unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_SHUTDOWN, &flags) };
    if rc < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
