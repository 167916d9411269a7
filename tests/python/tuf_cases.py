"""Drives `vmetric-release tuf` against repositories that python-tuf, the reference implementation, writes and signs.

    tuf_cases.py PROGRAM [NAME...]

Each case has a repository of its own in memory, served over HTTP on the loopback interface, which notes every request. A
case says what the command must answer, ask for and keep. Every run of the command must end with 0 or 1; with 1 it says
exactly one line on standard error. All cases run with Ed25519 keys, and again with ECDSA keys. Prints one line per case;
exit code 0 only when all have passed.
"""

import datetime as dt
import hashlib
import http.server
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.parse

import tuf
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, MetaFile, Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

TOP = ["root", "timestamp", "snapshot", "targets"]
DAY = dt.timedelta(days=1)
CASES = []
# Making keys is slow, and no case looks at another's.
POOL = {}


def case(function):
    CASES.append((function.__name__, function))
    return function


def table(**rows):
    """One case per row, with the row as the second argument."""

    def add(function):
        for name, row in rows.items():
            CASES.append((f"{function.__name__}/{name}", lambda repo, row=row: function(repo, row)))
        return function

    return add


def make(kind):
    return {
        "ed25519": CryptoSigner.generate_ed25519,
        "ecdsa": CryptoSigner.generate_ecdsa,
        "rsa": lambda: CryptoSigner.generate_rsa(scheme="rsassa-pss-sha256"),
        "rsa-pkcs1": lambda: CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256"),
    }[kind]()


