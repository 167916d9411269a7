//! `vmetric-agent`: arguments, log set-up, exit code.

use std::io::Write;
use std::path::PathBuf;
use std::process::exit;

use vmetric::agent::args::{Args, USAGE, parse};
use vmetric::agent::command::{self, UpdateArgs};
use vmetric::agent::enroll::{self, EnrollArgs};
use vmetric::agent::first_boot::ENV_CONFIG;
use vmetric::agent::run::{self, ENV_IMAGE, ENV_LOCK, ENV_RUNNING, ENV_SUPERVISOR, ENV_SWITCHED, RunArgs, RunEnv};
use vmetric::agent::{build, status, trial};
use vmetric::core::product::AGENT as AGENT_PRODUCT;
use vmetric::core::reason::Reason;
use vmetric::core::service::AGENT;
use vmetric::core::service::args::USAGE as SERVICE_USAGE;
use vmetric::io::service::Command;
use vmetric::io::state::State;
use vmetric::io::user::become_owner_of;
use vmetric::io::{device_key, logger};

/// Names product and version inside the file, for `vmetric-release add`, which executes nothing.
static STAMP: &str = concat!("vmetric-build-stamp: vmetric-agent ", env!("VMETRIC_BUILT_VERSION"), " ", env!("VMETRIC_BUILT_TARGET"), "\n");

#[expect(clippy::disallowed_methods, reason = "the shell reads the environment")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

fn main() {
    // In debug builds: what a release links of the log ends with `info` (Cargo.toml).
    let level = if env("VMETRIC_DEBUG").is_some() { log::LevelFilter::Debug } else { log::LevelFilter::Info };
    logger::install(level);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let args = match parse(&words) {
        Ok(args) => args,
        Err(what) => {
            complain(&format!("vmetric-agent: {what}\n\n{USAGE}"));
            exit(2)
        }
    };
    exit(obey(&args, words))
}

/// A line for whoever asked. Nobody may read it any more (`status | head -1`, a session that ended): no reason to panic, and
/// `update --file` has still to acknowledge.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The same for what went wrong.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn obey(args: &Args, words: Vec<String>) -> i32 {
    let folder = args.state.clone().or_else(|| env("VMETRIC_STATE").map(PathBuf::from)).unwrap_or_else(|| AGENT.state.into());
    if ["status", "rollback", "enroll", "update", "run", "validate", "version"].contains(&args.command.as_str())
        && let Err(e) = become_owner_of(&folder)
    {
        complain(&format!("vmetric-agent: {}: its owner cannot be become: {e} (not_owner)", folder.display()));
        return 1;
    }
    match args.command.as_str() {
        "help" => {
            say(USAGE);
            say(SERVICE_USAGE);
            0
        }
        "service" => service(args),
        "version" => version(&folder),
        "self-test" => shown(trial::self_test()),
        "validate" => shown(validate(&folder)),
        "status" => {
            let state = State::look(&folder);
            let report = status::look(&state, command::running_agent(&state), build::VERSION);
            say(if args.json { report.json() } else { report.text() }.trim_end());
            0
        }
        "rollback" => shown(command::rollback(&State::look(&folder))),
        "enroll" => match args.token.clone().or_else(|| env("VMETRIC_TOKEN")) {
            Some(token) => enroll(args, folder, token),
            None => {
                complain(&format!("vmetric-agent: enroll needs --token T, or VMETRIC_TOKEN\n\n{USAGE}"));
                2
            }
        },
        "update" => {
            let image = std::env::current_exe().unwrap_or_default();
            let update = UpdateArgs {
                product: &AGENT_PRODUCT,
                state: folder,
                tree: args.file.clone().unwrap_or_default(),
                version: args.version.clone(),
                image,
            };
            shown(command::update_file(&update, &mut |line| say(line)))
        }
        _ => run::run(&RunArgs {
            product: &AGENT_PRODUCT,
            state: folder,
            supervise: args.supervise || env("VMETRIC_RESPAWN").is_none(),
            raw: words,
            env: RunEnv {
                running: env(ENV_RUNNING),
                image: env(ENV_IMAGE).map(PathBuf::from),
                lock: env(ENV_LOCK).and_then(|v| v.parse().ok()),
                switched_at: env(ENV_SWITCHED).and_then(|v| v.parse().ok()),
                supervisor: env(ENV_SUPERVISOR).and_then(|v| v.parse().ok()),
                config: env(ENV_CONFIG),
            },
        }),
    }
}

fn service(args: &Args) -> i32 {
    let Some(asked) = &args.service else { return 2 };
    match (Command {
        product: &AGENT,
        asked,
        env_state: env("VMETRIC_STATE"),
        say: &mut |line| say(line),
        wrong: &|words| parse(words).err(),
    })
    .obey()
    {
        Ok(code) => code,
        Err(reason) => shown(Err(reason)),
    }
}

fn enroll(args: &Args, state: PathBuf, token: String) -> i32 {
    shown(enroll::enroll(&EnrollArgs {
        product: &AGENT_PRODUCT,
        state,
        director: args.director.clone().unwrap_or_default(),
        token,
        pins: args.pins.clone(),
        proxy: args.proxy.clone(),
        offline_site_days: args.offline_site,
        serial: args.serial.clone(),
        ca: args.ca.clone(),
        replace: args.replace,
    }))
}

fn shown(result: Result<String, Reason>) -> i32 {
    match result {
        Ok(text) => {
            say(&text);
            0
        }
        Err(reason) => {
            complain(&format!("vmetric-agent: {reason}"));
            1
        }
    }
}

/// This file's version, then what runs: `running: 2.5.0 (slot b, confirmed)`.
fn version(folder: &std::path::Path) -> i32 {
    // What is only looked for in the file would not be linked.
    std::hint::black_box(STAMP);
    say(&format!("vmetric-agent {} ({} {})", build::VERSION, build::COMMIT, build::TARGET));
    let state = State::look(folder);
    say(&status::look(&state, command::running_agent(&state), build::VERSION).running_line());
    0
}

fn validate(folder: &std::path::Path) -> Result<String, Reason> {
    let path = State::look(folder).path(AGENT_PRODUCT.config);
    match State::look(folder).config_file()? {
        None => Err(Reason::new("not_enrolled", format!("{}: is missing; run `vmetric-agent enroll`", path.display()))),
        Some((_, unknown)) if !unknown.is_empty() => {
            Err(Reason::new("unknown_field", format!("{}: unknown field {}", path.display(), unknown.join(", "))))
        }
        Some((config, _)) => {
            // A whole configuration whose key is gone is of no use to anybody.
            config.device_key.map(|public| device_key::of(&State::look(folder), &public)).transpose()?;
            Ok(format!("{}: valid", path.display()))
        }
    }
}
