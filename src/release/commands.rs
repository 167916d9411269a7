//! The table of commands: what `--help` says and the parser accepts.

use super::args::{Command, Opt, flag, many, opt};

const REPO: Opt = opt("repo", "DIR", "the repository folder");
const KEYS: Opt = opt("keys", "DIR", "the folder of encrypted private keys");
const PASSPHRASE: Opt = opt("passphrase-file", "FILE", "file that holds the passphrase (else $VMETRIC_RELEASE_PASSPHRASE, else asked)");
const JSON: Opt = flag("json", "answer in JSON");
const NOW: Opt = opt("now", "TIME", "the time to work at, such as 2026-11-22T00:00:00Z (reproducible output; default: the clock)");
const HELP: Opt = flag("help", "this text");

/// Every command, in the order of their use.
pub static COMMANDS: [Command; 16] =
    [INIT, DELEGATE, PACKAGE, ADD, INSPECT, WITHDRAW, SIGN, RENEW, PUBLISH, VERIFY, BUNDLE, STATUS, LIST, KEYS_COMMAND, ROTATE, TUF];

const INIT: Command = Command {
    name: "init",
    summary: "Make keys, root version 1 and an empty repository",
    operands: "",
    options: &[
        REPO,
        KEYS,
        PASSPHRASE,
        opt("root-keys", "N", "keys of root (5)"),
        opt("root-threshold", "N", "how many of them have to sign (3)"),
        opt("targets-keys", "N", "keys of targets (3)"),
        opt("targets-threshold", "N", "how many of them have to sign (2)"),
        opt("delegated-keys", "N", "keys of each product and platform role (1)"),
        opt("delegated-threshold", "N", "how many of them have to sign (1)"),
        opt("build-keys", "N", "keys that sign binaries, each alone (1)"),
        opt("root-days", "N", "validity of root (365)"),
        opt("targets-days", "N", "validity of targets (365)"),
        opt("delegated-days", "N", "validity of product and platform roles (365)"),
        opt("snapshot-days", "N", "validity of the snapshot (180)"),
        opt("timestamp-days", "N", "validity of the timestamp (7)"),
        NOW,
        JSON,
        HELP,
    ],
    more: "\
Keys whose seed is in the environment are used, all others are made and encrypted (argon2id, XChaCha20-Poly1305).
Move the root and targets keys to separate offline places afterwards; 'sign' works with those that are there.

  vmetric-release init --repo release --keys keys

Private keys come from the key folder or, in CI, from VMETRIC_KEY_<ROLE> (see 'sign --help').",
};

const DELEGATE: Command = Command {
    name: "delegate",
    summary: "Make the roles of a product's platforms ahead of 'add'",
    operands: "",
    options: &[
        REPO,
        KEYS,
        PASSPHRASE,
        opt("product", "NAME", "such as vmetric-agent"),
        many("platform", "OS-ARCH", "such as linux-amd64"),
        NOW,
        JSON,
        HELP,
    ],
    more: "\
'add' makes missing roles itself; with this command the offline targets keys sign once for all platforms.

  vmetric-release delegate --repo release --keys keys --product vmetric-agent --platform linux-amd64 --platform linux-arm64",
};

const PACKAGE: Command = Command {
    name: "package",
    summary: "Pack a folder of resources into an archive, the same bytes each time",
    operands: "DIR",
    options: &[opt("out", "FILE", "package.tar.zst or package.tar.gz"), JSON, HELP],
    more: "\
Sorted, without dates and owners. Refused is what a Director would refuse to unpack: links and devices, names that are not one file
on every system (ASCII; no Windows device, no second name in another case), more than 20,000 files or 1 GiB.
Archives of other tools are taken by 'add' as well, if they are plain: tar --format=ustar, one stream of zstd (up to -19) or gzip.

  vmetric-release package resources --out dist/2.5.0/linux-amd64/package.tar.zst",
};

