//! `enroll`: this device becomes known to a Director, for the first time or, with `--replace`, anew.
//!
//! The device's key is durable before the first word is sent, and the Director answers the same key and token with the same
//! identity. So a lost answer, a power cut or an impatient operator is followed by the same command again, and nothing else.
//! `--replace` (a rebuilt Director, a cloned disk) makes a new key, hence a new identity; slots, results and the rejected list
//! stay. Until its last durable write, the configuration, the device is what it was before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use miniserde::json;

use super::build;
use super::command::running_agent;
use super::link::{CA_FILE_MAX, client};
use crate::core::copies::KeyFile;
use crate::core::first_boot::{self, Ended};
use crate::core::hex;
use crate::core::product::Product;
use crate::core::proof::DeviceKey;
use crate::core::reason::Reason;
use crate::core::release::Platform;
use crate::io::fs::{PUBLIC, read_limited, write_durable};
use crate::io::http::HttpError;
use crate::io::process::WakeFd;
use crate::io::state::State;
use crate::io::{device_key, identity, offers, process};
use crate::wire::agent_api::{APPROVAL_PENDING, BODY_MAX, EnrollWire, EnrolledWire, ErrorWire, PROTOCOL, SERIAL_MAX};
use crate::wire::config::{ConfigWire, OFFLINE_SITE_MAX};

/// Time for the whole enrollment: a person waits for it.
const ENROLL_TIME: Duration = Duration::from_secs(60);
/// Where Linux tells a machine's serial number: DMI (root only), device tree.
const SERIALS: [&str; 2] = ["/sys/class/dmi/id/product_serial", "/sys/firmware/devicetree/base/serial-number"];

/// What `enroll` was given.
#[derive(Default)]
pub struct EnrollArgs {
    /// What enrolls.
    pub product: &'static Product,
    /// State folder.
    pub state: PathBuf,
    /// `https://host:port`.
    pub director: String,
    /// Token of `vmetric-director token create`.
    pub token: String,
    /// `sha256:...`
    pub pins: Vec<String>,
    /// Proxy URL.
    pub proxy: Option<String>,
    /// Days of `--offline-site`.
    pub offline_site_days: Option<u64>,
    /// Serial number; the system's when absent.
    pub serial: Option<String>,
    /// CA file instead of pins (feature `company-ca`).
    pub ca: Option<PathBuf>,
    /// A new identity, although there is one.
    pub replace: bool,
}

/// Makes this device known to its Director and keeps the credential.
pub fn enroll(args: &EnrollArgs) -> Result<String, Reason> {
    let state = State::open_of(args.product, &args.state)?;
    let before = state.config().ok().flatten().map(|(config, _)| config);
    if let Some(config) = before.as_ref().filter(|_| !args.replace) {
        let detail = format!("this device is enrolled at {} as {}; `enroll --replace` attaches it anew", config.director, config.agent_id);
        return Err(Reason::new("already_enrolled", detail));
    }
    let mut config = wanted(args, before.as_ref());
    let ca = args.ca.as_deref().filter(|_| cfg!(feature = "company-ca")).map(read_ca).transpose()?;
    // Its name is its hash: the file of the identity before stays what it is until the new one counts.
    config.ca = ca.as_ref().map(|pem| format!("ca-{}.pem", &hex::encode(&hex::sha256(pem))[..16]));
    config.check()?;
    check(args)?;
    // A device that could never be updated is better known now than at its first update.
    crate::io::room::for_slots(&args.state)?;
    let key_file = if args.replace { KeyFile::New } else { KeyFile::Key };
    let key = device_key::read_or_make(&state, key_file)?;
    let request = request(args.product, &key, &args.token, args.serial.clone().or_else(|| serial(None)));
    let enrolled = ask(&config, ca.as_deref(), &request, (None, || {})).map_err(|failed| failed.reason)?;
    take(&mut config, enrolled, &key);
    if cfg!(feature = "company-ca")
        && let (Some(name), Some(pem)) = (&config.ca, &ca)
    {
        let path = state.path("config").join(name);
        let failed = |e| Reason::new("state_unwritable", format!("{}: {e}", path.display()));
        crate::io::fs::make_folder(&state.path("config")).and_then(|()| write_durable(&path, pem, PUBLIC)).map_err(failed)?;
    }
    state.write_config(&config)?;
    offers::forget_tokens(&state).iter().for_each(|reason| log::warn!("{reason}"));
    // A replacement's key goes to its place; an agent that starts does that, too, if it cannot be done now.
    identity::keep(&state);
    if let Some(pid) = running_agent(&state) {
        // The agent reads its configuration at its start, a Director in each turn.
        let heard = args.product.has_resources && process::wake(pid);
        if !heard {
            process::stop(pid);
        }
    }
    Ok(format!("enrolled at {} as {}", config.director, config.agent_id))
}

