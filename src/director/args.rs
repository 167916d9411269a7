//! The command line, by hand: a word, options, nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;

mod ask;
mod words;

use ask::ask;
pub use words::{Words, seconds};

use super::admin::AdminWire;
use super::backup::command::Backups;
use super::config::command::{self as check, Check};
use super::pki::company::Files;
use super::role::Role;
use super::schedule;
use crate::core::service::args::{self as service, Asked};
use crate::io::tls::{Pin, parse_pin};

/// The help text.
pub const HELP: &str = "\
vmetric-director: mirrors releases, decides for its agents, pushes updates

Usage: vmetric-director COMMAND [options]

Run
  run [--config FILE] [--mirror FOLDER|URL] [--root root.json] [--listen ADDR:PORT]... [--mirror-pin sha256:..] [--name HOST]
      Serves agents until SIGTERM. The first start makes the site CA. Options win over the file.
      --config      vmetric.yml (see -example); without it <state>/vmetric.yml, then /etc/vmetric/vmetric.yml, if there
      --mirror      release tree with metadata/ and targets/: a folder, or https://
                    (without it, no outbound call at all: see `mirror --file`)
      --mirror-pin  the CA key of that https:// server
      --root        root metadata to begin with, required here or in the file; later ones are found from it
      --listen      default 0.0.0.0:8443; may be given several times
      --name        host name or address that agents use, default: the host's name
      --tls-cert, --tls-key   PEM files of your own certificate chain and key, for browsers and company-CA agents;
                    read again when they change. Agents with a pin keep to the site CA.
      --supervise   start it again whenever it ends; the default once it can update itself, unless a service
                    manager does that (VMETRIC_RESPAWN=1, set by -service)

This Director's own updates
  enroll --fleet URL --key KEY --pin sha256:HEX [--proxy URL] [--offline-site DAYS] [--replace]
      Fleet orders its updates from now on. The key may come in VMETRIC_FLEET_KEY, where no other user sees it.
  rollback                          back to the version before
  update --file TREE|BUNDLE [--version V]
      Installs from a medium, binary and resources, without any network and whatever the file's mode says: this command is the
      authority. It stays until the new version has checked itself; stopped before, the Director goes back.
  -version                          this file's version, and what runs
  --self-test                       check that this file works on this machine; touches nothing

Look
  agents [--state S] [--version V] [--why TEXT] [--json]
                                    every agent: version, pending version, state, why not yet; what needs you first
  explain AGENT [--json]            all about one agent: why, since and until when, whose move, what you can do
  rollouts [--json]                 every roll-out
  rejections [--json]               files that are not ordered, to whom, why
  activity [--agent ID]... [--update ID] [--limit N] [--follow] [--json]
                                    --update: one update from its trigger to its end
  releases [--json]                 what the mirror holds: products, versions, platforms, files
  releases --notes VERSION|latest [--json]   release notes
  status [--json]                   this Director and its mirror
  pin                               the site CA's pin
  -validate [FILE]                  check a vmetric.yml without starting; every problem with its line; exit code 0 or 1
  -example                          a commented vmetric.yml
  schedule explain EXPR [--zone Z]  a crontab expression or an interval in words, with its next five times
  schedule next EXPR [--zone Z] [--from RFC3339] [--count N]
                                    its times strictly after --from (now); Z: Europe/Berlin, UTC, local (default)

Cluster (this Director is a member of one; Fleet made it)
  cluster plan [--json]             the members in the order in which they are updated, and why nobody goes now
  cluster health [--version V] [--json]
                                    exit code 0: every member is healthy, reached from here, and runs V; else 1, with the reason
  cluster update --file BUNDLE [--version V] [--force]
      As `update --file`, which takes the cluster's lease, too: Fleet's; where Fleet does not answer, every other member has to
      promise it. --force: although some are not healthy or do not answer; says what quorum that costs.
  cluster invite [--ttl 1h] [--json]
      An invitation, good once: another machine takes the site CA over, so that agents trust both.
  cluster join https://HOST:PORT --pin sha256:HEX --token FILE
      On that machine, before its Director's first start.
  cluster resume                    what members hold against the next one (a failure, a lease that ran out) is seen to
  drain [--wait 10s] [--for 1h] [--force]
      Takes the cluster's lease, fails /readyz, waits for load balancers, trials and downloads. Then stop the service, deploy,
      start: the lease is given back once the others see it well. Refused while another member is not healthy or away.
  resume                            serve again

