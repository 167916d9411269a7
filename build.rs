//! What a binary knows about itself: version, commit, target, and the root metadata of its factory date.
//!
//! | variable (input) | effect |
//! |---|---|
//! | `VMETRIC_VERSION` | the version this build calls itself; default: the package's |
//! | `VMETRIC_COMMIT` | the commit it was built from; default: asked of git, else `unknown` |
//! | `VMETRIC_ROOT` | path of a `root.json` to build in; default: none, `<image>/root.json` is used |
//! | `VMETRIC_BUILD_TIME` | seconds since 1970, the floor of this build's clock; default: the commit's time, else 0 |
//! | `VMETRIC_FAULT` | feature `fault` only: the fault this build shows (see `agent::fault`) |

#![expect(clippy::disallowed_methods, reason = "a build script reads its environment and writes its output")]

use std::{env, fs, path::PathBuf, process::Command};

fn main() {
    for name in ["VMETRIC_VERSION", "VMETRIC_COMMIT", "VMETRIC_ROOT", "VMETRIC_BUILD_TIME", "VMETRIC_FAULT"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    let version = given("VMETRIC_VERSION").unwrap_or_else(|| env::var("CARGO_PKG_VERSION").unwrap());
    let commit = given("VMETRIC_COMMIT").or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    let time = given("VMETRIC_BUILD_TIME").or_else(|| git(&["log", "-1", "--format=%ct"]));
    println!("cargo:rustc-env=VMETRIC_BUILT_VERSION={version}");
    println!("cargo:rustc-env=VMETRIC_BUILT_COMMIT={}", commit.unwrap_or_else(|| "unknown".into()));
    println!("cargo:rustc-env=VMETRIC_BUILT_TIME={}", time.unwrap_or_else(|| "0".into()));
    println!("cargo:rustc-env=VMETRIC_BUILT_TARGET={}", env::var("TARGET").unwrap());
    println!("cargo:rustc-env=VMETRIC_BUILT_FAULT={}", given("VMETRIC_FAULT").unwrap_or_default());

    let root = match given("VMETRIC_ROOT") {
        Some(path) => {
            println!("cargo:rerun-if-changed={path}");
            fs::read(&path).unwrap_or_else(|e| panic!("VMETRIC_ROOT={path}: {e}; name a root.json made by `vmetric-release init`"))
        }
        None => Vec::new(),
    };
    let out = PathBuf::from(env::var("OUT_DIR").unwrap()).join("root.json");
    fs::write(out, root).expect("OUT_DIR is writable");
}

fn given(name: &str) -> Option<String> {
    env::var(name).ok().filter(|v| !v.is_empty())
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(out.stdout).ok()?;
    Some(text.trim().to_string()).filter(|t| !t.is_empty())
}