const ADD: Command = Command {
    name: "add",
    summary: "Add an artifact, or a folder of them, and sign it with the build key",
    operands: "FILE|DIR",
    options: &[
        REPO,
        KEYS,
        PASSPHRASE,
        opt("product", "NAME", "such as vmetric-agent (for a DIR: the file name up to its first dot)"),
        opt("version", "VERSION", "such as 2.5.0 (FILE only)"),
        opt("os", "OS", "linux, windows, darwin (FILE only)"),
        opt("arch", "ARCH", "amd64, arm64, armv7 (FILE only)"),
        opt("min-version", "VERSION", "lowest version that may be running when this one is installed"),
        opt("counter", "N", "security counter; never falls (default: the role's highest)"),
        flag("reinstate", "list bytes again that were withdrawn"),
        flag("allow-dynamic", "take an agent that needs a C library of its devices"),
        opt("unchecked", "WHY", "take what is not the program that its path names"),
        opt("notes", "FILE", "release notes: plain text, UTF-8, at most 4 KiB; again with another text replaces it"),
        NOW,
        JSON,
        HELP,
    ],
    more: "\
A DIR has the form <version>/<os>-<arch>/<file>, as cross/build leaves it. Either every file is added or none. Where there
is a <version>/SHA256SUMS, every file has to be in it, and as it says.
The programs vmetric-agent, vmetric-director and vmetric-fleet are looked at first ('inspect' shows the same): whole, for that os and arch, signed
where macOS wants it, of the product and version that they are published as; an agent is static, or --allow-dynamic.
package.tar.zst or package.tar.gz beside vmetric-director is its resources: looked through whole, and signed with what it unpacks to.

  vmetric-release add --repo release --keys keys --product vmetric-agent --version 2.5.0 --os linux --arch amd64 vmetric-agent
  vmetric-release add --repo release --keys keys dist",
};

const INSPECT: Command = Command {
    name: "inspect",
    summary: "Show what a program file says of itself: platform, linkage, product, version",
    operands: "FILE",
    options: &[JSON, HELP],
    more: "\
Nothing is executed. Refused are files that are no program, or shorter than they say.

  vmetric-release inspect dist/2.5.0/linux-arm64/vmetric-agent",
};

const WITHDRAW: Command = Command {
    name: "withdraw",
    summary: "Take a release back, with the reason that devices and operators are told",
    operands: "VERSION|PATH...",
    options: &[
        REPO,
        opt("reason", "TEXT", "one line, signed and published"),
        opt("product", "NAME", "only of this product"),
        opt("os", "OS", "only for this system"),
        opt("arch", "ARCH", "only for this architecture"),
        flag("forget", "take the notes of earlier withdrawals out of the metadata, to make room"),
        NOW,
        JSON,
        HELP,
    ],
    more: "\
After 'sign' and 'publish' nobody installs it any more: 'latest' passes it by, Directors cancel its orders with the reason,
devices drop staged copies at their next look. Who runs it keeps running and is reported ('vmetric-director agents'). Its
bytes are not added again, under whatever version, unless 'add --reinstate' says so; its path is never used for other bytes.

  vmetric-release withdraw --repo release 2.5.0 --reason 'fills the disk'
  vmetric-release withdraw --repo release vmetric-agent/2.5.0/linux-amd64/vmetric-agent --reason 'fills the disk'",
};

const SIGN: Command = Command {
    name: "sign",
    summary: "Add the signatures of the keys at hand, and say which are missing",
    operands: "",
    options: &[
        REPO,
        KEYS,
        PASSPHRASE,
        many("role", "ROLE", "only this role"),
        flag("renew", "give the roles a new version and a fresh expiry first (needs --role)"),
        opt("file", "FILE", "sign this pending file, without a repository (see below)"),
        many("import", "FILE|DIR", "take signatures that were given elsewhere: pending files, or another copy of the repository"),
        NOW,
        JSON,
        HELP,
    ],
    more: SIGN_MORE,
};

const SIGN_MORE: &str = "\
Signing adds to what is there. Snapshot and timestamp are made once the roles before them are complete.

