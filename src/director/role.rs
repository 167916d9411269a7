//! Which program this server is, and what it manages: a Director its agents, Fleet its Directors.
//!
//! The same code, protocol and commands serve both; a [`Role`] holds what differs: names, the product, words for people.
//! Codes and wire fields keep the words of the agent API (`agent_unknown`, `agent_id`) under every role, because the other
//! side reads them.

use super::admin::AdminWire;
use super::args::{Ask, Words};
use crate::core::product::{AGENT, Product};

/// What differs between two managers.
#[derive(Debug)]
pub struct Role {
    /// The program's name, for commands that a person types.
    pub program: &'static str,
    /// What it is called in sentences: `Director`, `Fleet`.
    pub title: &'static str,
    /// The same in codes of events: `director`, `fleet`.
    pub code: &'static str,
    /// What it manages.
    pub product: &'static Product,
    /// One of what it manages, on the command line and in sentences: `agent`, `director`.
    pub node: &'static str,
    /// Several of them.
    pub nodes: &'static str,
    /// Where a program that it does not manage belongs.
    pub others: &'static str,
    /// What lets one enroll: `token`, `key`.
    pub token: &'static str,
    /// The command for tokens of the API: `api-token`, `token`.
    pub api_token: &'static str,
    /// The option of the managed program that names this one: `--director`, `--fleet`.
    pub enroll_at: &'static str,
    /// And the one that takes the token: `--token`, `--key`.
    pub enroll_with: &'static str,
    /// The variable in which `enroll` takes it, where no other user sees it.
    pub enroll_variable: &'static str,
    /// The store's file in the state folder.
    pub store: &'static str,
    /// State folder, unless another one is named.
    pub state: &'static str,
    /// Where it listens, unless told otherwise.
    pub listen: &'static str,
    /// Where first installs of the managed program begin.
    pub install: &'static str,
    /// How it names itself to the source of its releases.
    pub user_agent: &'static str,
    /// Artifacts are served without a credential, too, slowly: the mirrors of those below ask without one. Every byte is signed
    /// and none is secret.
    pub open_mirror: bool,
    /// It has a `vmetric.yml`.
    pub configured: bool,
    /// Its help text.
    pub help: &'static str,
    /// Commands of every server that this one does not have.
    pub without: &'static [&'static str],
    /// Reads the options of a command that only this role has; `false`: there is no such command.
    pub asks: fn(&str, &mut Words, &mut AdminWire) -> Result<bool, String>,
    /// Puts the answer to such a command into words.
    pub shown: fn(&Ask, &str) -> Result<String, String>,
}

/// A Director and its agents.
pub static DIRECTOR: Role = Role {
    program: "vmetric-director",
    title: "Director",
    code: "director",
    product: &AGENT,
    node: "agent",
    nodes: "agents",
    others: "a Director enrolls at Fleet, with a key of `vmetric-fleet key create`",
    token: "token",
    api_token: "api-token",
    enroll_at: "--director",
    enroll_with: "--token",
    enroll_variable: "VMETRIC_TOKEN",
    store: "director.redb",
    state: "/var/lib/vmetric-director",
    listen: "0.0.0.0:8443",
    install: "/dl/agent/",
    user_agent: concat!("vmetric-director/", env!("VMETRIC_BUILT_VERSION")),
    open_mirror: false,
    configured: true,
    help: super::args::HELP,
    without: &[],
    asks: super::cluster::command::asks,
    shown: super::cluster::command::shown,
};

/// A registry that nobody gave a role is a Director's: all that there was before Fleet.
impl Default for &'static Role {
    fn default() -> &'static Role {
        &DIRECTOR
    }
}

impl Role {
    /// How to get what lets one enroll.
    pub fn make_token(&self) -> String {
        format!("make one with `{} {} create`", self.program, self.token)
    }

    /// A command of this program, as a person types it.
    pub fn command(&self, rest: &str) -> String {
        format!("{} {rest}", self.program)
    }
}
