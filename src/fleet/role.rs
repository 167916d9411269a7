//! Fleet's words and limits for the server that it shares with the Director.

use crate::core::product::DIRECTOR;
use crate::director::admin::AdminWire;
use crate::director::args::{Ask, Words};
use crate::director::role::Role;
use crate::fleet::access::command;
use crate::fleet::told;

/// The help text.
pub const HELP: &str = "\
vmetric-fleet: decides for the Directors of an organization, serves them their releases, gathers what they tell

Usage: vmetric-fleet COMMAND [options]

Run
  run | serve [--mirror FOLDER|URL] --root root.json [--listen ADDR:PORT]... [--mirror-pin sha256:..] [--name HOST] [--store STORE [--join]]
      Serves Directors until SIGTERM; they open every connection, HTTPS only. The first start makes the site CA.
      --mirror      release tree with metadata/ and targets/: a folder, or https://
      --mirror-pin  the CA key of that https:// server
      --root        root metadata to begin with; later ones are found from it
      --listen      default 0.0.0.0:8443; may be given several times
      --name        host name or address that Directors use, default: the host's name
      --tls-cert, --tls-key   PEM files of your own certificate chain and key, for browsers and API clients
      --store       etcd:FILE.yml: settings, clusters, templates and confirmations are shared with the Fleets there; fleet: alone again
      --join        once: what the store has takes the place of this Fleet's own

Look
  directors [--state S] [--version V] [--why TEXT] [--json]
                                    every Director: version, pending version, state, why not yet; what needs you first
  explain DIRECTOR/AGENT [--json]   an agent: what counts for it at its Director, and which tier set it
  explain DIRECTOR [--json]         all about one: why, since and until when, whose move, what you can do
  rollouts [--json]                 every roll-out
  rejections [--json]               files that are not ordered, to whom, why
  activity [--director ID]... [--limit N] [--follow] [--json]        what this Fleet did
  activity --told [--director ID] [--agent ID] [--limit N] [--json]  what Directors told of themselves and their agents
  activity --update ID [--json]     one update from its trigger to its end, whoever noted it
  authorizations [ID] [--json]      what was confirmed for agents, and what became of it
  agents [--director ID] [--limit N] [--json]   the Directors' agents
  health [--json]                   every Director as it said last: step, percent, why, metadata, clock, disk, agents
  releases [--json]                 what the mirror holds: products, versions, platforms, files
  releases --notes VERSION|latest [--json]   release notes
  status [--json]                   this Fleet and its mirror
  pin                               the pin that Directors enroll with

