//! Private keys of `vmetric-release`: never in clear on the disk or in any output, and hard to lose by mistake.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::release_bench::{Bench, PASSPHRASE, seed};

#[test]
fn no_secret_is_in_any_output_or_file() {
    let mut bench = Bench::new();
    bench.set("VMETRIC_KEY_TIMESTAMP", &seed(3, 0));
    bench.set("VMETRIC_KEY_BUILD", &seed(4, 0));
    bench.write("vmetric-agent", b"agent 1.0.0");
    let mut said = String::new();
    for line in [
        "init --repo release --keys keys",
        "keys --repo release --keys keys",
        "keys --repo release --keys keys --json",
        "add --repo release --keys keys --product vmetric-agent --version 1.0.0 --os linux --arch amd64 vmetric-agent",
        "sign --repo release --keys keys --json",
        "publish --repo release --out public",
        "status --repo release --json",
        "sign --repo release --keys nowhere --role timestamp --renew",
        "rotate --repo release --keys keys --role snapshot --add 1",
    ] {
        let ended = bench.run(line);
        said.push_str(&ended.out);
        said.push_str(&ended.err);
    }
    let mut texts: Vec<(String, Vec<u8>)> = vec![("output".into(), said.into_bytes())];
    for folder in ["release", "keys", "public"] {
        texts.extend(bench.files(folder));
    }
    let secrets = [seed(3, 0).into_bytes(), seed(4, 0).into_bytes(), raw(&seed(3, 0)), raw(&seed(4, 0)), PASSPHRASE.as_bytes().to_vec()];
    for (name, bytes) in &texts {
        for secret in &secrets {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret), "{name}");
        }
    }
    assert!(!bench.files("keys").keys().any(|name| name.starts_with("timestamp") || name.starts_with("build")));
}

#[test]
fn key_files_are_for_their_owner_only() {
    let bench = Bench::new();
    bench.good("init --repo release --keys keys");
    let mode = |path: &str| fs::metadata(bench.path(path)).unwrap().permissions().mode() & 0o777;
    let names: Vec<String> = bench.files("keys").into_keys().collect();
    assert_eq!(names.len(), 5 + 3 + 1 + 1 + 1, "{names:?}");
    for name in names {
        assert_eq!(mode(&format!("keys/{name}")), 0o600, "{name}");
    }
    assert_eq!(mode("keys"), 0o700);
    assert!(bench.good("keys --repo release --keys keys").contains("encrypted keys/root-1.key"));
    assert!(bench.good("keys --repo release").contains("elsewhere"));
}

#[test]
fn a_wrong_passphrase_says_so_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.good("init --repo release --keys keys");
    let (repository, keys) = (bench.files("release"), bench.files("keys"));
    bench.set("VMETRIC_RELEASE_PASSPHRASE", "incorrect horse battery staple");
    assert!(bench.bad("sign --repo release --keys keys").contains("wrong passphrase"));
    // A key made with a mistyped passphrase could never be opened again.
    let make = "delegate --repo release --keys keys --product vmetric-agent --platform linux-amd64";
    assert!(bench.bad(make).contains("wrong passphrase"));
    bench.unset("VMETRIC_RELEASE_PASSPHRASE");
    assert!(bench.bad("sign --repo release --keys keys").contains("VMETRIC_RELEASE_PASSPHRASE"));
    bench.write("phrase", format!("{PASSPHRASE}\n").as_bytes());
    assert_eq!((bench.files("release"), bench.files("keys")), (repository, keys));
    bench.good("sign --repo release --keys keys --passphrase-file phrase");
    bench.write("short", b"short");
    assert!(bench.bad("init --repo other --keys more --passphrase-file short").contains("at least 12"));
    bench.good("init --repo other --keys more --passphrase-file phrase");
}

#[test]
fn a_torn_key_file_is_named() {
    let bench = Bench::new();
    bench.good("init --repo release --keys keys");
    let good = fs::read(bench.path("keys/root-2.key")).unwrap();
    bench.write("keys/root-2.key", &good[..good.len() / 2]);
    let refusal = bench.bad("sign --repo release --keys keys");
    assert!(refusal.contains("keys/root-2.key") && refusal.contains("backup"), "{refusal}");
    // A file with another key's name in it does not open.
    let swapped = String::from_utf8(good).unwrap().replace(r#""role":"root""#, r#""role":"timestamp""#);
    bench.write("keys/root-2.key", swapped.as_bytes());
    bench.good("rotate --repo release --role root --threshold 2");
    assert!(bench.bad("sign --repo release --keys keys --role root").contains("keys/root-2.key"));
}

#[test]
fn a_seed_in_the_environment_must_be_one_of_the_role() {
    let mut bench = Bench::with_seeds();
    bench.published();
    for (value, says) in [
        (seed(8, 8), "not among the keys"),
        ("0123".into(), "64 lower-case hex digits"),
        (seed(3, 0).to_uppercase() + "FF", "64 lower-case"),
    ] {
        bench.set("VMETRIC_KEY_TIMESTAMP", &value);
        let said = bench.bad("sign --repo release --renew --role timestamp");
        assert!(said.contains("VMETRIC_KEY_TIMESTAMP") && said.contains(says) && !said.contains(&value), "{said}");
    }
}

fn raw(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}