Act
  install-command [--os linux|darwin|windows] [--arch amd64] [--version V] [--uses N] [--ttl 1h] [--json]
      Makes a token and prints the command that installs and enrolls an agent on a new device.
  token create [--uses N] [--ttl 1h|never] [--serial S]... [--approval] [--label TEXT] [--json]
      --serial      only for devices with these serial numbers, each once, without an end
      --approval    each device waits until a person says `approve`
      --label       what people call it; the devices that come with it keep it (`agents --json`)
  token list | revoke ID [--json]
  api-token create --role viewer [--ttl 30d] | list | revoke ID [--json]
      A token for GET /metrics (Prometheus); shown once.
  approve ID | --serial S [--json]    let a device enroll that waits for it; `agents` lists them, with key and serial number
  deny ID | --serial S [--reason TEXT] [--json]
  assign --all | --agent ID...  --version V|latest
      [--product NAME] [--max-in-flight N|P%] [--max-failures N] [--contact-deadline 5m]
      [--unattended [--trial-max 24h]] [--end-probation] [--retry] [--switch-in 0s] [--life 30d] [--json]
      First one agent, then at most --max-in-flight (10%); more than --max-failures (2) halt it.
      Rolled back, silent past the deadline and flapping count. Who has no turn within --life is left out.
  cancel --all | --agent ID... | --rollout N  [--roll-back] [--reason TEXT] [--json]
      Ends what has not switched. A trial goes on to its own verdict; with --roll-back it goes back.
  retry --all | --agent ID... | --rollout N  [--reason TEXT] [--json]
      Orders again what did not work, whatever the devices rejected; lifts a halted roll-out's quarantine.
  reject HASH [--agent ID...] [--for 7d] [--reason TEXT] [--json]
      That file is not ordered any more: orders are withdrawn, staged copies dropped, trials go back,
      agents that run it are listed and left alone. HASH: SHA-256, or its first 8 digits or more.
  allow HASH [--agent ID...] [--reason TEXT] [--json]
      Lifts that, and a halt's quarantine.
  mirror [--json]                   look for new releases now
  mirror --file BUNDLE|TREE [--accept-expired] [--json]
      Take releases from a medium (`vmetric-release bundle`), checked like any mirror. What expired on its way
      (timestamp, snapshot) is taken only with --accept-expired; the activity keeps the dates.
  ca status | rotate | retire [--force] [--json]
      rotate: a new CA for agents; both are good until `retire`, which waits for everybody and names who is missing.
  policy show [AGENT] [--json]      every setting with its tier, what follows for AGENT, when, whose move it is
  policy set   [--agent ID | --default]  [--mode manual|auto] [--method user_action|immediate|schedule]
      [--version V|latest] [--cron \"0 3 * * 1-5\" | --interval 1h] [--zone Z] [--custom on|off] [--revision N] [--json]
      Sets what is named, for one agent (its Custom Policy) or by default for all of them.
      --custom off  inherit everything, and keep what was typed; --revision N  only if nobody changed it since
  policy unset [--agent ID | --default]  [--mode] [--method] [--version] [--cron] [--interval] [--zone] [--json]
      Inherits these again; without any, all of them.
  policy check [--agent ID | --default] [--mode M] ... [--json]      what `set` would do: problems, what can never act, next times
  policy history [--agent ID | --default] [--limit N] [--before REVISION] [--json]      who changed what, when, before and after
  authorize AGENT VERSION | authorize --all VERSION  [--ttl 24h] [--json]
      Lets agents whose method is user_action take this version, once. It names version and file, and expires.
  authorize --revoke AGENT | --revoke --all [--json]
      Takes that back; what has not switched is withdrawn.
  backups [--json]                  what ran before each switch: program, resources, configuration
  restore NAME [--config FILE] [--image FILE] [--json]
      Puts a backup back while the Director does not run; what is there is backed up first, so it can be undone.
  remove-agent ID                   refuse its credential from now on
  replace-agent ID                  of two devices with this identity, serve the one that is refused now

Every command takes --state DIR (or VMETRIC_DIRECTOR_STATE; default /var/lib/vmetric-director).
Durations: 90s 5m 1h 7d.   Exit codes: 0 done, 1 failed, 2 wrong usage.
";

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// `--help`.
    Help,
    /// `-version`; the state folder.
    Version(PathBuf),
    /// `--self-test`: what a staged version is asked before the switch.
    SelfTest,
    /// `enroll`, `rollback`, `update`.
    #[cfg(unix)]
    Own(super::own::command::Asked),
    /// `-service ...`.
    Service(Box<Asked>),
    /// `-validate`, `-example`; the state folder.
    Check(Check, PathBuf),
    /// `run`.
    Run(Run),
    /// `backups`, `restore`: answered here.
    Backups(Backups),
    /// `schedule`: answered here.
    Schedule(schedule::Asked),
    /// A request to the running Director.
    Ask(Box<Ask>),
}