class Repo:
    """What a repository's owner has, what is published, what was asked for; and one client."""

    def __init__(self, kind, server, program, work):
        self.kind, self.server, self.program, self.work = kind, server, program, pathlib.Path(work)
        self.used = {}
        self.hashes = False
        self.files, self.targets_files, self.asked, self.fetched = {}, {}, [], []
        self.history = set()
        server.repo = self
        expires = dt.datetime.now(dt.timezone.utc).replace(microsecond=0) + 30 * DAY
        self.expires = expires
        self.signed = {
            "root": Root(expires=expires),
            "timestamp": Timestamp(expires=expires),
            "snapshot": Snapshot(expires=expires),
            "targets": Targets(expires=expires),
        }
        self.signers = {role: [] for role in TOP}
        for role in TOP:
            self.add_key(role)
        self.publish(*TOP, bump=False)
        (self.work / "root.json").write_bytes(self.files["1.root.json"])

    # -- keys --

    def signer(self, kind=None):
        kind = kind or self.kind
        pool, n = POOL.setdefault(kind, []), self.used.get(kind, 0)
        self.used[kind] = n + 1
        if n == len(pool):
            pool.append(make(kind))
        return pool[n]

    def add_key(self, role, signer=None, delegator=None):
        signer = signer or self.signer()
        owner = self.signed[delegator] if delegator else self.signed["root"]
        owner.add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)

    def set_keys(self, role, signers, threshold):
        self.drop_keys(role)
        for signer in signers:
            self.add_key(role, signer)
        self.signed["root"].roles[role].threshold = threshold

    def drop_keys(self, role):
        for keyid in list(self.signed["root"].roles[role].keyids):
            self.signed["root"].revoke_key(keyid, role)
        self.signers[role] = []

    # -- publishing --

    def write(self, role, signers=None):
        signed = self.signed[role]
        metadata = Metadata(signed)
        for signer in signers if signers is not None else self.signers.get(role, []):
            metadata.sign(signer, append=True)
        data = metadata.to_bytes(JSONSerializer())
        name = urllib.parse.quote(role, "")
        versioned = role == "root" or (role != "timestamp" and self.signed["root"].consistent_snapshot)
        self.files[f"{signed.version}.{name}.json" if versioned else f"{name}.json"] = data
        self.history.add(data)
        meta = MetaFile(signed.version)
        if self.hashes:
            meta = MetaFile(signed.version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})
        if isinstance(signed, Targets):
            self.signed["snapshot"].meta[f"{role}.json"] = meta
        elif role == "snapshot":
            self.signed["timestamp"].snapshot_meta = meta
        return data

    def publish(self, *roles, bump=True):
        """Roles in this order of dependence: targets, snapshot, timestamp; the root is by itself."""
        order = [r for r in roles if r not in TOP] + [r for r in ["targets", "snapshot", "timestamp", "root"] if r in roles]
        for role in order:
            if bump:
                self.signed[role].version += 1
            self.write(role)

    def delegate(self, delegator, name, paths=("*",), terminating=False, prefixes=None):
        owner = self.signed[delegator]
        if owner.delegations is None:
            owner.delegations = Delegations({}, {})
        paths = None if prefixes else list(paths)
        owner.delegations.roles[name] = DelegatedRole(name, [], 1, terminating, paths, prefixes)
        self.signed.setdefault(name, Targets(expires=self.expires))
        known = self.signers.get(name)
        self.add_key(name, known[0] if known else None, delegator)
        self.signers[name] = self.signers[name][:1]

    def add(self, role, path, data, hashes=("sha256",)):
        target = TargetFile.from_data(path, data, list(hashes))
        self.signed[role].targets[path] = target
        folder, _, name = path.rpartition("/")
        for digest in target.hashes.values():
            self.targets_files[f"{folder}/{digest}.{name}".lstrip("/")] = data
        self.targets_files[path] = data

    # -- the client --

    def run(self, *args, days=None):
        env = dict(os.environ)
        env.pop("FAKETIME", None)
        if days is not None:
            env["FAKETIME"] = f"+{int(days * 86400)}"
        done = subprocess.run([self.program, "tuf", *args], capture_output=True, text=True, env=env, timeout=120)
        said = done.stderr.splitlines()
        assert done.returncode in (0, 1), f"exit code {done.returncode}: {done.stderr}"
        assert len(said) == done.returncode, f"exit code {done.returncode} and {len(said)} lines: {done.stderr}"
        assert "panic" not in done.stderr, done.stderr
        self.reason = said[0] if said else ""
        return done.returncode == 0

    @property
    def metadata(self):
        return self.work / "metadata"

    def init(self):
        return self.run("--metadata-dir", str(self.metadata), "init", str(self.work / "root.json"))

    def refresh(self, days=None):
        return self.run("--metadata-url", self.server.url + "/metadata/", "--metadata-dir", str(self.metadata), "refresh", days=days)

    def download(self, *names):
        names = [word for name in names for word in ("--target-name", name)]
        urls = ["--metadata-url", self.server.url + "/metadata", "--target-base-url", self.server.url + "/targets"]
        return self.run(*urls, "--metadata-dir", str(self.metadata), *names, "--target-dir", str(self.work / "targets"), "download")

    def has(self):
        """Role -> version of what the client trusts; the bytes must be those published."""
        out = {}
        for file in sorted(self.metadata.iterdir()):
            assert file.name.endswith(".json"), file
            data = file.read_bytes()
            assert data in self.files.values() or data in self.history, f"{file.name} was never published"
            out[file.name[: -len(".json")]] = json.loads(data)["signed"]["version"]
        return out

    def got(self):
        folder = self.work / "targets"
        return sorted(file.read_bytes() for file in folder.iterdir()) if folder.exists() else []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        repo = self.server.repo
        _, tree, name = self.path.split("/", 2)
        if tree == "metadata":
            repo.asked.append(name)
            data = repo.files.get(name)
        else:
            repo.fetched.append(name)
            data = repo.targets_files.get(urllib.parse.unquote(name))
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        if isinstance(data, bytes):
            self.send_header("Content-Length", str(len(data)))
            data = [data]
        self.end_headers()
        try:
            for piece in data:
                self.wfile.write(piece)
        except OSError:
            self.server.hung_up = True

    def log_message(self, *args):
        pass


# --- refreshing ---


@case
def init_copies_the_root_and_asks_nobody(repo):
    assert repo.init() and repo.has() == {"root": 1} and repo.asked == []


@case
def refresh_asks_in_order_and_keeps_the_bytes(repo):
    assert repo.init() and repo.refresh(), repo.reason
    assert repo.asked == ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"], repo.asked
    assert repo.has() == dict.fromkeys(TOP, 1)
    repo.asked.clear()
    assert repo.refresh() and repo.asked == ["2.root.json", "timestamp.json"], repo.asked


@case
def bytes_are_kept_whatever_the_serialization(repo):
    repo.files["timestamp.json"] += b" \n "
    root = json.loads(repo.files["1.root.json"])
    assert repo.init() and repo.refresh() and repo.has()["timestamp"] == 1
    repo.publish("root")
    repo.files["2.root.json"] = json.dumps(json.loads(repo.files["2.root.json"]), indent=4, sort_keys=True).encode()
    assert repo.refresh() and repo.has()["root"] == 2
    assert root["signed"]["version"] == 1


