//! The Director: arguments, log, exit code.

/// Names product and version inside the file, for `vmetric-release add`, which executes nothing.
#[cfg(unix)]
static STAMP: &str =
    concat!("vmetric-build-stamp: vmetric-director ", env!("VMETRIC_BUILT_VERSION"), " ", env!("VMETRIC_BUILT_TARGET"), "\n");

#[expect(clippy::disallowed_methods, reason = "programs read the environment, the library gets arguments")]
#[cfg(unix)]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|s| !s.is_empty())
}

/// What the programs of one process hand on to each other.
#[cfg(unix)]
fn launch(raw: Vec<String>, run: &vmetric::director::args::Run) -> vmetric::agent::run::RunArgs {
    use vmetric::agent::run::{ENV_IMAGE, ENV_LOCK, ENV_RUNNING, ENV_SUPERVISOR, ENV_SWITCHED, RunArgs, RunEnv};
    let respawned = env("VMETRIC_RESPAWN").is_some();
    RunArgs {
        product: &vmetric::core::product::DIRECTOR,
        state: run.state.clone(),
        supervise: run.supervise || (!respawned && vmetric::director::own::wants_supervisor(&run.state)),
        raw,
        env: RunEnv {
            running: env(ENV_RUNNING),
            image: env(ENV_IMAGE).map(Into::into),
            lock: env(ENV_LOCK).and_then(|v| v.parse().ok()),
            switched_at: env(ENV_SWITCHED).and_then(|v| v.parse().ok()),
            supervisor: env(ENV_SUPERVISOR).and_then(|v| v.parse().ok()),
            config: None,
        },
    }
}

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    use std::io::Write;
    use std::process::ExitCode;
    use vmetric::director::args::{self, Command};
    use vmetric::director::role::DIRECTOR;
    use vmetric::director::{console, run, schedule};

    let words: Vec<String> = std::env::args().skip(1).collect();
    let state = env("VMETRIC_DIRECTOR_STATE");
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
        Ok(Command::SelfTest) => match vmetric::agent::trial::self_test() {
            Ok(said) => writeln!(out, "{said}").map_err(|e| e.to_string()),
            Err(reason) => Err(reason.to_string()),
        },
        Ok(Command::Own(asked)) => vmetric::director::own::command::obey(asked, env("VMETRIC_FLEET_KEY"), &mut out),
        Ok(Command::Version(folder)) => {
            let here = vmetric::core::release::Platform::here();
            // What is only looked for in the file would not be linked.
            std::hint::black_box(STAMP);
            let own = format!("vmetric-director {} ({}, {here})", env!("VMETRIC_BUILT_VERSION"), env!("VMETRIC_BUILT_COMMIT"));
            writeln!(out, "{own}\n{}", vmetric::director::own::command::running_line(&folder)).map_err(|e| e.to_string())
        }
        Ok(Command::Check(check, state)) => check.obey(&state, &mut out),
        Ok(Command::Run(run)) => {
            vmetric::io::logger::install(log::LevelFilter::Info);
            match run::run(&run, &DIRECTOR, None, Some(launch(words, &run))) {
                Ok(0) => Ok(()),
                Ok(code) => return ExitCode::from(u8::try_from(code).unwrap_or(1)),
                Err(error) => Err(error),
            }
        }
        Ok(Command::Backups(asked)) => asked.obey(&mut out),
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
