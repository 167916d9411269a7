//! Fleet: arguments, log, exit code.

/// Names product and version inside the file, for `vmetric-release add`, which executes nothing.
#[cfg(unix)]
static STAMP: &str = concat!("vmetric-build-stamp: vmetric-fleet ", env!("VMETRIC_BUILT_VERSION"), " ", env!("VMETRIC_BUILT_TARGET"), "\n");

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    use std::io::Write;
    use std::process::ExitCode;
    use vmetric::director::args::{self, Command};
    use vmetric::director::{console, run};
    use vmetric::fleet::role::FLEET;

    let words: Vec<String> = std::env::args().skip(1).collect();
    #[expect(clippy::disallowed_methods, reason = "programs read the environment, the library gets arguments")]
    let state = std::env::var("VMETRIC_FLEET_STATE").ok().filter(|s| !s.is_empty());
    let mut out = std::io::stdout();
    let told = vmetric::fleet::store::command::local(&words, state.clone());
    if let Some(verified) = told.or_else(|| vmetric::fleet::access::command::local(&words)) {
        return match verified.and_then(|text| write!(out, "{text}").map_err(|e| e.to_string())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("vmetric-fleet: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let done = match args::parse(&words, state.clone(), &FLEET) {
        Err(usage) => {
            eprintln!("vmetric-fleet: {usage}");
            return ExitCode::from(2);
        }
        Ok(Command::Help) => {
            let service = vmetric::core::service::args::USAGE;
            write!(out, "{}\nService of this system (run options after --)\n{service}\n", FLEET.help).map_err(|e| e.to_string())
        }
        Ok(Command::Service(asked)) => {
            let product = &vmetric::core::service::FLEET;
            let mut say = |line: &str| drop(writeln!(std::io::stdout(), "{line}"));
            let wrong = |words: &[String]| args::parse(words, None, &FLEET).err();
            match (vmetric::io::service::Command { product, asked: &asked, env_state: state, say: &mut say, wrong: &wrong }).obey() {
                Ok(code) => return ExitCode::from(u8::try_from(code).unwrap_or(1)),
                Err(reason) => Err(reason.to_string()),
            }
        }
        Ok(Command::Version(_)) => {
            let here = vmetric::core::release::Platform::here();
            // What is only looked for in the file would not be linked.
            std::hint::black_box(STAMP);
            writeln!(out, "vmetric-fleet {} ({}, {here})", env!("VMETRIC_BUILT_VERSION"), env!("VMETRIC_BUILT_COMMIT"))
                .map_err(|e| e.to_string())
        }
        Ok(Command::SelfTest) => vmetric::agent::trial::self_test().map(drop).map_err(|r| r.to_string()),
        // A Director's only.
        Ok(Command::Own(_)) => Err("unknown command; --help lists them".into()),
        Ok(Command::Run(run)) => {
            vmetric::io::logger::install(log::LevelFilter::Info);
            run::run(&run, &FLEET, Some(std::rc::Rc::new(vmetric::fleet::extra::FleetExtra::of(&run))), None).map(drop)
        }
        Ok(Command::Schedule(asked)) => vmetric::director::schedule::run(&asked, &mut out),
        Ok(Command::Backups(_)) => Err("vmetric-fleet does not update itself, so it keeps no backups".into()),
        Ok(Command::Check(..)) => Err("there is no vmetric.yml here; options are arguments".into()),
        Ok(Command::Ask(ask)) => console::run(&ask, &FLEET, &mut out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmetric-fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("vmetric-fleet: Fleet runs on Linux and other Unix systems only");
    std::process::ExitCode::FAILURE
}