@case
def envelopes_in_any_order(repo):
    """The order of `signed` and `signatures`, and unknown members beside them, are nobody's business."""
    for name in ["timestamp.json", "1.snapshot.json", "1.targets.json"]:
        doc = json.loads(repo.files[name])
        unsorted = {"signed": doc["signed"], "x": 1, "signatures": [dict(reversed(s.items())) for s in doc["signatures"]], "a": []}
        repo.files[name] = json.dumps(unsorted).encode()
    assert repo.init() and repo.refresh(), repo.reason


def reversed_keys(value):
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(list(value))}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@case
def signed_parts_in_any_order(repo):
    """Canonical JSON sorts: the signature is good whatever the order of the members in the file."""
    repo.delegate("targets", "A", paths=["*/*"])
    repo.add("A", "a/b", b"content")
    repo.publish("A", "targets", "snapshot", "timestamp", "root")
    for name, data in list(repo.files.items()):
        repo.files[name] = json.dumps(reversed_keys(json.loads(data))).encode()
        repo.history.add(repo.files[name])
    (repo.work / "root.json").write_bytes(repo.files["1.root.json"])
    assert repo.init() and repo.download("a/b"), repo.reason
    assert repo.got() == [b"content"] and len(repo.has()) == 5


@case
def hashes_and_lengths_in_meta(repo):
    repo.hashes = True
    repo.publish("targets", "snapshot", "timestamp")
    assert repo.init() and repo.refresh(), repo.reason
    repo.publish("targets")
    repo.signed["snapshot"].meta["targets.json"].hashes = {"sha256": "0" * 64}
    repo.publish("snapshot", "timestamp")
    assert not repo.refresh() and repo.has() == {"root": 1, "timestamp": 3, "snapshot": 3, "targets": 2}


@case
def without_consistent_snapshots(repo):
    repo.signed["root"].consistent_snapshot = False
    repo.publish("root")
    repo.add("targets", "a/b.txt", b"content")
    repo.publish("targets", "snapshot", "timestamp")
    assert repo.init() and repo.refresh(), repo.reason
    assert repo.asked[-3:] == ["timestamp.json", "snapshot.json", "targets.json"], repo.asked
    assert repo.download("a/b.txt") and repo.fetched == ["a/b.txt"] and repo.got() == [b"content"]


@case
def unknown_fields_are_signed_too(repo):
    root = repo.signed["root"]
    root.unrecognized_fields["x-field"] = {"a": [1, None, True, "é\n"]}
    root.roles["root"].unrecognized_fields["y"] = "z"
    next(iter(root.keys.values())).unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    repo.publish("root")
    assert repo.init() and repo.refresh() and repo.has()["root"] == 2, repo.reason


@table(**{role: role for role in TOP})
def a_role_that_is_not_signed(repo, role):
    if role == "root":
        repo.signed["root"].version = 2
        repo.write("root", signers=[repo.signer()])
    else:
        for other in ["targets", "snapshot", "timestamp"]:
            repo.write(other, signers=[repo.signer()] if other == role else None)
    assert repo.init() and not repo.refresh()
    want = {"root": [], "timestamp": [], "snapshot": ["timestamp"], "targets": ["timestamp", "snapshot"]}[role]
    assert repo.has() == dict.fromkeys(["root", *want], 1), repo.has()


@table(**{role: role for role in TOP[1:]})
def a_role_that_is_not_there(repo, role):
    assert repo.init() and repo.refresh()
    before = repo.has()
    repo.publish("targets", "snapshot", "timestamp")
    name = "timestamp.json" if role == "timestamp" else f"2.{role}.json"
    repo.files.pop(name)
    assert not repo.refresh() and repo.asked[-1] == name
    newer = {"timestamp": [], "snapshot": ["timestamp"], "targets": ["timestamp", "snapshot"]}[role]
    assert repo.has() == before | dict.fromkeys(newer, 2)


@table(**{role: role for role in TOP})
def an_expired_role(repo, role):
    assert repo.init() and repo.refresh()
    repo.signed[role].expires -= 31 * DAY
    repo.publish("root", "targets", "snapshot", "timestamp")
    assert not repo.refresh() and f"{role}_expired" in repo.reason, repo.reason
    has = repo.has()
    # An expired root is kept (5.3.10), any other is not.
    assert has[role] == (2 if role == "root" else 1) and has["root"] == 2


@case
def the_clock_is_shifted_by_faketime(repo):
    repo.signed["root"].expires -= 23 * DAY
    repo.publish("root")
    assert repo.init() and repo.refresh(days=6.9) and not repo.refresh(days=7.1) and "root_expired" in repo.reason