Several signers, each on his own machine, one after the other or at the same time:
  1. copy <repo>/draft/<role>.json to each of them ('status' says which roles and whose keys are missing)
  2. each:  vmetric-release sign --file targets.json --keys HIS-KEYS
     It shows what is signed and its SHA-256: compare it with the others before the file goes back.
  3. here:  vmetric-release sign --repo release --import from-a/targets.json --import from-b/targets.json
Only signatures are taken, and only of this very content. 'publish' refuses until the thresholds are met and names who is
missing. Whole copies of the repository come together in the same way: --import OTHER-REPO.

Private keys come from the key folder (one encrypted file per key) or, in CI, from the environment: VMETRIC_KEY_<ROLE>
holds the 32-byte seed as 64 lower-case hex digits (several separated by commas), for example VMETRIC_KEY_TIMESTAMP,
VMETRIC_KEY_AGENT_LINUX_AMD64, VMETRIC_KEY_BUILD. No secret is ever an argument.";

const RENEW: Command = Command {
    name: "renew",
    summary: "Renew what runs out: for a daily job",
    operands: "",
    options: &[
        REPO,
        KEYS,
        PASSPHRASE,
        opt("out", "DIR", "publish the result there, too"),
        flag("dry-run", "change nothing, say what would be done"),
        NOW,
        JSON,
        HELP,
    ],
    more: "\
Gives the timestamp a new version, and every other role of whose validity less than a third is left, if enough of its keys
are at hand. Where they are not, it says which role, which keys, and until when, and ends with 3. So a daily job needs the
timestamp's key only, and mails its output when it does not end with 0:

  vmetric-release renew --repo release --out public

Exit codes: 0 nothing more is due, 3 renewed what it could and somebody must sign, 1 failed.",
};

const PUBLISH: Command = Command {
    name: "publish",
    summary: "Write the static tree that any web server can carry",
    operands: "",
    options: &[
        REPO,
        opt("out", "DIR", "the tree's folder"),
        flag("allow-gap", "publish a root under which devices refuse the tree until this command ends (stolen keys)"),
        NOW,
        JSON,
        HELP,
    ],
    more: "\
Files never change once written, except metadata/timestamp.json, which is replaced last, after the whole tree was checked
as a device would. An interrupted publish leaves a valid tree; run it again to complete it. No key is needed.

  vmetric-release publish --repo release --out public",
};

const VERIFY: Command = Command {
    name: "verify",
    summary: "Check a published tree or a bundle exactly as a device does, every file included",
    operands: "",
    options: &[
        opt("tree", "DIR", "the tree's folder"),
        opt("bundle", "FILE", "or a bundle"),
        opt("root", "FILE", "the root that is trusted"),
        NOW,
        JSON,
        HELP,
    ],
    more: "\
  vmetric-release verify --tree public --root release/root.json
  vmetric-release verify --bundle site.vmb --root release/root.json",
};

const BUNDLE: Command = Command {
    name: "bundle",
    summary: "Put a published tree into one file, for sites without a link",
    operands: "",
    options: &[
        opt("tree", "DIR", "the tree's folder"),
        opt("out", "FILE", "the bundle"),
        many("product", "NAME", "only this product's files"),
        many("version", "VERSION", "only this version, or 'latest'"),
        many("os", "OS", "only for this system"),
        many("arch", "ARCH", "only for this architecture"),
        NOW,
        JSON,
        HELP,
    ],
    more: "\
A bundle holds all metadata, every root included, and the selected files. It needs no key and adds no trust: whoever reads it
checks everything as if it came from a mirror. It is a plain tar file: unpacked it is a published tree. Same tree, same bytes.

  vmetric-release bundle --tree public --out site.vmb --version latest --os linux
  vmetric-director mirror --file site.vmb          a Director without a link serves it from now on
  vmetric-agent update --file site.vmb             a device on its own

The timestamp in it is valid for some days only: make it anew before each journey. What expired on its way is taken by
'vmetric-director mirror --file FILE --accept-expired', and by devices that were enrolled with --offline-site DAYS.",
};