/// `run`, as far as the command line says it; [`super::config::start`] completes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// State folder.
    pub state: PathBuf,
    /// The configuration file; none = it is looked for.
    pub config: Option<PathBuf>,
    /// Addresses; none = the role's.
    pub listen: Vec<SocketAddr>,
    /// Folder or URL; none = releases are brought.
    pub mirror: Option<String>,
    /// The URL's server.
    pub mirror_pin: Option<Pin>,
    /// Root metadata.
    pub root: Option<PathBuf>,
    /// Host name or address for agents.
    pub name: Option<String>,
    /// The operator's certificate.
    pub tls: Option<Files>,
    /// Start it again whenever it ends.
    pub supervise: bool,
    /// Where Fleet keeps what several Fleets share; none = its own file.
    pub store: Option<String>,
    /// The shared store's settings take the place of those in this file.
    pub join: bool,
}

/// A request to the running Director.
#[derive(Debug)]
pub struct Ask {
    /// State folder.
    pub state: PathBuf,
    /// Documents instead of tables.
    pub json: bool,
    /// Only the pin of a status.
    pub pin_only: bool,
    /// Which agents are shown.
    pub filter: Filter,
    /// Whoever reads the answer sees a screen.
    pub terminal: bool,
    /// The request.
    pub request: AdminWire,
}

/// Which agents are shown; everything given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The state's word.
    pub state: Option<String>,
    /// The running or the scheduled version.
    pub version: Option<String>,
    /// Part of the reason's code or sentence.
    pub why: Option<String>,
}

impl Filter {
    fn parse(words: &mut Words) -> Result<Filter, String> {
        Ok(Filter { state: words.option("--state")?, version: words.option("--version")?, why: words.option("--why")? })
    }
}

/// Reads the arguments after the program's name. `state` is the environment's. A role's own words (`directors`, `key`,
/// `--director`) become those that the server knows from its agents.
///
/// # Errors
/// One sentence: what is wrong and what is expected.
pub fn parse(args: &[String], state: Option<String>, role: &Role) -> Result<Command, String> {
    if let Some(asked) = service::parse(args) {
        return Ok(Command::Service(Box::new(asked?)));
    }
    if let Some(check) = check::parse(args).filter(|_| role.configured) {
        return Ok(Command::Check(check?, state.unwrap_or(role.state.into()).into()));
    }
    let mut words = Words { args: args.to_vec() };
    if words.flag("--help") || words.flag("-h") || args.is_empty() {
        return Ok(Command::Help);
    }
    if matches!(args[0].as_str(), "-version" | "--version" | "-V" | "version") {
        let folder = words.option("--state")?.or(state).unwrap_or(role.state.into());
        return Ok(Command::Version(folder.into()));
    }
    if args[0] == "--self-test" {
        return Ok(Command::SelfTest);
    }
    let state = PathBuf::from(words.option("--state")?.or(state).unwrap_or(role.state.into()));
    let mut word = words.word()?.unwrap_or_default();
    #[cfg(unix)]
    let cluster = word == "cluster" && role.configured && words.args.first().is_some_and(|next| next == "update" || next == "join");
    #[cfg(unix)]
    if cluster {
        word = words.word()?.unwrap_or_default();
    }
    if word == "help" {
        return Ok(Command::Help);
    }
    let command = match word.as_str() {
        "run" | "serve" => Command::Run(run(&mut words, state, role)?),
        #[cfg(unix)]
        "enroll" | "rollback" | "update" | "join" if role.configured && (cluster || word != "join") => {
            Command::Own(super::own::command::Asked { cluster, ..super::own::command::Asked::parse(&word, &mut words, state)? })
        }
        "backups" | "restore" if role.configured => Command::Backups(backups(&word, &mut words, state)?),
        "schedule" => Command::Schedule(schedule::Asked::parse(&mut words)?),
        _ => Command::Ask(Box::new(ask(&word, &mut words, state, role)?)),
    };
    words.end()?;
    Ok(command)
}