@case
def expired_local_metadata_still_leads_to_newer(repo):
    repo.signed["timestamp"].expires -= 23 * DAY
    repo.publish("timestamp")
    assert repo.init() and repo.refresh()
    repo.signed["timestamp"].expires += 14 * DAY
    repo.publish("targets", "snapshot", "timestamp")
    assert repo.refresh(days=18) and repo.has()["targets"] == 2, repo.reason


@case
def a_trusted_root_that_is_none(repo):
    for edit in [lambda d: d["signed"].pop("version"), lambda d: d["signatures"].clear(), lambda d: d["signed"].update(version=7)]:
        doc = json.loads(repo.files["1.root.json"])
        edit(doc)
        (repo.work / "root.json").write_text(json.dumps(doc))
        repo.init()
        assert not repo.refresh() and repo.asked == []
    assert not repo.run("--metadata-dir", str(repo.work / "none"), "--metadata-url", repo.server.url, "refresh")
    assert repo.asked == []


@case
def the_wrong_kind_of_metadata(repo):
    """A snapshot, validly signed by the timestamp's key and with its fields, is no timestamp."""
    repo.add_key("snapshot", repo.signers["timestamp"][0])
    repo.signed["snapshot"].meta = {"snapshot.json": MetaFile(1)}
    repo.publish("root")
    data = repo.write("snapshot")
    repo.files["timestamp.json"] = data
    assert repo.init() and not repo.refresh() and repo.has() == {"root": 2}


@case
def a_timestamp_with_the_same_version_changes_nothing(repo):
    assert repo.init() and repo.refresh()
    repo.signed["timestamp"].snapshot_meta.version = 100
    repo.write("timestamp")
    assert repo.refresh() and repo.asked[-1] == "timestamp.json"
    assert json.loads((repo.metadata / "timestamp.json").read_bytes())["signed"]["meta"]["snapshot.json"]["version"] == 1


# --- rollback, fast-forward ---


@table(plain=False, hashes=True)
def rollbacks(repo, hashes):
    repo.hashes = hashes
    repo.publish("targets", "snapshot", "timestamp")
    repo.publish("targets", "snapshot", "timestamp")
    assert repo.init() and repo.refresh()
    before = repo.has()
    repo.signed["timestamp"].version = 2
    repo.write("timestamp")
    assert not repo.refresh() and "timestamp_rollback" in repo.reason and repo.has() == before
    repo.signed["timestamp"].version = 4
    repo.signed["timestamp"].snapshot_meta.version = 2
    repo.write("timestamp")
    assert not repo.refresh() and "timestamp_snapshot_rollback" in repo.reason and repo.has() == before
    repo.signed["snapshot"].version = 4
    repo.signed["targets"].version = 2
    repo.write("targets"), repo.write("snapshot"), repo.write("timestamp")
    assert not repo.refresh() and "snapshot_role_rollback" in repo.reason
    assert repo.has() == before | {"timestamp": 4}


@table(timestamp="timestamp", snapshot="snapshot", targets="targets")
def fast_forward_is_cured_by_new_keys(repo, role):
    repo.signed[role].version = 10**9
    repo.write("targets"), repo.write("snapshot"), repo.write("timestamp")
    assert repo.init() and repo.refresh() and repo.has()[role] == 10**9
    for rotated in ["snapshot", "timestamp"] if role != "timestamp" else ["timestamp"]:
        repo.set_keys(rotated, [repo.signer()], 1)
    repo.publish("root")
    for each in ["targets", "snapshot", "timestamp"]:
        repo.signed[each].version = 1
    repo.write("targets"), repo.write("snapshot"), repo.write("timestamp")
    assert repo.refresh() and repo.has() == {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}, repo.reason


# --- keys ---

# keys, threshold, who signs, expected: for each root version after the other.
ROOTS = dict(
    one_key_replaced=[("1", 1, "1"), ("2", 1, "12"), ("2", 1, "2")],
    strangers_sign_too=[("1", 1, "314"), ("2", 1, "3214"), ("2", 1, "324")],
    three_of_five=[("01234", 3, "024"), ("01234", 3, "041"), ("01234", 3, "013")],
    one_of_five_replaced=[("01234", 3, "024"), ("01345", 3, "041")],
    all_of_five_replaced=[("01234", 3, "024"), ("56789", 3, "024567"), ("56789", 3, "567")],
    threshold_up=[("123", 1, "1"), ("123", 2, "12")],
    threshold_down=[("123", 2, "12"), ("123", 1, "12"), ("123", 1, "1")],
    not_by_the_old_key=[("1", 1, "1"), ("2", 1, "234", False)],
    not_by_the_new_key=[("1", 1, "1"), ("2", 1, "134", False)],
    too_few_new=[("01234", 3, "024"), ("01345", 3, "024", False)],
    too_few_old=[("01234", 3, "024"), ("01345", 3, "045", False)],
    threshold_up_not_reached=[("123", 1, "1"), ("123", 2, "2", False)],
    threshold_down_old_not_reached=[("123", 2, "12"), ("123", 1, "1", False)],
)