/// The configuration that is asked for; what is not said stays as it was.
fn wanted(args: &EnrollArgs, before: Option<&ConfigWire>) -> ConfigWire {
    ConfigWire {
        format: 1,
        director: args.director.trim_end_matches('/').to_string(),
        pins: args.pins.clone(),
        proxy: args.proxy.clone().or_else(|| before?.proxy.clone()),
        offline_site_days: args.offline_site_days.or_else(|| before?.offline_site_days),
        ..Default::default()
    }
}

/// What can be known to be wrong before anything is sent.
fn check(args: &EnrollArgs) -> Result<(), Reason> {
    if args.offline_site_days.is_some_and(|days| days > OFFLINE_SITE_MAX) {
        return Err(Reason::new("bad_argument", format!("--offline-site: at most {OFFLINE_SITE_MAX} days")));
    }
    if args.serial.as_ref().is_some_and(|s| s.is_empty() || s.len() > SERIAL_MAX) {
        return Err(Reason::new("bad_argument", format!("--serial: 1 to {SERIAL_MAX} bytes")));
    }
    // A company CA names no site.
    if args.ca.is_none() && !first_boot::is_of_site(&args.token, &args.pins) {
        let detail = "the token was made at another site than --pin names; nothing was sent; take both from one `token create`";
        return Err(Reason::new("token_other_site", detail));
    }
    Ok(())
}

fn read_ca(file: &Path) -> Result<Vec<u8>, Reason> {
    let bad = |why: String| Reason::new("bad_ca", format!("--ca {}: {why}", file.display()));
    read_limited(file, CA_FILE_MAX).map_err(|e| bad(e.to_string()))?.ok_or_else(|| bad("there is no such file".into()))
}

/// Why there is no identity.
#[derive(Debug)]
pub struct Failed {
    /// For people.
    pub reason: Reason,
    /// How it ended.
    pub ended: Ended,
    /// What the Director asked for.
    pub retry_after_s: Option<u64>,
    /// A signal ended the wait.
    pub woken: bool,
}

impl From<Reason> for Failed {
    fn from(reason: Reason) -> Failed {
        Failed { reason, ended: Ended::Unserved, retry_after_s: None, woken: false }
    }
}

/// The first words of a device.
pub(super) fn request(product: &Product, key: &DeviceKey, token: &str, serial: Option<String>) -> EnrollWire {
    let here = Platform::here();
    EnrollWire {
        protocol: PROTOCOL,
        token: token.to_string(),
        hostname: super::run::hostname(),
        os: here.os,
        architecture: here.arch,
        version: build::VERSION.into(),
        device_key: Some(key.public()),
        proof: Some(key.prove_enrollment(token)),
        serial,
        product: Some(product.name.into()),
    }
}

/// The identity, as the Director gave it to this key.
pub(super) fn take(config: &mut ConfigWire, enrolled: EnrolledWire, key: &DeviceKey) {
    (config.agent_id, config.credential, config.issuer) = (enrolled.agent_id, enrolled.credential, enrolled.issuer);
    config.device_key = Some(key.public());
}

/// Asks the Director for an identity. `way`: what wakes the wait, and what is called while it lasts.
pub(super) fn ask(
    config: &ConfigWire,
    ca: Option<&[u8]>,
    request: &EnrollWire,
    way: (Option<WakeFd>, fn()),
) -> Result<EnrolledWire, Failed> {
    let http = client(config, ca, way.0, way.1)?;
    let url = format!("{}/agent/v1/enroll", config.director);
    let reply = http
        .post_json(&url, None, &json::to_string(request), BODY_MAX, ENROLL_TIME)
        .map_err(|e| Failed { woken: e == HttpError::Woken, ..Failed::from(e.reason()) })?;
    let text = String::from_utf8_lossy(&reply.body);
    if reply.status != 200 {
        let said: ErrorWire = json::from_str(&text).unwrap_or_default();
        let code = if said.code.is_empty() { "enroll_refused".to_string() } else { said.code };
        let ended = match reply.status {
            _ if code == APPROVAL_PENDING => Ended::Pending,
            429 | 500.. => Ended::Unserved,
            _ => Ended::Refused,
        };
        let reason = Reason::received(code, format!("{url}: {} {}", reply.status, said.detail));
        return Err(Failed { reason, ended, retry_after_s: reply.retry_after_s, woken: false });
    }
    let unread = || Reason::new("bad_answer", format!("{url}: the answer is not of the agent protocol"));
    json::from_str(&text).map_err(|_| unread().into())
}

/// The machine's serial number, when there is one: from that file, else as the system tells it.
pub(super) fn serial(file: Option<&str>) -> Option<String> {
    let read = |path: &str| {
        let bytes = read_limited(Path::new(path), 4096).ok().flatten()?;
        first_boot::serial(&String::from_utf8(bytes).ok()?, SERIAL_MAX).map(String::from)
    };
    file.into_iter().chain(SERIALS).find_map(read).or_else(process::machine_id)
}
