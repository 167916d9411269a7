//! A release repository in memory, for every test that needs signed metadata: make one, bend it, publish it.
//!
//! `Repo::new()` is what vmetric-release would publish: root 2 of 3, one key each for the others, `targets` that only
//! delegates, one delegated role with one artifact. A test changes fields, or an [`Repo::edit`] just before a document is
//! signed, or [`Repo::files`] afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_compact::{KeyPair, Seed};
use miniserde::json::{self, Value};
use vmetric::core::canonical::canonicalize;
use vmetric::core::hex;
use vmetric::core::release::build_prefix;
use vmetric::core::time;
use vmetric::core::trust::{Fetched, Goal, Now, Outcome, Persist, Refresh, Refusal, Trusted, Want};

/// The time of all tests: 2027-01-01T00:00:00Z.
pub const NOW: u64 = 1_798_761_600;
pub const DAY: u64 = 86_400;
/// The artifact of [`Repo::new`].
pub const TARGET: &str = "vmetric-agent/2.5.0/linux-amd64/vmetric-agent";
/// The role that lists it.
pub const ROLE: &str = "agent-linux-amd64";

/// A key pair with its TUF key id.
#[derive(Clone)]
pub struct Key {
    pub id: String,
    pub pair: KeyPair,
}

impl Key {
    /// Always the same key for the same name.
    pub fn new(name: &str) -> Key {
        let pair = KeyPair::from_seed(Seed::new(hex::sha256(name.as_bytes())));
        let id = hex::encode(&hex::sha256(&canonical(&key_value(&pair))));
        Key { id, pair }
    }

    pub fn sign(&self, message: &[u8]) -> String {
        hex::encode(&*self.pair.sk.sign(message, None))
    }

    pub fn public(&self) -> String {
        hex::encode(&*self.pair.pk)
    }
}