@table(**ROOTS)
def root_rotation(repo, versions):
    signers = [repo.signer() for _ in range(10)]
    good = 0
    for version, (keys, threshold, signs, *result) in enumerate(versions, 1):
        repo.set_keys("root", [signers[int(k)] for k in keys], threshold)
        repo.signed["root"].version = version
        repo.write("root", signers=[signers[int(s)] for s in signs])
        good += not result
    (repo.work / "root.json").write_bytes(repo.files["1.root.json"])
    assert repo.init() and repo.refresh() == (good == len(versions)), repo.reason
    assert repo.has()["root"] == good


@table(
    replaced=("2", 1, "2", True),
    strangers=("1", 1, "314", True),
    old_key=("2", 1, "134", False),
    three_of_five=("01234", 3, "234", True),
    two_of_three=("01345", 3, "024", False),
    one_twice=("12", 2, "11", False),
)
def rotation_of_the_other_roles(repo, row):
    keys, threshold, signs, good = row
    signers = [repo.signer() for _ in range(10)]
    assert repo.init()
    for role in ["timestamp", "snapshot", "targets"]:
        repo.set_keys(role, [signers[int(k)] for k in keys], threshold)
        repo.publish("root")
        repo.signers[role] = [signers[int(s)] for s in dict.fromkeys(signs)]
        repo.write("targets"), repo.write("snapshot"), repo.write("timestamp")
        assert repo.refresh() == good, f"{role}: {repo.reason}"
        if not good:
            repo.set_keys(role, [repo.signer()], 1)
            repo.publish("root")
            repo.write("targets"), repo.write("snapshot"), repo.write("timestamp")


@case
def a_missed_threshold_keeps_what_was_trusted(repo):
    assert repo.init() and repo.refresh()
    for _ in range(4):
        repo.add_key("snapshot")
    repo.signed["root"].roles["snapshot"].threshold = 6
    repo.publish("root", "snapshot", "timestamp")
    assert not repo.refresh() and repo.has()["root"] == 2


@case
def one_key_under_many_ids(repo):
    signer = repo.signer()
    root = repo.signed["root"]
    repo.set_keys("timestamp", [signer], 1)
    public = signer.public_key
    for n in range(4):
        twin = SSlibKey(f"{n}" * 64, public.keytype, public.scheme, public.keyval)
        root.add_key(twin, "timestamp")
    root.roles["timestamp"].threshold = 3
    repo.publish("root")
    doc = json.loads(repo.write("timestamp"))
    sig = doc["signatures"][0]["sig"]
    doc["signatures"] += [{"keyid": f"{n}" * 64, "sig": sig} for n in range(4)]
    repo.files["timestamp.json"] = json.dumps(doc).encode()
    assert repo.init() and not repo.refresh() and "signed by 1 of the 3" in repo.reason, repo.reason


@table(**{kind.replace("-", "_"): kind for kind in ["ed25519", "ecdsa", "rsa", "rsa-pkcs1"]})
def kinds_of_keys(repo, kind):
    repo.add_key("root", repo.signer(kind))
    repo.signed["root"].roles["root"].threshold = 2
    repo.publish("root")
    assert repo.init() and repo.refresh() and repo.has()["root"] == 2, repo.reason
    repo.publish("root")
    doc = json.loads(repo.files["3.root.json"])
    other = json.loads(repo.files["2.root.json"])
    for signature, old in zip(doc["signatures"][1:], other["signatures"][1:]):
        signature["sig"] = old["sig"]
    repo.files["3.root.json"] = json.dumps(doc).encode()
    assert not repo.refresh() and repo.has()["root"] == 2


