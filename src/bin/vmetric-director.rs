//! The Director: arguments, log, exit code.

/// Names product and version inside the file, for `vmetric-release add`, which executes nothing.
#[cfg(unix)]
static STAMP: &str =
    concat!("vmetric-build-stamp: vmetric-director ", env!("VMETRIC_BUILT_VERSION"), " ", env!("VMETRIC_BUILT_TARGET"), "\n");

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    use std::io::Write;
    use std::process::ExitCode;
    use vmetric::director::args::{self, Command};
    use vmetric::director::role::DIRECTOR;
    use vmetric::director::{console, run, schedule};

    let words: Vec<String> = std::env::args().skip(1).collect();
    #[expect(clippy::disallowed_methods, reason = "programs read the environment, the library gets arguments")]
    let state = std::env::var("VMETRIC_DIRECTOR_STATE").ok().filter(|s| !s.is_empty());
    let mut out = std::io::stdout();
    let done = match args::parse(&words, state.clone(), &DIRECTOR) {
        Err(usage) => {
            eprintln!("vmetric-director: {usage}");
            return ExitCode::from(2);
        }
        Ok(Command::Help) => {
            let service = vmetric::core::service::args::USAGE;
            write!(out, "{}\nService of this system (run options after --)\n{service}\n", DIRECTOR.help).map_err(|e| e.to_string())
        }
        Ok(Command::Service(asked)) => {
            let product = &vmetric::core::service::DIRECTOR;
            let mut say = |line: &str| drop(writeln!(std::io::stdout(), "{line}"));
            let wrong = |words: &[String]| match args::parse(words, None, &DIRECTOR) {
                Ok(Command::Run(run)) => vmetric::director::config::start::lacks(&run),
                other => other.err(),
            };
            match (vmetric::io::service::Command { product, asked: &asked, env_state: state, say: &mut say, wrong: &wrong }).obey() {
                Ok(code) => return ExitCode::from(u8::try_from(code).unwrap_or(1)),
                Err(reason) => Err(reason.to_string()),
            }
        }
        Ok(Command::Version) => {
            let here = vmetric::core::release::Platform::here();
            // What is only looked for in the file would not be linked.
            std::hint::black_box(STAMP);
            writeln!(out, "vmetric-director {} ({}, {here})", env!("VMETRIC_BUILT_VERSION"), env!("VMETRIC_BUILT_COMMIT"))
                .map_err(|e| e.to_string())
        }
        Ok(Command::Check(check, state)) => check.obey(&state, &mut out),
        Ok(Command::Run(run)) => {
            vmetric::io::logger::install(log::LevelFilter::Info);
            run::run(&run, &DIRECTOR, None)
        }
        Ok(Command::Schedule(asked)) => schedule::run(&asked, &mut out),
        Ok(Command::Ask(ask)) => console::run(&ask, &DIRECTOR, &mut out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmetric-director: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("vmetric-director: this release of the Director runs on Linux and other Unix systems only");
    std::process::ExitCode::FAILURE
}
