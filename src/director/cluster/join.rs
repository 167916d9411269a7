//! `cluster join`: a Director takes over the site CA of another member before its own first start.
//!
//! ```text
//! pki/ absent or empty, pki.join/ made, with room for the files          what is wrong until here costs no invitation
//! the files in it, opened as a CA, its pin compared                      a crash leaves a folder that the next try removes
//! pki.join/ -> pki/                                                      <- from here on it has the CA
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use miniserde::json;

use crate::agent::build;
use crate::core::reason::Reason;
use crate::director::certificates;
use crate::director::pki::{Names, SiteCa};
use crate::director::role::DIRECTOR;
use crate::io::fs::{PRIVATE, make_folder, read_limited, remove_all, sync_folder_of, write_durable};
use crate::io::http::{Http, HttpConfig};
use crate::io::process;
use crate::io::tls::{parse_pin, pin_text};
use crate::wire::agent_api::ErrorWire;
use crate::wire::join::{FILE_MAX, FILES, JOIN, JOINED_MAX, JoinWire, JoinedWire};

/// Longest file with an invitation.
const TOKEN_MAX: u64 = 1024;
/// Time for the answer.
const ANSWER: Duration = Duration::from_secs(30);

/// What was asked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Join {
    /// `https://HOST:PORT` of the member that invited.
    pub address: String,
    /// Its pin.
    pub pin: String,
    /// Where the invitation is.
    pub token: PathBuf,
}

/// Does it.
///
/// # Errors
/// `ca_exists`, `has_agents`, `bad_token_file`, `bad_pin`, `pki_unwritable`, what TLS says to another pin, what the member refuses, `ca_other_pin`,
/// `bad_answer`, those of the files. Nothing has changed then.
pub fn run(folder: &Path, join: &Join) -> Result<String, Reason> {
    let pki = folder.join("pki");
    if pki.join("ca.key").exists() {
        let detail = format!(
            "{}: this Director has a site CA already, which its agents trust; only one that was never started joins",
            pki.display()
        );
        return Err(Reason::new("ca_exists", detail));
    }
    let store = folder.join(DIRECTOR.store);
    if store.exists() {
        let detail =
            format!("{}: this Director was started before and may have agents; only one that was never started joins", store.display());
        return Err(Reason::new("has_agents", detail));
    }
    let pin = parse_pin(&join.pin)?;
    let bad = |why: String| Reason::new("bad_token_file", format!("--token {}: {why}", join.token.display()));
    let bytes = read_limited(&join.token, TOKEN_MAX).map_err(|e| bad(e.to_string()))?.ok_or_else(|| bad("there is no such file".into()))?;
    let token = String::from_utf8(bytes).map_err(|_| bad("is no text".into()))?.trim().to_string();
    // Before the invitation is used up: what is wrong here can be put right, and the same one tried again.
    let near = prepared(folder, &pki)?;
    let kept = fetch(join, pin, token).and_then(|joined| keep(&near, &pki, &joined, pin));
    if let Err(reason) = kept {
        // The keys of another site, or half of them.
        remove_all(&near).map_err(|e| unwritable(&near, &e))?;
        return Err(reason);
    }
    Ok(format!(
        "joined: this Director has the site CA {} of {}; `enroll` it at Fleet and start it, then remove {}",
        pin_text(&pin),
        join.address,
        join.token.display()
    ))
}

fn fetch(join: &Join, pin: [u8; 32], token: String) -> Result<JoinedWire, Reason> {
    let config = HttpConfig { pins: vec![pin], proxy: None, user_agent: build::USER_AGENT, wake_fd: None, tick: || {} };
    let http = Http::new(config).map_err(|e| e.reason())?;
    let hostname = process::hostname();
    let url = format!("{}{JOIN}", join.address.trim_end_matches('/'));
    let reply = http.post_json(&url, None, &json::to_string(&JoinWire { token, hostname }), JOINED_MAX, ANSWER).map_err(|e| e.reason())?;
    let text = String::from_utf8_lossy(&reply.body);
    if reply.status != 200 {
        let said: ErrorWire = json::from_str(&text).unwrap_or_default();
        let code = if said.code.is_empty() { "join_refused".into() } else { said.code };
        return Err(Reason::received(code, format!("{url}: {} {}", reply.status, said.detail)));
    }
    json::from_str(&text).map_err(|_| Reason::new("bad_answer", format!("{url}: the answer is not of this protocol")))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Reason {
    Reason::new("pki_unwritable", format!("{}: {error}", path.display()))
}

/// The folder for the files: it can be made, has room for them, and can take the place of `pki/`.
fn prepared(folder: &Path, pki: &Path) -> Result<PathBuf, Reason> {
    let near = folder.join("pki.join");
    let stands = |what: &str| {
        let detail = format!("{}: {what}; move it away, a real folder is made in its place. The invitation was not used", pki.display());
        Reason::new("pki_unwritable", detail)
    };
    match std::fs::symlink_metadata(pki) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(unwritable(pki, &e)),
        Ok(meta) if !meta.is_dir() => return Err(stands("is no folder, or a link to one")),
        Ok(_) if std::fs::read_dir(pki).map_err(|e| unwritable(pki, &e))?.next().is_some() => return Err(stands("is not empty")),
        Ok(_) => {}
    }
    remove_all(&near).and_then(|()| make_folder(folder)).and_then(|()| make_folder(&near)).map_err(|e| unwritable(&near, &e))?;
    let room = near.join("room");
    let tried = write_durable(&room, &vec![0; JOINED_MAX], PRIVATE).and_then(|()| remove_all(&room));
    if let Err(e) = tried {
        remove_all(&near).map_err(|e| unwritable(&near, &e))?;
        return Err(unwritable(&room, &e));
    }
    Ok(near)
}

fn keep(near: &Path, pki: &Path, joined: &JoinedWire, pin: [u8; 32]) -> Result<(), Reason> {
    check(near, joined, pin)?;
    // An empty folder may be there.
    std::fs::rename(near, pki).and_then(|()| sync_folder_of(pki)).map_err(|e| unwritable(near, &e))
}

fn check(near: &Path, joined: &JoinedWire, pin: [u8; 32]) -> Result<(), Reason> {
    let bad = |why: String| Reason::new("bad_answer", format!("the member's answer: {why}"));
    for file in &joined.files {
        if !FILES.contains(&file.name.as_str()) || file.text.len() > FILE_MAX {
            return Err(bad("it has a file that no member shares".into()));
        }
        let path = near.join(&file.name);
        write_durable(&path, file.text.as_bytes(), PRIVATE)
            .map_err(|e| Reason::new("pki_unwritable", format!("{}: {e}", path.display())))?;
    }
    if let Some(missing) = ["ca.key", "ca-p256.key"].iter().find(|name| !near.join(name).exists()) {
        return Err(bad(format!("{missing} is missing")));
    }
    let ca = SiteCa::open_or_create(near, &Names::default(), certificates::now())?;
    match ca.pin() == pin {
        true => Ok(()),
        // While a site goes over to another CA its former pin is good, too.
        false => {
            let detail = format!(
                "the member's CA is {}, not the one of --pin: take the one that `cluster invite` prints there",
                pin_text(&ca.pin())
            );
            Err(Reason::new("ca_other_pin", detail))
        }
    }
}