fn run(words: &mut Words, state: PathBuf, role: &Role) -> Result<Run, String> {
    let address =
        |text: String| text.parse().map_err(|_| format!("--listen {text}: expected ADDRESS:PORT, such as 0.0.0.0:8443 or [::]:8443"));
    let listen: Vec<SocketAddr> = words.options("--listen")?.into_iter().map(address).collect::<Result<_, _>>()?;
    let mirror = words.option("--mirror")?;
    let starts = |with: &str| mirror.as_deref().is_some_and(|m| m.starts_with(with));
    if starts("http://") {
        return Err("--mirror http://: releases are fetched over https:// only".into());
    }
    let mirror_pin = words.option("--mirror-pin")?.map(|p| parse_pin(&p).map_err(|r| format!("--mirror-pin: {}", r.detail))).transpose()?;
    if starts("https://") && mirror_pin.is_none() {
        return Err("an https:// mirror needs --mirror-pin: the SHA-256 of its CA's public key; no web CA is trusted here".into());
    }
    let root = words.option("--root")?.map(PathBuf::from);
    let config = if role.configured { words.option("--config")?.map(PathBuf::from) } else { None };
    let tls = match (words.option("--tls-cert")?, words.option("--tls-key")?) {
        (Some(certificate), Some(key)) => Some(Files { certificate: certificate.into(), key: key.into() }),
        (None, None) => None,
        _ => return Err("--tls-cert and --tls-key belong together: the chain, leaf first, and its key".into()),
    };
    let name = words.option("--name")?;
    let supervise = role.configured && words.flag("--supervise");
    let store = if role.configured { None } else { words.option("--store")? };
    let join = !role.configured && words.flag("--join");
    Ok(Run { state, config, listen, mirror, mirror_pin, root, name, tls, supervise, store, join })
}