fn key_value(pair: &KeyPair) -> Value {
    parse(&format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#, hex::encode(&*pair.pk)))
}

/// Keys and threshold of a role.
#[derive(Clone)]
pub struct Keys {
    pub keys: Vec<Key>,
    pub threshold: i64,
}

impl Keys {
    pub fn new(names: &[&str], threshold: i64) -> Keys {
        Keys { keys: names.iter().map(|n| Key::new(n)).collect(), threshold }
    }
}

/// One arrow from a role to another.
#[derive(Clone)]
pub struct Delegation {
    pub name: String,
    pub keys: Keys,
    pub terminating: bool,
    pub paths: Vec<String>,
    /// Replaces `paths` when it is not empty.
    pub hash_prefixes: Vec<String>,
}

impl Delegation {
    /// Signed by a key with the role's own name, not terminating.
    pub fn new(name: &str, paths: &[&str]) -> Delegation {
        let paths = paths.iter().map(|p| p.to_string()).collect();
        Delegation { name: name.into(), keys: Keys::new(&[name], 1), terminating: false, paths, hash_prefixes: Vec::new() }
    }

    pub fn terminating(mut self) -> Delegation {
        self.terminating = true;
        self
    }
}

type Edit = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub struct Repo {
    /// Keys of the four top-level roles, as the root lists them.
    pub top: BTreeMap<String, Keys>,
    pub build: Vec<Key>,
    /// Version that each role gets when it is published; 1 if not here.
    pub versions: BTreeMap<String, u64>,
    /// Expiry of each role; a year after [`NOW`] if not here.
    pub expires: BTreeMap<String, u64>,
    pub issued: Option<u64>,
    pub consistent: bool,
    /// By delegator.
    pub delegations: BTreeMap<String, Vec<Delegation>>,
    /// By role, by path: the entry.
    pub targets: BTreeMap<String, BTreeMap<String, Value>>,
    /// Who signs a role, if not its own keys.
    pub signers: BTreeMap<String, Vec<Key>>,
    /// Says length and hashes in `meta`, as ours do.
    pub hashes: bool,
    /// What a client can fetch.
    pub files: BTreeMap<String, Vec<u8>>,
    edits: Vec<(String, Edit)>,
}

impl Repo {
    /// Published, version 1 of everything.
    pub fn new() -> Repo {
        let mut repo = Repo::empty();
        repo.delegate("targets", Delegation::new(ROLE, &["vmetric-agent/*/linux-amd64/*"]).terminating());
        let bytes = b"the agent, version 2.5.0";
        repo.add(ROLE, TARGET, bytes);
        repo.publish();
        repo
    }

    /// The same, version 5 of all but the root.
    pub fn at_version_5() -> Repo {
        let mut repo = Repo::new();
        for role in ["timestamp", "snapshot", "targets", ROLE] {
            repo.versions.insert(role.into(), 5);
        }
        repo.publish();
        repo
    }

    /// Keys only; nothing is delegated, listed or published.
    pub fn empty() -> Repo {
        let top = [
            ("root", Keys::new(&["root-1", "root-2", "root-3"], 2)),
            ("timestamp", Keys::new(&["timestamp"], 1)),
            ("snapshot", Keys::new(&["snapshot"], 1)),
            ("targets", Keys::new(&["targets"], 1)),
        ];
        Repo {
            top: top.into_iter().map(|(name, keys)| (name.to_string(), keys)).collect(),
            build: vec![Key::new("build")],
            versions: BTreeMap::new(),
            expires: BTreeMap::new(),
            issued: Some(NOW - DAY),
            consistent: true,
            delegations: BTreeMap::new(),
            targets: BTreeMap::new(),
            signers: BTreeMap::new(),
            hashes: true,
            files: BTreeMap::new(),
            edits: Vec::new(),
        }
    }

    pub fn delegate(&mut self, delegator: &str, delegation: Delegation) {
        self.targets.entry(delegation.name.clone()).or_default();
        self.delegations.entry(delegator.into()).or_default().push(delegation);
    }

    /// Lists an artifact of ours, signed by the first build key. A path that is none of ours gets no `custom`.
    pub fn add(&mut self, role: &str, path: &str, bytes: &[u8]) {
        let entry = target_entry(&self.build[0], path, bytes);
        self.targets.entry(role.into()).or_default().insert(path.into(), entry);
    }

    pub fn version(&self, role: &str) -> u64 {
        self.versions.get(role).copied().unwrap_or(1)
    }

    pub fn bump(&mut self, role: &str) {
        let next = self.version(role) + 1;
        self.versions.insert(role.into(), next);
    }

    /// The next version of everything but the root, with one artifact more; not published yet.
    pub fn next_release(&mut self) {
        self.add(ROLE, &TARGET.replace("2.5.0", "2.6.0"), b"the agent, version 2.6.0");
        for role in ["timestamp", "snapshot", "targets", ROLE] {
            self.bump(role);
        }
        self.issued = Some(NOW);
    }

    /// Changes a document of this role just before it is signed, in every publish from now on.
    pub fn edit(&mut self, role: &str, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.edits.push((role.into(), Arc::new(edit)));
    }

    /// Signs and writes everything: root, delegated roles, targets, snapshot, timestamp.
    pub fn publish(&mut self) {
        self.publish_root();
        let names: Vec<String> = self.targets.keys().filter(|n| *n != "targets").cloned().chain(["targets".into()]).collect();
        let mut listed = BTreeMap::new();
        for name in &names {
            let bytes = self.sign(name, self.targets_doc(name));
            listed.insert(format!("{name}.json"), meta(self.version(name), &bytes, self.hashes));
            self.write(name, bytes);
        }
        let mut snapshot = self.head("snapshot", "snapshot");
        set(&mut snapshot, &["meta"], &object(listed));
        let bytes = self.sign("snapshot", snapshot);
        let listed = meta(self.version("snapshot"), &bytes, self.hashes);
        self.write("snapshot", bytes);
        let mut timestamp = self.head("timestamp", "timestamp");
        set(&mut timestamp, &["meta"], &object([("snapshot.json".to_string(), listed)].into()));
        if let Some(issued) = self.issued {
            set(&mut timestamp, &["issued"], &quote(&time::format(issued)));
        }
        let bytes = self.sign("timestamp", timestamp);
        self.files.insert("timestamp.json".into(), bytes);
    }

    /// Signs and writes the root only, as its current version.
    pub fn publish_root(&mut self) {
        let bytes = self.sign("root", self.root_doc());
        self.files.insert(format!("{}.root.json", self.version("root")), bytes);
    }

    fn write(&mut self, role: &str, bytes: Vec<u8>) {
        let name = self.file(role);
        self.files.insert(name, bytes);
    }

    /// Name of the current file of a role.
    pub fn file(&self, role: &str) -> String {
        let quoted = vmetric::core::trust::quoted(role);
        match (role, self.consistent) {
            ("timestamp", _) | (_, false) => format!("{quoted}.json"),
            _ => format!("{}.{quoted}.json", self.version(role)),
        }
    }

    fn head(&self, role: &str, kind: &str) -> Value {
        let expires = self.expires.get(role).copied().unwrap_or(NOW + 365 * DAY);
        parse(&format!(
            r#"{{"_type":"{kind}","expires":"{}","spec_version":"1.0.34","version":{}}}"#,
            time::format(expires),
            self.version(role)
        ))
    }

    fn root_doc(&self) -> Value {
        let mut doc = self.head("root", "root");
        let keys = self.top.values().flat_map(|role| &role.keys).map(|k| (k.id.clone(), key_value(&k.pair))).collect();
        let roles = self.top.iter().map(|(name, keys)| (name.clone(), role_value(keys))).collect();
        let build = self.build.iter().map(|k| (k.id.clone(), key_value(&k.pair))).collect();
        set(&mut doc, &["consistent_snapshot"], if self.consistent { "true" } else { "false" });
        set(&mut doc, &["keys"], &object(keys));
        set(&mut doc, &["roles"], &object(roles));
        set(&mut doc, &["x-vmetric-build-keys"], &object(build));
        doc
    }

    fn targets_doc(&self, role: &str) -> Value {
        let mut doc = self.head(role, "targets");
        set(&mut doc, &["targets"], &object(self.targets.get(role).cloned().unwrap_or_default()));
        let Some(delegations) = self.delegations.get(role) else { return doc };
        let keys = delegations.iter().flat_map(|d| &d.keys.keys).map(|k| (k.id.clone(), key_value(&k.pair))).collect();
        let roles: Vec<String> = delegations.iter().map(delegation_text).collect();
        set(&mut doc, &["delegations"], &format!(r#"{{"keys":{},"roles":[{}]}}"#, object(keys), roles.join(",")));
        doc
    }

    /// The document after its edits, in its envelope.
    pub fn sign(&self, role: &str, mut signed: Value) -> Vec<u8> {
        for (name, edit) in &self.edits {
            if name == role {
                edit(&mut signed);
            }
        }
        envelope(&signed, &self.signers_of(role))
    }

    fn signers_of(&self, role: &str) -> Vec<Key> {
        if let Some(signers) = self.signers.get(role) {
            return signers.clone();
        }
        let delegated = || self.delegations.values().flatten().find(|d| d.name == role).map(|d| d.keys.keys.clone());
        self.top.get(role).map(|keys| keys.keys.clone()).or_else(delegated).unwrap_or_default()
    }

    /// The root of the given version.
    pub fn root(&self, version: u64) -> &[u8] {
        &self.files[&format!("{version}.root.json")]
    }

    /// What a client that just left the factory with root 1 trusts.
    pub fn bootstrap(&self) -> Trusted {
        Trusted::bootstrap(self.root(1)).unwrap()
    }

    /// A whole refresh against this repository.
    pub fn refresh(&self, trusted: Trusted, now: Now, goal: Goal) -> Refreshed {
        let mut refresh = Refresh::new(trusted, now, goal);
        let (mut asked, mut persisted) = (Vec::new(), Vec::new());
        while let Want::Fetch(file) = refresh.want() {
            asked.push(file.name.clone());
            assert!(asked.len() < 5000, "endless: {:?}", &asked[..20]);
            let fetched = self.files.get(&file.name).map_or(Fetched::NotFound, |bytes| Fetched::Bytes(bytes));
            let given = refresh.give(fetched);
            persisted.extend(given.unwrap_or_default());
        }
        let (trusted, outcome) = refresh.finish();
        Refreshed { trusted, outcome, asked, persisted }
    }

    /// A refresh that must succeed, for [`TARGET`].
    pub fn client(&self, trusted: Trusted) -> Trusted {
        let done = self.refresh(trusted, now(), find());
        assert_eq!(done.outcome.refused, None);
        assert!(done.outcome.complete);
        done.trusted
    }
}

/// What a refresh did.
pub struct Refreshed {
    pub trusted: Trusted,
    pub outcome: Outcome,
    pub asked: Vec<String>,
    pub persisted: Vec<Persist>,
}

impl Refreshed {
    /// The code of the refusal, or "" when there was none.
    pub fn code(&self) -> &'static str {
        self.outcome.refused.as_ref().map_or("", |refusal| refusal.code)
    }

    /// Roles of which a new version was made durable.
    pub fn persisted_roles(&self) -> Vec<&str> {
        self.persisted.iter().filter(|p| p.bytes.is_some()).map(|p| p.role.as_str()).collect()
    }
}

/// [`NOW`], nothing else known.
pub fn now() -> Now {
    Now { unix: NOW, ..Now::default() }
}

/// The usual goal.
pub fn find() -> Goal {
    Goal::Find(TARGET.parse().unwrap())
}

pub fn code<T>(result: Result<T, Refusal>) -> &'static str {
    result.err().map_or("", |refusal| refusal.code)
}

/// Stands for 2^64 in a [`Value`], which cannot hold it.
pub const TOO_BIG: &str = "\"2^64\"";

fn text(value: &Value) -> String {
    json::to_string(value).replace(TOO_BIG, "18446744073709551616")
}

/// `{"signatures":[..],"signed":{..}}`
pub fn envelope(signed: &Value, signers: &[Key]) -> Vec<u8> {
    let message = canonical(signed);
    let signature = |key: &Key| format!(r#"{{"keyid":{},"sig":"{}"}}"#, quote(&key.id), key.sign(&message));
    let signatures: Vec<String> = signers.iter().map(signature).collect();
    format!("{{\"signatures\":[{}],\"signed\":{}}}\n", signatures.join(","), text(signed)).into_bytes()
}

pub fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    canonicalize(text(value).as_bytes(), &mut |piece| out.extend_from_slice(piece)).unwrap();
    out
}

/// An entry of `targets` for these bytes.
pub fn target_entry(build: &Key, path: &str, bytes: &[u8]) -> Value {
    let plain = format!(r#"{{"hashes":{{"sha256":"{}"}},"length":{}}}"#, hex::encode(&hex::sha256(bytes)), bytes.len());
    let mut entry = parse(&plain);
    let parts: Vec<&str> = path.split('/').collect();
    if let [_, version, platform, _] = parts[..]
        && let Some((os, arch)) = platform.split_once('-')
    {
        let mut message = build_prefix(path, bytes.len() as u64);
        message.extend_from_slice(bytes);
        let (keyid, sig) = (&build.id, build.sign(&message));
        let sig = format!(r#"{{"keyid":"{keyid}","sig":"{sig}"}}"#);
        let custom = format!(r#"{{"arch":"{arch}","counter":3,"os":"{os}","sig":{sig},"version":"{version}"}}"#);
        set(&mut entry, &["custom"], &custom);
    }
    entry
}

fn meta(version: u64, bytes: &[u8], hashes: bool) -> Value {
    if !hashes {
        return parse(&format!(r#"{{"version":{version}}}"#));
    }
    let hash = hex::encode(&hex::sha256(bytes));
    parse(&format!(r#"{{"hashes":{{"sha256":"{hash}"}},"length":{},"version":{version}}}"#, bytes.len()))
}

fn role_value(keys: &Keys) -> Value {
    let ids: Vec<String> = keys.keys.iter().map(|k| quote(&k.id)).collect();
    parse(&format!(r#"{{"keyids":[{}],"threshold":{}}}"#, ids.join(","), keys.threshold))
}

fn delegation_text(d: &Delegation) -> String {
    let mut role = role_value(&d.keys);
    set(&mut role, &["name"], &quote(&d.name));
    set(&mut role, &["terminating"], if d.terminating { "true" } else { "false" });
    let list = |texts: &[String]| format!("[{}]", texts.iter().map(|t| quote(t)).collect::<Vec<_>>().join(","));
    match d.hash_prefixes.is_empty() {
        true => set(&mut role, &["paths"], &list(&d.paths)),
        false => set(&mut role, &["path_hash_prefixes"], &list(&d.hash_prefixes)),
    }
    json::to_string(&role)
}

fn object(members: BTreeMap<String, Value>) -> String {
    json::to_string(&members)
}

pub fn quote(text: &str) -> String {
    json::to_string(text)
}

/// JSON from text that a test wrote.
pub fn parse(text: &str) -> Value {
    json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

/// Sets the member at `path` (made if it is not there) to the JSON text `new`.
pub fn set(value: &mut Value, path: &[&str], new: &str) {
    let (last, way) = path.split_last().unwrap();
    match step(value, way) {
        Value::Object(object) => drop(object.insert(last.to_string(), parse(new))),
        Value::Array(array) => array[last.parse::<usize>().unwrap()] = parse(new),
        _ => panic!("{path:?} is in no container"),
    }
}

/// Removes the member at `path`, which must be there.
pub fn unset(value: &mut Value, path: &[&str]) {
    let (last, way) = path.split_last().unwrap();
    let Value::Object(object) = step(value, way) else { panic!("{path:?} is in no object") };
    assert!(object.remove(*last).is_some(), "{path:?} is not there");
}

fn step<'a>(value: &'a mut Value, way: &[&str]) -> &'a mut Value {
    way.iter().fold(value, |value, key| match value {
        Value::Object(object) => object.get_mut(*key).unwrap_or_else(|| panic!("no {key}")),
        Value::Array(array) => &mut array[key.parse::<usize>().unwrap()],
        _ => panic!("{key} is in no container"),
    })
}