Act
  key create [--uses N] [--ttl 1h] [--approval] [--label TEXT] [--json]
      An API key with which N Directors enroll; shown once, and worth nothing after its time. They keep its label.
  key list | revoke ID [--json]
  token create --role viewer|contributor|admin|owner [--ttl 30d] [--json]
      A token for the REST API (/api/v1) and /metrics; shown once. It may what a person of that role may.
  token list | revoke ID [--json]
  install-command [--os linux|darwin|windows] [--arch amd64] [--version V] [--uses N] [--ttl 1h] [--json]
      Prints a command that installs a Director on a new machine, enrolls it here and lets it mirror from here; it holds a key.
  template create NAME --director ID [--uses N] [--ttl 7d|never] [--approval] [--mode M] ... | renew NAME
      A command with which N devices enroll at a Director; each has the policy as its own. Shown once; renew makes another one.
  template list | show NAME | change NAME [--name N] [--uses N] [--ttl T] [--enabled on|off] [--mode M] ... [--revision N] | remove NAME
  webhook create NAME --url https://... [--event KIND...] [--local] | list | change NAME [--url U] [--event KIND...]
      [--enabled on|off] | test NAME | remove NAME [--json]      where notices go, as JSON with Slack's text, signed
      KIND: update_available update_failed rolled_back rollout_halted metadata_expires site_silent; all without --event
      --local  the receiver may be on this machine
  approve ID | deny ID [--reason TEXT] [--json]     a Director that enrolls with a key of --approval
  assign --all | --director ID...  --version V|latest
      [--max-in-flight N|P%] [--max-failures N] [--contact-deadline 5m]
      [--unattended [--trial-max 24h]] [--end-probation] [--retry] [--switch-in 0s] [--life 30d] [--json]
      First one Director, then at most --max-in-flight (10%); more than --max-failures (2) halt it.
  policy show [WHOSE] | set | check | unset [WHOSE] [--mode M] [--method M] [--version V] [--cron C | --interval I] [--zone Z]
      [--custom on|off] [--replace] [--revision N] [--json]    update settings; check says what set would do, and does nothing
      WHOSE: --default (every Director), --director ID, --cluster NAME, --agents (every agent), --agents --cluster NAME (its members'
      agents), --agents --director ID (that Director's agents), --agents --director ID --agent ID. Lower wins; --custom off inherits again and keeps what was typed.
  policy history [WHOSE] [--limit N] [--before REVISION] [--json]    who changed what, when, before and after
  cluster create NAME --member DIRECTOR... | list | show NAME | remove NAME
  cluster change NAME [--name N] [--member DIRECTOR...] [--drain 10s] [--soak 1m]
  cluster pause NAME | abort NAME | resume NAME  [--reason TEXT]
      Nobody else goes, until `resume`; whoever is away comes back first. After a failure only `resume` goes on.
  cluster override NAME --director ID [--force] [--reason TEXT]
      Lets one member go although others are not healthy: says what quorum that costs, and does it with --force.
      [--revision N] [--json]       3 to 15 Directors, an odd number, with one policy; updated one member at a time
  authorize DIRECTOR VERSION | --all VERSION [--ttl 24h] | --revoke DIRECTOR [--json]
  authorize --agents --director ID [--agent ID...] | --cluster NAME | --all  VERSION [--ttl 24h] | --revoke ID [--json]
      A person's word for agents whose method is user_action; their Directors carry it out. authorizations says how far.
  cancel --all | --director ID... | --rollout N  [--roll-back] [--reason TEXT] [--json]
  retry --all | --director ID... | --rollout N  [--reason TEXT] [--json]
  reject HASH [--director ID...] [--for 7d] [--reason TEXT] [--json]
  allow HASH [--director ID...] [--reason TEXT] [--json]
  mirror [--json]                   look for new releases now
  mirror --file BUNDLE|TREE [--accept-expired] [--json]
  ca status | rotate | retire [--force] [--json]
  user list | add NAME --role viewer|contributor|admin|owner [--link] | role NAME ROLE | password NAME [--link]
      | disable NAME | enable NAME | remove NAME   [--json]
      Who may log in. The password is asked for, or the first line of standard input; --link: a one-time link instead.
      Another role or password ends the user's sessions; disable, remove and a lower role end the API tokens made with more.
  session list [--user NAME] | revoke ID | revoke --user NAME [--json]
  audit [--since 7d] [--user TEXT] [--action A] [--limit N] [--csv|--json]   who did what, from where; --csv and --json: all of it
  audit verify [--head HASH] [--file EXPORT]
      Follows the chain of hashes and names the first row that does not fit. --head: a hash that was kept elsewhere has
      to turn up in it. --file: an export, without this server.
  store check [FILE | --from STORE]   that a backup is whole, or how a store is: members, leader, room, rows
  store backup FILE [--from STORE] | restore FILE --to STORE | migrate --from STORE --to STORE
      STORE: fleet (this state folder's own, the default of --from), redb:FILE, etcd:FILE.yml. Fleet has to be stopped for its own.
      A store that is restored has to be empty, and is compared when it is done. FILE.yml: store: {etcd: {endpoints: [https://...], ca,
      cert, key, user, password_file, prefix}}
  remove-director ID                refuse its credential from now on
  replace-director ID               of two with this identity, serve the one that is refused now

Every command takes --state DIR (or VMETRIC_FLEET_STATE; default /var/lib/vmetric-fleet).
Durations: 90s 5m 1h 7d.   Exit codes: 0 done, 1 failed, 2 wrong usage.
";

/// Fleet and its Directors.
pub static FLEET: Role = Role {
    program: "vmetric-fleet",
    title: "Fleet",
    code: "fleet",
    product: &DIRECTOR,
    node: "director",
    nodes: "directors",
    others: "an agent enrolls at its site's Director, with a token of `vmetric-director token create`",
    token: "key",
    api_token: "token",
    enroll_at: "--fleet",
    enroll_with: "--key",
    enroll_variable: "VMETRIC_FLEET_KEY",
    store: "fleet.redb",
    state: "/var/lib/vmetric-fleet",
    listen: "0.0.0.0:8443",
    install: "/dl/director/",
    user_agent: concat!("vmetric-fleet/", env!("VMETRIC_BUILT_VERSION")),
    open_mirror: true,
    configured: false,
    help: HELP,
    without: &[],
    asks,
    shown,
};

/// Commands that only Fleet has.
fn asks(word: &str, words: &mut Words, request: &mut AdminWire) -> Result<bool, String> {
    Ok(told::asks(word, words, request)? || command::asks(word, words, request)?)
}

/// Their answers, for people.
fn shown(ask: &Ask, line: &str) -> Result<String, String> {
    match command::shown(ask, line)? {
        Some(text) => Ok(text),
        None => told::shown(ask, line),
    }
}