@case
def keys_that_nobody_knows_are_no_reason_to_fail(repo):
    root = repo.signed["root"]
    for role in TOP:
        root.add_key(SSlibKey("0" * 63 + str(TOP.index(role)), "sphincs", "sphincs-shake-128s", {"public": "00"}), role)
        keyless = SSlibKey("a" * 63 + str(TOP.index(role)), "sigstore-oidc", "Fulcio", {"public": ""})
        keyless.keyval = {"identity": "i", "issuer": "j"}
        root.add_key(keyless, role)
    repo.publish("root")
    assert repo.init() and repo.refresh(), repo.reason
    # But they never count.
    root.roles["timestamp"].threshold = 2
    repo.publish("root", "timestamp")
    assert not repo.refresh() and "timestamp_threshold" in repo.reason


@case
def signatures_that_do_not_count_do_no_harm(repo):
    repo.add_key("timestamp")
    repo.publish("root", "timestamp")
    doc = json.loads(repo.files["timestamp.json"])
    for bad in ["", "00", "zz", doc["signatures"][1]["sig"]]:
        doc["signatures"][0]["sig"] = bad
        repo.files["timestamp.json"] = json.dumps(doc).encode()
        assert repo.init() and repo.refresh(), repo.reason
        for file in repo.metadata.iterdir():
            file.unlink()


# --- delegations ---

# delegator>role[paths]! ; what is asked for, in order.
GRAPHS = dict(
    one=("targets>A", "A"),
    two=("targets>A targets>B", "A B"),
    depth_first=("targets>A targets>B A>C A>D", "A C D B"),
    three_levels=("targets>A targets>B A>C C>D", "A C D B"),
    second_branch=("targets>A targets>B B>C", "A B C"),
    terminating_ends_all_but_below=("targets>A targets>B A>C! A>D", "A C"),
    terminating_searches_below=("targets>A targets>B A>C! C>D", "A C D"),
    a_branch_for_another_path=("targets>A[*.py] targets>B A>C", "B"),
    a_leaf_for_another_path=("targets>A targets>B A>C[*.py] C>D", "A B"),
    cycle=("targets>A targets>B B>C C>D D>B", "A B C D"),
    own_cycle=("targets>A A>A targets>B", "A B"),
    diamond=("targets>A targets>B B>C A>C", "A C B"),
    diamond_by_one_path=("targets>A targets>B B>C A>C[*.py]", "A B C"),
)


def build(repo, arrows):
    for arrow in arrows.split():
        delegator, rest = arrow.split(">")
        name, _, path = rest.rstrip("!").partition("[")
        repo.delegate(delegator, name, paths=[path.rstrip("]") or "*"], terminating=rest.endswith("!"))
    roles = [role for role in repo.signed if role not in TOP]
    for role in roles:
        repo.write(role)
    repo.publish("targets", "snapshot", "timestamp")
    return roles


@table(**GRAPHS)
def order_of_the_search(repo, row):
    arrows, order = row
    build(repo, arrows)
    assert repo.init() and not repo.download("missing") and "target_unknown" in repo.reason, repo.reason
    assert repo.asked[4:] == [f"1.{role}.json" for role in order.split()], repo.asked
    assert set(repo.has()) == {*TOP, *order.split()}


TREE = "targets>A[*.md] targets>B[releases/*/*] B>C[releases/x/*] B>D[releases/y/*.zip]"


@table(
    top=("file", ""),
    wildcard=("README.md", "A"),
    folders=("releases/x/x_v1", "B C"),
    folders_and_ending=("releases/y/y_v1.zip", "B D"),
    not_delegated_all_the_way=("releases/z/z_v1.zip", "B -"),
    stars_cross_no_slash=("docs/README.md", "-"),
    case_counts=("readme.MD", "-"),
)
def search_and_download(repo, row):
    path, order = row
    build(repo, TREE)
    for role, name in [("targets", "file"), ("A", "README.md"), ("C", "releases/x/x_v1"), ("D", "releases/y/y_v1.zip"), ("D", "releases/z/z_v1.zip")]:
        repo.add(role, name, f"{name} by {role}".encode())
    repo.add("A", "docs/README.md", b"A may not say this")
    for role in "ABCD":
        repo.publish(role)
    repo.publish("targets", "snapshot", "timestamp")
    found = not order.endswith("-")
    assert repo.init() and repo.download(path) == found, repo.reason
    assert repo.asked[4:] == [f"2.{role}.json" for role in order.replace("-", "").split()], repo.asked
    assert repo.got() == ([repo.targets_files[path]] if found else [])


