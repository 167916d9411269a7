//! The install texts of the device wizard, run by `/bin/sh` where every program that they call is one of this test: what is
//! done in which order, what stops it, and what reaches the agent's `enroll`. macOS' own programs are played here as well.

#![allow(clippy::disallowed_methods, reason = "tests read and run files")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use vmetric::core::hex;
use vmetric::fleet::templates::TemplatesView;
use vmetric::wire::fleet_api::InstallWire;

use crate::access::form;
use crate::director_bench::{Site, now};
use crate::gui::{csrf, get, row, tell_with, world};
use crate::install::said;

/// Serves three files, says which one was asked for and how, and what it was told on its standard input.
const CURL: &str = r#"#!/bin/sh
all="$*" out= config= url=
while [ $# -gt 0 ]; do
    case $1 in
        -o) out=$2; shift ;;
        -K) config=$2; shift ;;
        --cacert) [ -s "$2" ] || { echo "no CA" >&2; exit 77; }; shift ;;
        --proto | --connect-timeout | --max-time | --max-filesize | -w) shift ;;
        https://*) url=$1 ;;
        -sS | --insecure) ;;
        *) echo "curl: $1?" >&2; exit 2 ;;
    esac
    shift
done
echo "curl $all" >> "$LOG"
[ -z "$config" ] || echo "config $(cat)" >> "$LOG"
case $url in
    */dl/cert.pem) name=cert.pem ;;
    */release/metadata/7.root.json) name=root.json ;;
    */dl/agent/*) name=agent ;;
    *) printf 404; exit 0 ;;
esac
cp "$SERVED/$name" "$out"
printf 200
"#;

/// The agent: says how it was called.
const AGENT: &str = "#!/bin/sh\necho \"agent $0 $* token=${VMETRIC_TOKEN-}\" >> \"$LOG\"\nif [ -n \"${REFUSED-}\" ]; then echo token_used_up >&2; exit 1; fi\n";

/// A folder with a `PATH` of its own, what is served, and a log.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(mac: bool) -> Stage {
        let stage = Stage { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(stage.path("bin")).unwrap();
        fs::create_dir(stage.path("served")).unwrap();
        let find = |name: &str| std::env::var("PATH").unwrap().split(':').map(|f| Path::new(f).join(name)).find(|p| p.exists());
        let gnu = find("sha256sum").expect("sha256sum").display().to_string();
        let missing = |name: &str| format!("#!/bin/sh\necho {name} is not there >&2\nexit 127\n");
        let logs = |name: &str| format!("#!/bin/sh\necho \"{name} $*\" >> \"$LOG\"\n");
        // Each system has one of the two; Perl's, which macOS has, is the real one where it is installed.
        let perl = match find("shasum") {
            Some(real) => format!("exec {} \"$@\"\n", real.display()),
            None => format!("[ \"$1 $2\" = '-a 256' ] || exit 2\nshift 2\nexec {gnu} \"$@\"\n"),
        };
        let (gnu, perl) = match mac {
            true => (missing("sha256sum"), logs("shasum") + &perl),
            false => (format!("{}exec {gnu} \"$@\"\n", logs("sha256sum")), missing("shasum")),
        };
        let own = ["sudo", "launchctl", "install"].map(|name| (name, logs(name)));
        let all = [("curl", CURL.to_string()), ("sha256sum", gnu), ("shasum", perl), ("vmetric-agent", AGENT.to_string())];
        for (name, text) in all.into_iter().chain(own) {
            crate::write_program(&stage.path("bin").join(name), text.as_bytes());
        }
        for (name, text) in served() {
            stage.serve(name, &text);
        }
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serve(&self, name: &str, text: &str) {
        crate::write_program(&self.path("served").join(name), text.as_bytes());
    }

    /// As a person does who pastes the text into a root shell.
    fn paste(&self, text: &str, more: &[(&str, &str)]) -> (Output, Vec<String>) {
        let log = self.path("log");
        let _ = fs::remove_file(&log);
        crate::write_program(&self.path("pasted"), text.as_bytes());
        let mut sh = Command::new("/bin/sh");
        sh.arg(self.path("pasted")).current_dir(self.folder.path()).stdin(Stdio::null()).envs(more.iter().copied());
        sh.env("PATH", format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap()));
        sh.env("VMETRIC_DIR", self.path("image")).env("VMETRIC_STATE", self.path("state"));
        let out = sh.env("LOG", &log).env("SERVED", self.path("served")).output().unwrap();
        let lines = fs::read_to_string(&log).unwrap_or_default();
        (out, lines.lines().map(str::to_string).collect())
    }

    /// Names in the image folder.
    fn image(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("image")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn pin() -> String {
    format!("sha256:{}", "ab".repeat(32))
}

/// What a device is given, by name.
fn served() -> [(&'static str, String); 3] {
    let certificates = format!("vmetric site CA pin {}\n-----BEGIN CERTIFICATE-----\n", pin());
    [("cert.pem", certificates), ("root.json", "{\"root\":7}".into()), ("agent", AGENT.into())]
}

/// The texts of a page's last step, by their ids.
fn shown(body: &str, id: &str) -> String {
    let (_, rest) = body.split_once(&format!("<pre id=\"{id}\"")).unwrap_or_else(|| panic!("{id}: {body}"));
    let text = rest.split_once('>').unwrap().1.split_once("</pre>").unwrap().0;
    let signs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    let text = signs.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to));
    assert!(!text.contains("&#"), "{text}");
    text
}

/// A Fleet whose mirror has the agent for both systems, and whose Director told where it is.
fn furnished() -> (Site, String, String) {
    let (mut site, session, director) = world();
    let sum = |name: &str| hex::encode(&hex::sha256(served().iter().find(|(n, _)| *n == name).unwrap().1.as_bytes()));
    let install = InstallWire {
        url: "https://site.test:8443".into(),
        pin: pin(),
        certificates_sha256: sum("cert.pem"),
        root_version: 7,
        root_sha256: sum("root.json"),
    };
    tell_with(&director, [row(0, "edge")].into_iter(), Some(&install));
    site.add_of("vmetric-agent", "2.0.0", AGENT.as_bytes());
    site.bench.set("VMETRIC_KEY_AGENT_DARWIN_ARM64", &crate::release_bench::seed(40, 0));
    let line = crate::release_bench::add_line("2.0.0").replace("linux", "darwin").replace("amd64", "arm64");
    site.bench.good(&format!("{line} --now {}", now()));
    site.publish();
    site.good("mirror");
    (site, session, director.report.agent_id.clone())
}

/// The last step of Devices > ... > Create.
fn created(site: &Site, session: &str, director: &str, os: &str) -> String {
    let cookie = format!("cookie: __Host-session={session}\r\n");
    let token = csrf(&get(site, session, "/devices/linux/new"));
    let fields = format!("csrf={token}&step=1&go=next&name=kiosk-{os}&director={director}&ttl=3600&mode=manual");
    let heard = form(site, &format!("/devices/{os}/new"), &cookie, &fields);
    assert_eq!(heard.status, 200, "{}", heard.body);
    heard.body
}

fn token_of(text: &str) -> String {
    let rest = text.split_once("'vmt_").unwrap().1;
    format!("vmt_{}", rest.split_once('\'').unwrap().0)
}

/// The text of one system, from its first call to its last.
fn runs_in_order(text: &str, os: &str, arch: &str) {
    let (stage, token) = (Stage::new(os == "darwin"), token_of(text));
    let (out, log) = stage.paste(text, &[]);
    assert!(out.status.success() && said(&out).contains("installed"), "{os}: {}\n{log:#?}", said(&out));
    let sum = if os == "darwin" { "shasum -a 256 -c -" } else { "sha256sum -c -" };
    let agent = stage.path("image/vmetric-agent").display().to_string();
    let state = stage.path("state").display().to_string();
    let enrolls = format!("agent {agent} enroll --director https://site.test:8443 --pin {} --state {state} token={token}", pin());
    let secret = format!("config header = \"Authorization: Bearer {token}\"");
    let wanted = [
        "curl --insecure https://site.test:8443/dl/cert.pem",
        sum,
        "curl --cacert https://site.test:8443/release/metadata/7.root.json",
        sum,
        &format!("curl --cacert https://site.test:8443/dl/agent/{os}/{arch}?version=2.0.0"),
        &secret,
        sum,
        &enrolls,
    ];
    let short = |line: &String| match line.strip_prefix("curl ") {
        Some(rest) => {
            assert!(!rest.contains("vmt_") && rest.contains("--proto =https"), "the token is no argument: {rest}");
            let trust = if rest.contains("--insecure") { "--insecure" } else { "--cacert" };
            format!("curl {trust} {}", rest.split(' ').find(|word| word.starts_with("https://")).unwrap())
        }
        None => line.clone(),
    };
    assert_eq!(log.iter().map(short).collect::<Vec<_>>(), wanted, "{os}");
    assert_eq!(stage.image(), ["root.json", "vmetric-agent"]);
    assert!(said(&out).contains(&format!("as a service: {agent} -service install --now --state {state}")), "{}", said(&out));
}

/// Whichever file differs: it ends there, nothing is left, and nobody who is not verified is told the token.
fn stops_at_what_differs(text: &str, mac: bool) {
    for (at, name) in ["cert.pem", "root.json", "agent"].into_iter().enumerate() {
        let stage = Stage::new(mac);
        stage.serve(name, &format!("{}\n# and more\n", served()[at].1));
        let (out, log) = stage.paste(text, &[]);
        let why = said(&out);
        assert!(!out.status.success() && why.contains("SHA-256 differs") && why.contains("nothing was installed"), "{name}: {why}");
        let calls = log.iter().filter(|line| line.starts_with("curl ")).count();
        assert_eq!((calls, stage.image(), stage.path("state").exists()), (at + 1, Vec::new(), false), "{name}: {log:#?}");
        assert!(
            !log.iter().any(|line| line.starts_with("agent ")) && log.iter().any(|line| line.contains("vmt_")) == (at == 2),
            "{log:#?}"
        );
    }
    // An agent that is refused is said to be none.
    let stage = Stage::new(mac);
    let (out, log) = stage.paste(text, &[("REFUSED", "1")]);
    assert!(!out.status.success() && !said(&out).contains("as a service") && said(&out).contains("token_used_up"), "{}", said(&out));
    assert_eq!(log.iter().filter(|line| line.starts_with("agent ")).count(), 1);
}

#[test]
fn the_wizards_texts_do_what_they_say_in_their_order() {
    let (site, session, director) = furnished();
    let view: TemplatesView = site.json(&format!("template create many --director {director} --uses 9 --json"));
    let printed = view.commands.unwrap();
    let line = site.good("template renew many");
    for (os, word, arch) in [("linux", "linux", "amd64"), ("darwin", "macos", "arm64")] {
        let page = created(&site, &session, &director, word);
        let text = shown(&page, "install");
        // The answer to the form keeps one part current, from the template's own page.
        let live = page.split_once("data-stream=\"").unwrap().1.split_once('"').unwrap().0;
        let part = "<!--live:enrolled-->";
        assert!(live.starts_with("/devices/templates/t-") && page.contains(part), "{live}");
        assert!(get(&site, &session, live).body.contains(part));
        // The page and the command line say the same.
        let other = &printed.iter().find(|c| c.os == os && c.arch == arch).unwrap().command;
        assert_eq!(text.replace(&token_of(&text), "T").trim_end(), other.replace(&token_of(other), "T").trim_end());
        assert!(line.contains(&format!("/dl/agent/{os}/{arch}?version=2.0.0")), "{line}");
        runs_in_order(&text, os, arch);
        stops_at_what_differs(&text, os == "darwin");

        // By hand: the agent is there already, and only enrolls.
        let enroll = shown(&page, "enroll");
        assert_eq!(token_of(&enroll), token_of(&text));
        let stage = Stage::new(os == "darwin");
        let bin = stage.path("bin").display().to_string();
        let (out, log) = stage.paste(&enroll.replace("/opt/vmetric-agent", &bin), &[]);
        assert!(out.status.success(), "{}", said(&out));
        let wanted = format!("enroll --director https://site.test:8443 --pin {} token={}", pin(), token_of(&text));
        assert_eq!(log, [format!("agent {bin}/vmetric-agent {wanted}")]);
        if os == "darwin" {
            // The service is set up by the agent itself: the text asks no launchd.
            let (_, log) = stage.paste(&shown(&page, "service"), &[]);
            assert_eq!(log, ["sudo /opt/vmetric-agent/vmetric-agent -service install --now"]);
        }
    }
}
