//! `vmetric-release`: keys, signing, publishing. See `vmetric::release`.

use std::io::Write;
use std::process::ExitCode;

use vmetric::io::clock;
use vmetric::release::cli::{self, World};

#[expect(clippy::disallowed_methods, reason = "the program's edge: the environment becomes an argument here")]
fn main() -> ExitCode {
    let args: Result<Vec<String>, _> = std::env::args_os().skip(1).map(|a| a.into_string()).collect();
    let Ok(args) = args else {
        eprintln!("vmetric-release: an argument is not UTF-8 text");
        return ExitCode::from(2);
    };
    let env = |name: &str| std::env::var(name).ok();
    let version = concat!(env!("VMETRIC_BUILT_VERSION"), " (", env!("VMETRIC_BUILT_COMMIT"), ")");
    let code = cli::run(&args, &World { env: &env, now: clock::unix(), version }, &mut std::io::stdout(), &mut std::io::stderr());
    let _ = std::io::stdout().flush();
    ExitCode::from(code)
}
