//! First install: `GET /dl/agent/<os>/<arch>[?version=V]` and `GET /dl/cert.pem`.
//!
//! Path, header and status codes of the first are those of the specification's vendor, whose installers know them:
//!
//! | status | code | when |
//! |---|---|---|
//! | 200, 206, 304 | | the file, with `ETag` (its SHA-256), `X-VM-SHA256`, `X-VM-Version` |
//! | 403 | `device_unnamed`, `device_unmanaged`, `device_unknown`, `device_removed` | no token, and no device that may have it |
//! | 403 | `token_unknown`, `token_expired`, `token_used_up`, `token_revoked` | the token in `Authorization: Bearer` is not good any more |
//! | 403 | `policy_manual`, `policy_needs_authorization`, `policy_version` | a named device whose policy does not let it update now; a token does |
//! | 403 | `quarantined` | the version that was named, or every version, is rejected here or halted a roll-out |
//! | 404 | `no_artifact`, `version_unknown` | the mirror has none for this platform; the detail says what it has |
//! | 503 | `file_not_here` | it is listed and was not here; it is fetched now; with `Retry-After` |
//! | 429 | `throttled`, `downloads_busy` | with `Retry-After`; the policy is asked first, so a refused device takes no place |
//!
//! **Who may.** A device that shows an enrollment token that would still enroll (nothing of it is spent), or that names itself
//! in `X-VM-Device-Id` and is known and not removed. The second is a name, no proof, as with the vendor: what is served is no
//! secret, every byte of it is signed; the gate keeps strangers from using the line, and devices that their policy keeps from it. `0`, the vendor's "unmanaged", is 403.
//!
//! **What.** The newest release for the platform that is no pre-release and not in quarantine, from the verified mirror. A file that
//! nobody needed until now is fetched for the request.

use miniserde::{Deserialize, Serialize, json};

use super::metering;
use super::records::{NAME_MAX, clean};
use super::refresh::not_here;
use super::registry::Registry;
use super::releases::Releases;
use super::service::throttled;
use super::site::Site;
use super::tree;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::release::Artifact;
use crate::core::version::Version;
use crate::io::clock;
use crate::io::serve::{Request, Response};

/// Both CA certificates of the site; public, and worth nothing before its hash was compared.
pub const CERTIFICATES: &str = "/dl/cert.pem";
/// The header in which a device names itself.
const DEVICE: &str = "x-vm-device-id";

/// An error that also lists what there is.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
struct NotHere {
    code: String,
    detail: String,
    /// `<os>/<arch>` of every platform that there is a program for.
    platforms: Vec<String>,
}

/// What there is for a request.
pub enum Given {
    /// This.
    Answer(Response),
    /// A file that is listed and has to be fetched first.
    Away(Box<Artifact>),
}

/// Answers everything below `/dl/`.
pub fn answer(site: &Site, request: &Request) -> Given {
    match given(site, request) {
        Ok(response) => Given::Answer(response),
        Err(artifact) if request.method == "HEAD" => {
            Given::Answer(not_here(&artifact.path.to_string(), "it is fetched when somebody takes it"))
        }
        Err(artifact) => Given::Away(artifact),
    }
}

fn given(site: &Site, request: &Request) -> Result<Response, Box<Artifact>> {
    if request.path == CERTIFICATES {
        return Ok(Response::of(200, "application/x-pem-file", site.ca.bundle().into_bytes()).with("cache-control", "no-cache"));
    }
    let Some((os, arch)) = request.path.strip_prefix(site.role.install).and_then(|rest| rest.split_once('/')) else {
        return Ok(Response::error(404, "not_found", format!("there is {}<os>/<arch> and {CERTIFICATES}", site.role.install)));
    };
    // Guesses at tokens cost what enrollments cost.
    if let Err(wait_s) = site.throttle.borrow_mut().take_install(request.peer.map(|p| p.ip()), clock::monotonic()) {
        return Ok(throttled(wait_s));
    }
    let (who, device) = match may(&site.registry.borrow(), request, clock::unix()) {
        Ok(who) => who,
        Err(reason) => return Ok(refused(request, &reason)),
    };
    let tree = site.tree.borrow().clone();
    if tree.checking {
        return Ok(super::service::not_checked());
    }
    let allowed = device.map(|id| site.registry.borrow().may_fetch(&id, version(request), &tree.releases, clock::unix())).transpose();
    let allowed = match allowed {
        Ok(version) => version.flatten(),
        Err(reason) => return Ok(refused(request, &reason)),
    };
    let wanted = version(request).or(allowed.as_deref());
    let chosen = choose(&tree.releases, &site.registry.borrow(), os, arch, wanted, clock::unix());
    let artifact = match chosen {
        Ok(artifact) => artifact,
        Err(reason) if reason.code == "quarantined" => return Ok(Response::error(403, &reason.code, &*reason.detail)),
        Err(reason) => {
            let wire = NotHere {
                code: reason.code.to_string(),
                detail: reason.detail.clone(),
                platforms: platforms(&tree.releases, site.role.product.name),
            };
            return Ok(Response::json(404, json::to_string(&wire)));
        }
    };
    let Some(entry) = tree.entries.get(&format!("targets/{}", artifact.path)) else {
        return match tree.releases.away.contains_key(&artifact.path.to_string()) {
            true => Err(Box::new(artifact.clone())),
            false => Ok(Response::error(404, "not_found", "the mirror has no such file")),
        };
    };
    let permit = match request.method.as_str() {
        "HEAD" => None,
        _ => match metering::permit(site) {
            Ok(permit) => Some(permit),
            Err(busy) => return Ok(busy),
        },
    };
    log::info!("first install: {} for {who}", artifact.path);
    let mut answer = tree::answer(entry, request, permit);
    // The next release has the same path.
    answer.headers.retain(|(name, _)| *name != "cache-control");
    Ok(answer
        .with("cache-control", "private, no-cache")
        .with("x-vm-version", artifact.path.version.to_string())
        .with("x-vm-sha256", entry.sha256.clone()))
}

