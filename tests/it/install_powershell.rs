//! The install texts for Windows, by a grammar of PowerShell: no PowerShell is to be had where these tests run.

use std::io::Write;
use std::process::{Command, Stdio};

use vmetric::director::install::{AGENT, DIRECTOR, Install, command};

/// Exit code, what is called, what does not parse.
fn parsed(text: &str) -> (Option<i32>, String, String) {
    #[expect(clippy::disallowed_methods, reason = "tests read the environment")]
    let python = std::env::var("VMETRIC_PYTHON_TUF").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/powershell.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), said(&out.stdout), said(&out.stderr))
}

#[test]
#[ignore = "needs Python packages: tests/run python-tuf"]
fn the_windows_texts_parse_by_the_grammar_of_powershell() {
    for product in [AGENT, DIRECTOR] {
        let install = Install {
            product,
            os: "windows".into(),
            arch: "amd64".into(),
            url: "https://[2001:db8::1]:8443".into(),
            pin: format!("sha256:{}", "ab".repeat(32)),
            certificates_sha256: "cd".repeat(32),
            root_version: 7,
            root_sha256: "ef".repeat(32),
            version: "2.5.0".into(),
            agent_sha256: "01".repeat(32),
            token: "vmt_0123456789".into(),
        };
        let text = command(&install).unwrap();
        let (code, called, wrong) = parsed(&text);
        assert_eq!((code, wrong.as_str()), (Some(0), ""), "{text}");
        // Nothing is called that nobody wrote: a value that left its quotes would be.
        let known = ["Fetch", "Verify", "Get-Content", "Get-FileHash", "Join-Path", "Move-Item", "New-Item", "Out-Null", "Remove-Item"];
        let known: Vec<&str> = known.into_iter().chain(["curl.exe", "Set-Content", "Test-Path"]).collect();
        let strange: Vec<&str> = called.lines().filter(|name| !known.contains(name) && !name.starts_with('"')).collect();
        assert!(strange.is_empty(), "{strange:?}");
        // The test can fail.
        assert_eq!(parsed(&text.replace("site''s", "site's")).0, Some(1));
        assert_eq!(parsed(&text.replacen("}", "", 1)).0, Some(1));
    }
}
