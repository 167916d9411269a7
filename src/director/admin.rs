//! Administration: a Unix socket that only the Director's own user can open; never the network.
//!
//! One connection, one request: one line of JSON ([`AdminWire`]). The answer begins with one line ([`StatusWire`]); with
//! code `ok` lines of JSON follow until the end, for `activity --follow` without an end.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use miniserde::{Deserialize, Serialize, json};
use smol::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use smol::net::unix::{UnixListener, UnixStream};

use super::commands;
use super::site::Site;
use crate::core::reason::Reason;
use crate::io::peer;
use crate::wire::settings::SettingsWire;

/// The socket's name in the state folder.
pub const SOCKET: &str = "admin.sock";
/// Longest request: an assignment that names every agent of a large site.
pub const REQUEST_MAX: u64 = 8 << 20;
/// How long a request line may take.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// What is asked for. Which fields count depends on the command.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct AdminWire {
    /// The word on the command line.
    pub command: String,
    /// Agents by id.
    pub agents: Option<Vec<String>>,
    /// Every agent.
    pub all: Option<bool>,
    /// A roll-out's number.
    pub rollout: Option<u64>,
    /// Version or `latest`.
    pub version: Option<String>,
    /// Product.
    pub product: Option<String>,
    /// `3` or `10%`.
    pub max_in_flight: Option<String>,
    /// Limit.
    pub max_failures: Option<u64>,
    /// Seconds.
    pub contact_deadline_s: Option<u64>,
    /// Switch without contact.
    pub unattended: Option<bool>,
    /// Seconds.
    pub trial_max_s: Option<u64>,
    /// Overwrite the other slot in probation.
    pub end_probation: Option<bool>,
    /// Try rejected files again.
    pub retry: Option<bool>,
    /// Seconds.
    pub switch_in_s: Option<u64>,
    /// Uses of a token.
    pub uses: Option<u64>,
    /// Life of a token or a rejection, seconds.
    pub ttl_s: Option<u64>,
    /// Operating system of a device to install.
    pub os: Option<String>,
    /// Its architecture.
    pub arch: Option<String>,
    /// Serial numbers that a token is bound to.
    pub serials: Option<Vec<String>>,
    /// A token's devices are approved by a person.
    pub approval: Option<bool>,
    /// A token to take back, by its id.
    pub revoke: Option<String>,
    /// `ca`: `status`, `rotate`, `retire`.
    pub act: Option<String>,
    /// Although it loses somebody.
    pub force: Option<bool>,
    /// List instead of making one.
    pub list: Option<bool>,
    /// Go on with new events.
    pub follow: Option<bool>,
    /// How many old events.
    pub limit: Option<u64>,
    /// A bundle or tree to import, as an absolute path.
    pub file: Option<String>,
    /// Import it even if timestamp or snapshot have expired.
    pub accept_expired: Option<bool>,
    /// A file's SHA-256 or the beginning of it.
    pub hash: Option<String>,
    /// Why, in the person's own words.
    pub reason: Option<String>,
    /// A trial goes back, too.
    pub roll_back: Option<bool>,
    /// Life of a roll-out, seconds.
    pub life_s: Option<u64>,
    /// An update, by its id.
    pub update: Option<String>,
    /// One Director, at Fleet.
    pub director: Option<String>,
    /// What a token of the API permits: `viewer`, `admin`.
    pub role: Option<String>,
    /// Update settings to be set.
    pub settings: Option<SettingsWire>,
    /// Fields of them to be forgotten.
    pub clear: Option<Vec<String>>,
    /// Custom Policy on or off.
    pub custom: Option<bool>,
    /// Whose settings, when they are for another server's agents.
    pub scope: Option<String>,
    /// The revision that a change of settings was made from.
    pub expected: Option<u64>,
    /// What is not set is forgotten.
    pub replace: Option<bool>,
    /// A cluster, by id or name.
    pub cluster: Option<String>,
    /// Its members.
    pub members: Option<Vec<String>>,
    /// How long a member's `/readyz` fails before it stops, seconds.
    pub drain_s: Option<u64>,
    /// How long a member is watched before the next one goes, seconds.
    pub soak_s: Option<u64>,
    /// A name for people.
    pub name: Option<String>,
    /// A webhook, by id or name.
    pub webhook: Option<String>,
    /// Where it points.
    pub url: Option<String>,
    /// What it is told.
    pub events: Option<Vec<String>>,
    /// It may point at this machine.
    pub local: Option<bool>,
    /// A template, by id or name.
    pub template: Option<String>,
    /// It can be used.
    pub enabled: Option<bool>,
    /// Only what is older than this number.
    pub before: Option<u64>,
    /// A user of Fleet.
    pub user: Option<String>,
    /// His new password.
    pub password: Option<String>,
    /// Rows of this action.
    pub action: Option<String>,
    /// Not older than so many seconds.
    pub since_s: Option<u64>,
    /// `csv`, `json`: it is to be taken away.
    pub format: Option<String>,
    /// What a person calls a token.
    pub label: Option<String>,
}

