//! What a run could leave behind: its cgroups and its work folder. Everything else ends with its namespaces.

use std::fs;
use std::path::{Path, PathBuf};

use crate::pause;

const GROUPS: &str = "/sys/fs/cgroup";
/// Work folders and cgroups are named so, with the process id of the guard.
const NAME: &str = "vmetric-beds-";

/// Every mounted hierarchy of cgroups.
pub fn hierarchies() -> Vec<PathBuf> {
    let top = Path::new(GROUPS);
    if top.join("cgroup.controllers").exists() {
        return vec![top.to_path_buf()];
    }
    let inside = fs::read_dir(top).into_iter().flatten().flatten().map(|e| e.path());
    inside.filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// The cgroup of one bed, below each hierarchy. `guard` is the guard's process id.
pub fn cgroup_of(guard: &str, bed: &str) -> String {
    format!("{NAME}{guard}/{bed}")
}

/// The work folder of a run.
pub fn work_of(guard: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{NAME}{guard}"))
}

/// The guard's process id in a work folder's name.
pub fn guard_of(work: &Path) -> String {
    work.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(NAME)).unwrap_or_default().to_string()
}

/// Removes a run's cgroups, once the kernel has ended what was in them.
pub fn cgroups(guard: u32) {
    for _ in 0..100 {
        let left: Vec<PathBuf> = hierarchies().into_iter().map(|h| h.join(format!("{NAME}{guard}"))).filter(|p| p.exists()).collect();
        if left.is_empty() {
            return;
        }
        left.iter().for_each(|folder| remove(folder));
        pause(50);
    }
    eprintln!("beds: cgroups named {NAME}{guard} are still there, for something still runs in them");
}

/// A cgroup is removed from its leaves up; its files are not files.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove(&entry.path());
    }
    let _ = fs::remove_dir(folder);
}

/// Removes what a run that was killed, guard and all, has left.
pub fn of_dead_runs() {
    let places = hierarchies().into_iter().chain([std::env::temp_dir()]);
    let names = places.flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten().map(|e| e.file_name()));
    let guards: std::collections::BTreeSet<u32> = names.filter_map(|n| n.to_str()?.strip_prefix(NAME)?.parse().ok()).collect();
    for guard in guards.into_iter().filter(|guard| !Path::new(&format!("/proc/{guard}")).exists()) {
        println!("removes what an earlier run has left: {NAME}{guard}");
        cgroups(guard);
        let _ = fs::remove_dir_all(work_of(guard));
    }
}
