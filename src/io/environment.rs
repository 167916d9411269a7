//! The environment, where it holds something secret.

/// Forgets a variable of the environment: its bytes are overwritten where they stand, which `/proc/<pid>/environ` shows, and
/// no later program of this process gets it. For the one thread that there is.
pub fn forget(name: &str) {
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "walks the environment's own list of C strings and overwrites the value of one in place")]
    unsafe {
        unsafe extern "C" {
            static mut environ: *mut *mut std::ffi::c_char;
        }
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            let text = std::ffi::CStr::from_ptr(*at).to_bytes();
            if text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")) {
                std::ptr::write_bytes((*at).add(name.len() + 1), b'x', text.len() - name.len() - 1);
            }
            at = at.add(1);
        }
    }
    #[expect(unsafe_code, reason = "one thread, so nobody reads the environment meanwhile")]
    unsafe {
        std::env::remove_var(name);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn its_bytes_are_gone_and_children_get_none() {
        // In a process of its own: this one has threads.
        let own = std::env::current_exe().unwrap();
        if std::env::var_os("VMETRIC_FORGET_CHILD").is_some() {
            let at_start = std::fs::read("/proc/self/environ").unwrap();
            assert!(at_start.windows(9).any(|w| w == b"s3cr3tval"));
            super::forget("VMETRIC_CONFIG");
            let now = std::fs::read("/proc/self/environ").unwrap();
            assert!(!now.windows(9).any(|w| w == b"s3cr3tval") && now.len() == at_start.len());
            assert!(std::env::var_os("VMETRIC_CONFIG").is_none());
            return;
        }
        let mut child = std::process::Command::new(own);
        child.args(["--exact", "io::environment::tests::its_bytes_are_gone_and_children_get_none", "--test-threads=1"]);
        child.env("VMETRIC_FORGET_CHILD", "1").env("VMETRIC_CONFIG", "s3cr3tval");
        let out = child.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    }
}
