//! The member that has the site CA gives it to another one: `cluster invite` makes an invitation, `/cluster/v1/join` takes it.
//!
//! The secret is in the answer to the command and in the question of the one who joins, never in a log, a row or the activity.

use std::rc::Rc;

use miniserde::{Deserialize, Serialize, json};

use crate::core::cluster::invite::{Invite, TTL_S, add, redeem};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::time;
use crate::director::api_tokens::same;
use crate::director::records::{NAME_MAX, clean};
use crate::director::role::DIRECTOR;
use crate::director::service::{now, throttled, unavailable, wrong_method};
use crate::director::site::Site;
use crate::io::fs::read_limited;
use crate::io::serve::{Answer, Request, Response};
use crate::io::state::State;
use crate::io::tls::pin_text;
use crate::io::{clock, random};
use crate::wire::join::{FILE_MAX, FILES, FileWire, JOIN, JOIN_MAX, JoinWire, JoinedWire};

/// Where the invitations are.
const FILE: &str = "storage/cluster-invites.json";
/// What an invitation begins with.
const PREFIX: &str = "vmi_";

#[derive(Serialize, Deserialize, Debug, Clone, Default)]
struct InvitesWire {
    invites: Vec<InviteWire>,
}

#[derive(Serialize, Deserialize, Debug, Clone, Default)]
struct InviteWire {
    id: String,
    sha256: String,
    expires: u64,
    tries: u64,
    used_at: Option<u64>,
}

/// An invitation, shown once.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct InviteView {
    /// Its text.
    pub token: String,
    /// Seconds since 1970.
    pub expires: u64,
    /// Where to join.
    pub url: String,
    /// Under which pin.
    pub pin: String,
}

fn read(state: &State) -> Result<Vec<Invite>, Reason> {
    let wire: InvitesWire = state.read(FILE)?.unwrap_or_default();
    let one = |i: InviteWire| Invite { id: i.id, sha256: i.sha256, expires: i.expires, tries: i.tries, used_at: i.used_at };
    Ok(wire.invites.into_iter().map(one).collect())
}

fn write(state: &State, invites: &[Invite]) -> Result<(), Reason> {
    let one =
        |i: &Invite| InviteWire { id: i.id.clone(), sha256: i.sha256.clone(), expires: i.expires, tries: i.tries, used_at: i.used_at };
    state.write(FILE, &InvitesWire { invites: invites.iter().map(one).collect() })
}

fn state_of(site: &Site) -> Result<State, Reason> {
    let own = site.own.borrow().clone();
    own.map(|own| own.state()).ok_or_else(|| Reason::new("not_ready", "this Director is still starting"))
}

/// Makes an invitation.
///
/// # Errors
/// Those of [`add`], and of the file.
pub fn make(site: &Rc<Site>, ttl_s: Option<u64>, who: &str) -> Result<InviteView, Reason> {
    let (state, time) = (state_of(site)?, clock::unix());
    let (id, secret) = (hex::encode(&random::bytes::<4>()), secret()?);
    let sha256 = hex::encode(&hex::sha256(secret.as_bytes()));
    let expires = time.saturating_add(ttl_s.unwrap_or(TTL_S));
    let mut invites = read(&state)?;
    add(&mut invites, Invite { id: id.clone(), sha256, expires, ..Invite::default() }, time)?;
    write(&state, &invites)?;
    let detail = format!("invitation {id} to take over the site CA, once, until {}", time::format(expires));
    site.acting(who, |registry| registry.event(time, "", "cluster_invited", detail, None));
    site.flush();
    let (url, pin) = (site.about.borrow().url.clone(), pin_text(&site.ca.pin()));
    Ok(InviteView { token: format!("{PREFIX}{id}_{secret}"), expires, url, pin })
}

/// Never a guessable one.
fn secret() -> Result<String, Reason> {
    let mut bytes = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .map_err(|_| Reason::new("no_randomness", "the system gives no randomness; try again"))?;
    Ok(hex::encode(&bytes))
}

/// For people.
pub fn text(view: &InviteView) -> String {
    let how = DIRECTOR.command(&format!("cluster join {} --pin {} --token FILE", view.url, view.pin));
    let until = time::format(view.expires);
    format!(
        "{}\n\nGood once, until {until}. It is worth as much as this site's keys: put it into a FILE that nobody else reads, and on the\nother machine, before the first start of its Director:\n\n  {how}\n",
        view.token
    )
}

/// Longest body of a request that is one of these.
pub fn body_limit(method: &str, path: &str) -> Option<usize> {
    (method == "POST" && path == JOIN).then_some(JOIN_MAX)
}

