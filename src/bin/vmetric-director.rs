//! The Director: arguments, log, exit code.

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    use std::io::Write;
    use std::process::ExitCode;
    use vmetric::director::args::{self, Command};
    use vmetric::director::{console, run};

    let words: Vec<String> = std::env::args().skip(1).collect();
    #[expect(clippy::disallowed_methods, reason = "programs read the environment, the library gets arguments")]
    let state = std::env::var("VMETRIC_DIRECTOR_STATE").ok().filter(|s| !s.is_empty());
    let mut out = std::io::stdout();
    let done = match args::parse(&words, state) {
        Err(usage) => {
            eprintln!("vmetric-director: {usage}");
            return ExitCode::from(2);
        }
        Ok(Command::Help) => out.write_all(args::HELP.as_bytes()).map_err(|e| e.to_string()),
        Ok(Command::Version) => {
            let here = vmetric::core::release::Platform::here();
            writeln!(out, "vmetric-director {} ({}, {here})", env!("VMETRIC_BUILT_VERSION"), env!("VMETRIC_BUILT_COMMIT"))
                .map_err(|e| e.to_string())
        }
        Ok(Command::Run(run)) => {
            vmetric::io::logger::install(log::LevelFilter::Info);
            run::run(&run)
        }
        Ok(Command::Ask(ask)) => console::run(&ask, &mut out),
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