const STATUS: Command = Command {
    name: "status",
    summary: "Show every role's version, expiry and missing signatures",
    operands: "",
    options: &[REPO, NOW, JSON, HELP],
    more: "  vmetric-release status --repo release",
};

const LIST: Command = Command {
    name: "list",
    summary: "Show every artifact",
    operands: "",
    options: &[REPO, JSON, HELP],
    more: "  vmetric-release list --repo release",
};

const KEYS_COMMAND: Command = Command {
    name: "keys",
    summary: "Show every key: role, id, where its private half is",
    operands: "",
    options: &[REPO, KEYS, JSON, HELP],
    more: "Needs no passphrase.\n\n  vmetric-release keys --repo release --keys keys",
};

const ROTATE: Command = Command {
    name: "rotate",
    summary: "Change the keys or the threshold of a role",
    operands: "",
    options: &[
        REPO,
        KEYS,
        PASSPHRASE,
        opt("role", "ROLE", "root, targets, snapshot, timestamp, build, or a product and platform role"),
        opt("add", "N", "so many new keys (0)"),
        many("remove", "KEYID", "take this key out"),
        opt("threshold", "N", "how many keys have to sign (as before)"),
        NOW,
        JSON,
        HELP,
    ],
    more: ROTATE_MORE,
};

const TUF: Command = Command {
    name: "tuf",
    summary: "Check and download from any TUF repository, with the verification code of a device",
    operands: "init ROOT | refresh | download",
    options: &[
        opt("metadata-dir", "DIR", "trusted metadata: root.json and the rest, as received"),
        opt("metadata-url", "URL", "http://... or file:///..., where timestamp.json is"),
        many("target-name", "PATH", "what to download"),
        opt("target-dir", "DIR", "where it goes, in one file: its path, percent-quoted"),
        opt("target-base-url", "URL", "http://... or file:///..., where targets are"),
        NOW,
        JSON,
        HELP,
    ],
    more: "\
ECDSA and RSA keys count here as well as Ed25519, and members may come in any order; a device takes Ed25519 and sorted
members. FAKETIME=+SECONDS shifts the clock. Exit code 0 or 1, one line of reason on standard error.

  vmetric-release tuf --metadata-dir trusted init root.json
  vmetric-release tuf --metadata-dir trusted --metadata-url http://127.0.0.1:8000/metadata refresh
  vmetric-release tuf --metadata-dir trusted --metadata-url http://127.0.0.1:8000/metadata --target-name a/b.txt \\
      --target-dir files --target-base-url http://127.0.0.1:8000/targets download",
};

const ROTATE_MORE: &str = "\
A new root (or, for a product and platform role, new targets) is drafted; 'sign' then needs the old and the new holders of
root. Devices of any date walk up root by root, so every root stays published.

A key is replaced without a moment at which devices refuse the tree in three steps, each ended by 'sign' and 'publish':
  1. rotate --role R --add 1
  2. sign --renew --role R        (signed by the new key, too)
  3. rotate --role R --remove OLD (and destroy its private half)
For root the steps are two, as each root is signed by the holders before it and its own: --add, then --remove.

A build key: --add; new files are signed by any build key at hand. --remove signs the listed files again with one that stays;
sign and publish the product roles first ('sign --role agent-linux-amd64 --role snapshot --role timestamp'), then root.
Devices start no slot whose file only a removed key has signed: they fall back to their factory image and are updated anew.
So let a retired key go once nothing signed by it runs any more; a stolen one goes at once, and that is its purpose.

A stolen key:
  any role     rotate --role R --add 1 --remove STOLEN [--threshold N]; sign; sign --renew --role R; publish --allow-gap
  timestamp    as above; a version that the thief raised far ahead is forgotten by devices with the new key
  snapshot     as above, and the same holds
  targets, a product's role    nothing installs without the build key's signature too; as above, then look at what was signed
  build        as above; the thief also needs a targets key to list files
  root         up to one key below the threshold: as above. At the threshold: whoever holds it owns the repository; devices need
               a new image with a new root.

  vmetric-release rotate --repo release --keys keys --role timestamp --add 1";