fn backups(word: &str, words: &mut Words, state: PathBuf) -> Result<Backups, String> {
    let json = words.flag("--json");
    if word == "backups" {
        return Ok(Backups::List { state, json });
    }
    let (config, image) = (words.option("--config")?.map(PathBuf::from), words.option("--image")?.map(PathBuf::from));
    let name = words.word()?.ok_or("restore needs a NAME; `backups` lists them")?;
    Ok(Backups::Restore { state, name, config, image, json })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::enroll::TTL_NEVER_S;

    fn parsed(line: &str) -> Result<Command, String> {
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        parse(&args, Some("/env".into()), &super::super::role::DIRECTOR)
    }

    fn asked(line: &str) -> Ask {
        match parsed(line) {
            Ok(Command::Ask(ask)) => *ask,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_and_their_options() {
        let ask = asked("assign --agent a --agent b --version latest --max-in-flight 25% --contact-deadline 5m --retry");
        assert_eq!(ask.request.agents, Some(vec!["a".into(), "b".into()]));
        assert_eq!((ask.request.contact_deadline_s, ask.request.retry), (Some(300), Some(true)));
        assert_eq!(ask.state, PathBuf::from("/env"));
        assert_eq!(asked("token create --uses 3 --ttl=2h --state /x").request.ttl_s, Some(7_200));
        assert_eq!(asked("token create --serial S1 --serial S2").request.serials, Some(vec!["S1".into(), "S2".into()]));
        assert_eq!(asked("token create --serial S --ttl never --approval").request.ttl_s, Some(TTL_NEVER_S));
        assert_eq!(asked("token create --ttl=never --approval").request.approval, Some(true));
        assert_eq!(asked("approve pending-00").request.agents, Some(vec!["pending-00".into()]));
        assert_eq!(asked("deny --serial S1 --reason x").request.serials, Some(vec!["S1".into()]));
        assert_eq!(asked("token revoke abc").request.revoke.as_deref(), Some("abc"));
        assert!(asked("activity --follow --json").json);
        assert!(asked("pin").pin_only);
        assert_eq!(asked("mirror --file /media/site.vmb --accept-expired").request.file.as_deref(), Some("/media/site.vmb"));
        assert!(matches!(parsed("run --root r.json"), Ok(Command::Run(Run { mirror: None, .. }))));
        let reject = asked("reject 0123456789ab --agent a --for 7d --reason too-hot").request;
        assert_eq!((reject.hash, reject.ttl_s, reject.reason), (Some("0123456789ab".into()), Some(604_800), Some("too-hot".into())));
        assert_eq!(asked("cancel --rollout 3 --roll-back").request.roll_back, Some(true));
        assert_eq!(asked("retry --all").request.all, Some(true));
        let set = asked("policy set --agent a1 --mode auto --method=schedule --interval 1h --custom on --revision 3").request;
        assert_eq!((set.act.as_deref(), set.agents, set.custom, set.expected), (Some("set"), Some(vec!["a1".into()]), Some(true), Some(3)));
        assert_eq!(set.settings.unwrap().interval.as_deref(), Some("1h"));
        assert_eq!(asked("policy unset --default --cron").request.clear, Some(vec!["cron".to_string()]));
        assert_eq!(asked("policy unset").request.clear.unwrap().len(), 6);
        assert_eq!(asked("policy show a1").request.agents, Some(vec!["a1".into()]));
        let give = asked("authorize a1 2.5.0 --ttl 2h").request;
        assert_eq!((give.agents, give.version.as_deref(), give.ttl_s), (Some(vec!["a1".into()]), Some("2.5.0"), Some(7_200)));
        assert_eq!(asked("authorize --all latest").request.version.as_deref(), Some("latest"));
        assert_eq!(asked("authorize --revoke --all").request.act.as_deref(), Some("revoke"));
        assert_eq!(asked("explain a1").request.agents, Some(vec!["a1".into()]));
        assert_eq!(asked("agents --why disk").filter.why, Some("disk".into()));
        let Ok(Command::Run(run)) = parsed("run --mirror /r --root r.json --listen 127.0.0.1:1 --listen [::1]:2") else { panic!() };
        assert_eq!(run.listen.len(), 2);
        let words = ["schedule", "next", "0 3 * * 1-5", "--zone", "UTC", "--count=3"].map(String::from);
        let Ok(Command::Schedule(next)) = parse(&words, None, &super::super::role::DIRECTOR) else { panic!() };
        assert_eq!(
            (next.expression.as_str(), next.zone.as_deref(), next.count, next.explain),
            ("0 3 * * 1-5", Some("UTC"), Some(3), false)
        );
        assert!(matches!(parsed("-version"), Ok(Command::Version(_))));
        assert!(matches!(parsed("--version"), Ok(Command::Version(_))));
        assert!(matches!(parsed("agents --help"), Ok(Command::Help)));
        assert!(matches!(parsed(""), Ok(Command::Help)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, word) in [
            ("assign --all --agent a --version 1.0.0", "either"),
            ("assign --version 1.0.0", "either"),
            ("assign --all", "--version"),
            ("assign --all --version", "needs a value"),
            ("assign --all --version 1.0.0 --max-in-flight 0", "--max-in-flight"),
            ("assign --all --version 1.0.0 --trial-max 1h", "--unattended"),
            ("cancel", "one of"),
            ("cancel --all --rollout 1", "one of"),
            ("retry", "one of"),
            ("retry --all --roll-back", "--roll-back"),
            ("reject", "SHA-256"),
            ("allow", "SHA-256"),
            ("explain", "ID"),
            ("agents --bogus", "--bogus"),
            ("token", "token create"),
            ("mirror --accept-expired", "--file"),
            ("token revoke", "token list"),
            ("ca", "ca rotate"),
            ("ca fly", "ca retire"),
            ("replace-agent", "ID"),
            ("run --mirror http://x --root r.json", "https"),
            ("run --mirror /r --config a --config b", "--config"),
            ("run --mirror /r --root r.json --tls-cert c.pem", "--tls-key"),
            ("fly", "fly"),
            ("token create --ttl 5x", "--ttl"),
            ("approve", "--serial"),
            ("policy", "policy set"),
            ("policy set", "--mode"),
            ("policy set --mode off", "manual or auto"),
            ("policy set --cron x", "--cron"),
            ("policy set --custom maybe", "on or off"),
            ("policy set --default --agent a --mode auto", "either"),
            ("policy unset --bogus", "--bogus"),
            ("authorize", "whom"),
            ("authorize a1", "version"),
            ("authorize --all", "version"),
            ("approve a --serial S", "one device"),
            ("status --state a --state b", "2 times"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