@case
def hash_prefixes(repo):
    digest = hashlib.sha256(b"a.txt").hexdigest()
    half = "01234567" if digest[0] in "01234567" else "89abcdef"
    rest = "0123456789abcdef".replace(half, "")
    repo.delegate("targets", "this", prefixes=list(half))
    repo.delegate("targets", "other", prefixes=list(rest))
    repo.add("this", "a.txt", b"a")
    repo.add("other", "a.txt", b"not a")
    for role in ["this", "other"]:
        repo.write(role)
    repo.publish("targets", "snapshot", "timestamp")
    assert repo.init() and repo.download("a.txt"), repo.reason
    assert repo.asked[4:] == ["1.this.json"] and repo.got() == [b"a"]


@case
def a_role_is_verified_under_each_delegator(repo):
    """C is good under A and not under B; having it in the folder does not help."""
    build(repo, "targets>A[a] targets>B[b] A>C B>C")
    repo.add("C", "a", b"a"), repo.add("C", "b", b"b")
    stranger = repo.signer()
    delegation = repo.signed["B"].delegations.roles["C"]
    repo.signed["B"].revoke_key(delegation.keyids[0], "C")
    repo.signed["B"].add_key(stranger.public_key, "C")
    repo.publish("A", "B", "C", "targets", "snapshot", "timestamp")
    assert repo.init() and repo.download("a"), repo.reason
    assert not repo.download("b") and "delegated_threshold" in repo.reason and repo.got() == [b"a"]


@table(**{f"name_{i}": name for i, name in enumerate(["?", "#", "/abs", "../up", "a b", "%2e%2e", "Rôle", "CON", "nul.txt", "C:\\x", ".", "..", "a\nb"])})
def names_of_roles(repo, name):
    repo.delegate("targets", name)
    repo.add(name, "x", b"x")
    repo.write(name)
    repo.publish("targets", "snapshot", "timestamp")
    assert repo.init() and repo.download("x"), repo.reason
    assert repo.asked[-1] == f"1.{urllib.parse.quote(name, '')}.json", repo.asked
    assert len(repo.has()) == 5 and repo.got() == [b"x"]
    assert sorted(p.name for p in repo.work.iterdir()) == ["metadata", "root.json", "targets"]
    repo.asked.clear()
    assert repo.download("x") and repo.asked == ["2.root.json", "timestamp.json"], "found again in the folder"


@table(root="root", timestamp="timestamp", snapshot="snapshot", targets="targets")
def names_that_are_taken(repo, name):
    delegations = Delegations({}, {})
    delegations.roles[name + "-"] = DelegatedRole(name + "-", [], 1, False, ["*"])
    repo.signed["targets"].delegations = delegations
    delegations.roles[name + "-"].name = name
    repo.publish("targets", "snapshot", "timestamp")
    assert repo.init() and not repo.download("x") and "delegation_reserved" in repo.reason, repo.reason


# --- targets ---


@case
def a_target_is_fetched_once(repo):
    repo.add("targets", "path/to/a file+.txt", b"content")
    repo.publish("targets", "snapshot", "timestamp")
    assert repo.init() and repo.refresh() and repo.got() == []
    for _ in range(2):
        assert repo.download("path/to/a file+.txt") and repo.got() == [b"content"], repo.reason
    assert len(repo.fetched) == 1 and repo.fetched[0].startswith(f"path/to/{hashlib.sha256(b'content').hexdigest()}.")


@case
def several_targets_refresh_once(repo):
    build(repo, "targets>A[a] targets>B[b]")
    repo.add("A", "a", b"a"), repo.add("B", "b", b"b")
    repo.publish("A", "B", "targets", "snapshot", "timestamp")
    assert repo.init() and repo.download("a", "b"), repo.reason
    assert repo.asked == ["2.root.json", "timestamp.json", "3.snapshot.json", "3.targets.json", "2.A.json", "2.B.json"], repo.asked
    assert repo.got() == [b"a", b"b"]
    assert not repo.download("a", "c") and "target_unknown" in repo.reason


@table(longer=b"content and more", shorter=b"conte", other=b"CONTENT", empty=b"", endless=None)
def a_target_with_other_bytes(repo, data):
    repo.add("targets", "a", b"content")
    repo.publish("targets", "snapshot", "timestamp")
    for name in repo.targets_files:
        repo.targets_files[name] = data if data is not None else itertools.repeat(b"x" * 65536)
    assert repo.init() and not repo.download("a") and "file_" in repo.reason and repo.got() == [], repo.reason


@case
def a_target_that_changes(repo):
    assert repo.init()
    for n in range(4):
        repo.add("targets", "a", f"version {n}".encode())
        repo.publish("targets", "snapshot", "timestamp")
        assert repo.download("a") and repo.got() == [f"version {n}".encode()], repo.reason