fn refused(request: &Request, reason: &Reason) -> Response {
    let peer = request.peer.map_or(String::new(), |p| p.to_string());
    log::warn!("first install at {peer} refused: {reason}");
    Response::error(403, &reason.code, &*reason.detail)
}

/// Who asks, if that one may be served; a device that only names itself has its policy to pass.
fn may(registry: &Registry, request: &Request, now: u64) -> Result<(String, Option<String>), Reason> {
    if let Some(token) = request.bearer() {
        return token_good(registry, token, now).map(|()| ("a device with a token".to_string(), None));
    }
    let id = request.header(DEVICE).map(str::trim).unwrap_or_default();
    let (token, program) = (registry.role.token, registry.role.program);
    let how = format!("send a {token} of `{program} {token} create` as `Authorization: Bearer`");
    match (id, registry.agents.get(id)) {
        ("", _) => Err(Reason::new("device_unnamed", format!("no {token} and no X-VM-Device-Id; {how}"))),
        ("0", _) => Err(Reason::new("device_unmanaged", format!("device 0 is not managed here; {how}"))),
        (_, Some(agent)) if agent.removed_at.is_some() => Err(Reason::new("device_removed", format!("this device was removed; {how}"))),
        (_, Some(_)) => Ok((format!("device {id}"), Some(id.to_string()))),
        _ => Err(Reason::new("device_unknown", format!("no device '{}' here; {how}", clean(id, NAME_MAX)))),
    }
}

/// Whether this token would still enroll; nothing of it is spent.
fn token_good(registry: &Registry, token: &str, now: u64) -> Result<(), Reason> {
    let (what, remedy) = (registry.role.token, registry.role.make_token());
    let refuse = |code, why: &str| Err(Reason::new(code, format!("the {what} {why}; {remedy}")));
    match registry.tokens.get(&hex::encode(&hex::sha256(token.as_bytes()))) {
        None => refuse("token_unknown", "is not known here"),
        Some(t) if t.revoked_at.is_some() => refuse("token_revoked", "was revoked"),
        Some(t) if now > t.expires_at => refuse("token_expired", "has expired"),
        Some(t) if t.uses_left == 0 => refuse("token_used_up", "has been used as often as it may"),
        Some(_) => Ok(()),
    }
}

fn version(request: &Request) -> Option<&str> {
    request.query.as_deref()?.split('&').find_map(|pair| pair.strip_prefix("version="))
}

/// The agent for a new device of this platform.
///
/// # Errors
/// `no_artifact`, `version_unknown`, `quarantined`.
pub fn choose<'r>(
    releases: &'r Releases,
    registry: &Registry,
    os: &str,
    arch: &str,
    wanted: Option<&str>,
    now: u64,
) -> Result<&'r Artifact, Reason> {
    let product = registry.role.product.name;
    let here = |a: &&Artifact| {
        let p = &a.path;
        p.product == product && p.platform.os == os && p.platform.arch == arch && p.file == p.platform.program(product)
    };
    let there = || releases.artifacts.iter().filter(here);
    let newest = |wanted: &dyn Fn(&Version) -> bool| {
        let mut fit: Vec<&Artifact> = there().filter(|a| wanted(&a.path.version)).collect();
        fit.sort_by(|a, b| b.path.version.cmp(&a.path.version));
        let kept = |a: &Artifact| registry.kept_from_new(&hex::encode(&a.sha256), now);
        match (fit.iter().find(|a| kept(a).is_none()), fit.first()) {
            (Some(free), _) => Ok(Some(*free)),
            (None, Some(first)) => kept(first).map_or(Ok(None), Err),
            (None, None) => Ok(None),
        }
    };
    let list = platforms(releases, product).join(", ");
    let list = if list.is_empty() { "nothing yet".to_string() } else { list };
    if there().next().is_none() {
        let asked = format!("{}/{}", clean(os, NAME_MAX), clean(arch, NAME_MAX));
        return Err(Reason::new("no_artifact", format!("no {product} for {asked} here; there is: {list}")));
    }
    match wanted {
        None => newest(&|v| !v.is_pre_release())?
            .ok_or_else(|| Reason::new("no_artifact", format!("{product} for {os}/{arch} has pre-releases only; name one with ?version="))),
        Some(text) => newest(&|v| v.to_string() == text)?.ok_or_else(|| {
            Reason::new("version_unknown", format!("the mirror has no {product} {} for {os}/{arch}", clean(text, NAME_MAX)))
        }),
    }
}

/// `<os>/<arch>` of every platform with a program of this product, sorted.
pub fn platforms(releases: &Releases, product: &str) -> Vec<String> {
    let agents = releases.artifacts.iter().filter(|a| a.path.product == product);
    let mut out: Vec<String> = agents.map(|a| format!("{}/{}", a.path.platform.os, a.path.platform.arch)).collect();
    out.sort();
    out.dedup();
    out
}