/// Answers a request, if it is one of these.
pub fn call(site: &Rc<Site>, request: &Request) -> Option<Answer> {
    if request.path != JOIN {
        return None;
    }
    if request.method != "POST" {
        return Some(now(wrong_method("POST")));
    }
    let address = request.peer.map(|peer| peer.ip());
    if let Err(wait_s) = site.throttle.borrow().may_fail(address, clock::monotonic()) {
        return Some(now(throttled(wait_s)));
    }
    let text = std::str::from_utf8(&request.body).unwrap_or_default();
    let Ok(wire) = json::from_str::<JoinWire>(text) else {
        return Some(now(Response::error(400, "bad_request", "expected {\"token\": ..., \"hostname\": ...}")));
    };
    let peer = request.peer.map_or("an unknown address".into(), |peer| peer.to_string());
    let site = site.clone();
    Some(Box::pin(async move { join(&site, &wire, address, &peer).await }))
}

/// Uses an invitation up, or says why not; durable before it is answered. What changes nothing costs no write: anybody can ask.
fn used_up(state: &State, id: &str, sha256: &str, time: u64) -> Result<Result<(), Reason>, Reason> {
    // Under no lock: nothing else runs on this thread between the two.
    let before = read(state)?;
    let mut invites = before.clone();
    let used = redeem(&mut invites, id, sha256, same, time);
    if invites != before {
        write(state, &invites)?;
    }
    Ok(used)
}

async fn join(site: &Rc<Site>, wire: &JoinWire, address: Option<std::net::IpAddr>, peer: &str) -> Response {
    let time = clock::unix();
    let state = match state_of(site) {
        Ok(state) => state,
        Err(reason) => return Response::error(503, &reason.code, &*reason.detail),
    };
    let (id, secret) = wire.token.trim().strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).unwrap_or_default();
    let (id, sha256) = (id.to_string(), hex::encode(&hex::sha256(secret.as_bytes())));
    match used_up(&state, &id, &sha256, time) {
        Err(reason) => return unavailable(&reason.detail),
        Ok(Err(reason)) => {
            site.throttle.borrow_mut().failed(address, clock::monotonic());
            site.registry.borrow_mut().stranger("join_refused", &reason, peer, time);
            site.flush();
            return Response::error(403, &reason.code, &*reason.detail).closing();
        }
        Ok(Ok(())) => {}
    }
    let files = match files(&state) {
        Ok(files) => files,
        Err(reason) => return unavailable(&reason.detail),
    };
    let who = clean(&wire.hostname, NAME_MAX);
    site.note("cluster_joined", &format!("'{who}' at {peer} took over the site CA with invitation {}", clean(&id, NAME_MAX)));
    // Whoever gave the keys away has noted it.
    match site.store.durable().await {
        Ok(()) => Response::json(200, json::to_string(&JoinedWire { files })),
        Err(e) => unavailable(&e),
    }
}

fn files(state: &State) -> Result<Vec<FileWire>, Reason> {
    let mut files = Vec::new();
    for name in FILES {
        let path = state.path("pki").join(name);
        let bad = |why: String| Reason::new("pki_unreadable", format!("{}: {why}", path.display()));
        let Some(bytes) = read_limited(&path, FILE_MAX as u64).map_err(|e| bad(e.to_string()))? else { continue };
        files.push(FileWire { name: name.into(), text: String::from_utf8(bytes).map_err(|_| bad("is no text".into()))? });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::cluster::invite::TRIES_MAX;
    use crate::core::product;

    #[test]
    fn a_stranger_s_try_writes_nothing_once_it_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_of(&product::DIRECTOR, dir.path()).unwrap();
        let code = |id, secret, time| used_up(&state, id, secret, time).unwrap().map_err(|reason| reason.code.to_string());
        assert_eq!(code("a", "s", 1_000), Err("invite_unknown".into()));
        assert!(!state.path(FILE).exists(), "no invitation, no file");
        let mut invites = Vec::new();
        add(&mut invites, Invite { id: "a".into(), sha256: "s".into(), expires: 2_000, ..Invite::default() }, 1_000).unwrap();
        write(&state, &invites).unwrap();
        for _ in 0..TRIES_MAX {
            assert_eq!(code("a", "x", 1_001), Err("invite_unknown".into()));
        }
        assert_eq!(read(&state).unwrap()[0].tries, TRIES_MAX, "wrong secrets are counted");
        // A file that is replaced is another one, which a second name of it shows.
        let kept = dir.path().join("kept");
        std::fs::hard_link(state.path(FILE), &kept).unwrap();
        let links = || std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(&kept).unwrap());
        assert_eq!((code("a", "s", 1_002), code("b", "s", 1_002)), (Err("invite_closed".into()), Err("invite_unknown".into())));
        assert_eq!(links(), 2, "it was not written again");
    }
}