@table(sha512=["sha512"], both=["sha256", "sha512"])
def kinds_of_hashes(repo, hashes):
    repo.add("targets", "a", b"content", hashes)
    repo.publish("targets", "snapshot", "timestamp")
    assert repo.init() and repo.download("a") and repo.got() == [b"content"], repo.reason


# --- hostile servers ---


@table(**{role: role for role in TOP})
def a_file_that_never_ends(repo, role):
    assert repo.init()
    if role == "root":
        name = "2.root.json"
    else:
        name = "timestamp.json" if role == "timestamp" else f"1.{role}.json"
    begin = repo.files.get(name, b"{")[:100]
    repo.files[name] = itertools.chain([begin], itertools.repeat(b" " * 65536))
    assert not repo.refresh() and "metadata_too_long" in repo.reason, repo.reason


SHAPES = ["null", "true", "0", "-1", "1.5", "9223372036854775808", "18446744073709551616", '""', '"' + "x" * 9000 + '"', "[]", "{}", "[" * 40 + "]" * 40]


@table(**{role: role for role in TOP})
def metadata_of_every_wrong_shape(repo, role):
    """Properly signed where that is possible: each member of `signed` replaced, or left out."""
    name = {"root": "2.root.json", "timestamp": "timestamp.json"}.get(role, f"1.{role}.json")
    if role == "root":
        repo.publish("root")
    doc = json.loads(repo.files[name])
    signer = repo.signers[role][0]
    for key in doc["signed"]:
        for shape in [None, *SHAPES]:
            bad = dict(doc["signed"])
            del bad[key]
            value = "" if shape is None else json.dumps(bad, sort_keys=True, separators=(",", ":"))
            if shape is not None:
                try:
                    bad[key] = json.loads(shape)
                    message = encode_canonical(bad).encode()
                except Exception:
                    message = value.encode()
            else:
                message = encode_canonical(bad).encode()
            sig = signer.sign(message).signature
            envelope = {"signatures": [{"keyid": signer.public_key.keyid, "sig": sig}], "signed": bad}
            repo.files[name] = json.dumps(envelope, sort_keys=True).encode()
            for file in repo.metadata.iterdir() if repo.metadata.exists() else []:
                file.unlink()
            assert repo.init()
            if repo.refresh():
                # Optional, or not wrong after all.
                fine = {"consistent_snapshot": (None, "null", "true"), "delegations": (None, "null"), "targets": ("{}",), "version": (SHAPES[5],)}
                assert shape in fine.get(key, ()), f"{key}: {shape}"


@case
def wrong_command_lines(repo):
    for words in [[], ["init"], ["refresh"], ["download"], ["--nope", "refresh"], ["refresh", "twice"], ["--metadata-url", "ftp://x", "--metadata-dir", "m", "refresh"]]:
        assert not repo.run(*words), words
    assert repo.init()
    urls = ["--metadata-url", "http://127.0.0.1:1/", "--metadata-dir", str(repo.metadata)]
    assert not repo.run(*urls, "refresh") and "127.0.0.1:1" in repo.reason


@case
def folders_serve_too(repo):
    repo.add("targets", "a/b", b"content")
    repo.publish("targets", "snapshot", "timestamp")
    for tree, files in [("m", repo.files), ("t", repo.targets_files)]:
        for name, data in files.items():
            path = repo.work / "served" / tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    served = f"file://{repo.work}/served"
    urls = ["--metadata-url", f"{served}/m", "--target-base-url", f"{served}/t/", "--target-dir", str(repo.work / "targets")]
    assert repo.init() and repo.run(*urls, "--metadata-dir", str(repo.metadata), "--target-name", "a/b", "download"), repo.reason
    assert repo.got() == [b"content"] and repo.asked == []


def main(program, only):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    passed, failed = 0, 0
    for kind in ["ed25519", "ecdsa"]:
        for name, function in CASES:
            if only and not any(word in name for word in only):
                continue
            with tempfile.TemporaryDirectory() as work:
                try:
                    function(Repo(kind, server, program, work))
                    passed += 1
                    print("passed", kind, name)
                except Exception:
                    failed += 1
                    print("FAILED", kind, name, server.repo.__dict__.get("reason"))
                    traceback.print_exc(file=sys.stdout)
    server.shutdown()
    print(f"{passed} passed, {failed} failed, with tuf {tuf.__version__}")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