/// First line of each answer.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct StatusWire {
    /// `ok`, or why not.
    pub code: String,
    /// One sentence.
    pub detail: String,
}

/// Opens the socket. The store's lock is held, so a socket that is there belongs to a dead Director.
///
/// # Errors
/// The folder cannot be written, or the path is too long for a socket.
pub fn bind(state: &Path) -> io::Result<UnixListener> {
    let path = state.join(SOCKET);
    crate::io::fs::remove_if_there(&path)?;
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers administrators until dropped.
pub async fn serve(listener: UnixListener, site: Rc<Site>, executor: Rc<smol::LocalExecutor<'static>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let site = site.clone();
                let answer = async move {
                    // An administrator who left needs no answer.
                    let _ = answer(stream, site).await;
                };
                executor.spawn(answer).detach();
            }
            Err(e) => {
                log::warn!("{SOCKET}: {e}");
                smol::Timer::after(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, site: Rc<Site>) -> io::Result<()> {
    let mut writer = stream.clone();
    // Who asks is the kernel's word, noted in the activity.
    let who = peer::user_id(stream.as_fd()).map_or_else(|_| "unknown user".to_string(), |uid| format!("uid {uid}"));
    let outcome = match request(stream).await {
        Ok(request) => noted(&site, request, &who, &mut writer).await,
        Err(reason) => Err(reason),
    };
    if let Err(reason) = outcome {
        status(&mut writer, &reason.code, &reason.detail).await?;
    }
    writer.flush().await
}

/// Runs a request; what is logged somewhere has its answer held back until that is written.
async fn noted(site: &Rc<Site>, request: AdminWire, who: &str, writer: &mut UnixStream) -> Result<(), Reason> {
    let extra = site.extra.borrow().clone();
    let Some(logged) = extra.as_ref().and_then(|extra| extra.logged(site, &request, who)) else {
        return commands::run(site, request, who, writer).await;
    };
    let text = logged.await?;
    let lost = |e: io::Error| Reason::new("connection_lost", e.to_string());
    status(writer, "ok", "").await.map_err(lost)?;
    writer.write_all(text.as_bytes()).await.map_err(lost)?;
    writer.write_all(b"\n").await.map_err(lost)
}

/// Longest answer of one command: ten times the 100,000 rows that a server may have, no more than a wrong program would need.
const ANSWER_MAX: u64 = 256 << 20;

/// Runs a request and takes its answer from the other end of a pair of sockets: so there is one writer of answers.
///
/// # Errors
/// The command's own; `answer_lost`.
pub async fn captured(site: &Rc<Site>, request: AdminWire, who: &str) -> Result<String, Reason> {
    let lost = |e: io::Error| Reason::new("connection_lost", e.to_string());
    let misread = || Reason::new("answer_lost", "the answer was cut; try again");
    let (ours, mut theirs) = UnixStream::pair().map_err(lost)?;
    let run = async move {
        let done = commands::run(site, request, who, &mut theirs).await;
        drop(theirs);
        done
    };
    let read = async move {
        let mut text = String::new();
        ours.take(ANSWER_MAX).read_to_string(&mut text).await.map(|_| text)
    };
    let (done, text) = smol::future::zip(run, read).await;
    done?;
    let text = text.map_err(lost)?;
    let (first, rest) = text.split_once('\n').ok_or_else(misread)?;
    let status: StatusWire = json::from_str(first).map_err(|_| misread())?;
    if status.code != "ok" {
        return Err(Reason::received(status.code, status.detail));
    }
    Ok(rest.trim_end().to_string())
}

async fn request(stream: UnixStream) -> Result<AdminWire, Reason> {
    let read = async {
        let mut line = String::new();
        BufReader::new(stream.take(REQUEST_MAX)).read_line(&mut line).await?;
        Ok(line)
    };
    let late = async {
        smol::Timer::after(REQUEST_TIME).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let line = smol::future::or(read, late)
        .await
        .map_err(|e: io::Error| Reason::new("bad_request", format!("the request could not be read: {e}")))?;
    json::from_str(&line).map_err(|_| Reason::new("bad_request", "the request is no line of JSON that this version understands"))
}

/// Writes the first line of an answer.
///
/// # Errors
/// The administrator left.
pub async fn status(writer: &mut UnixStream, code: &str, detail: &str) -> io::Result<()> {
    line(writer, &StatusWire { code: code.into(), detail: detail.into() }).await
}

/// Writes one line.
///
/// # Errors
/// The administrator left.
pub async fn line(writer: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut text = json::to_string(value);
    text.push('\n');
    writer.write_all(text.as_bytes()).await
}
