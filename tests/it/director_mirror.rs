//! The mirror against a release tree on a web server, and against what can be wrong with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use vmetric::director::mirror::{Mirror, Renewed, Source};
use vmetric::director::pki::{Names, SiteCa};
use vmetric::director::tree::Tree;
use vmetric::io::clock;
use vmetric::io::serve::{Answer, Limits, Request, Response, Service, serve};
use vmetric::io::tls::Pin;

use crate::director_bench::{agent_file, now};
use crate::release_bench::{Bench, add_line};

/// Any web server: files, nothing else.
struct Files(BTreeMap<String, Vec<u8>>);

impl Service for Files {
    fn body_limit(&self, _: &str, _: &str) -> usize {
        0
    }

    fn call(&self, request: Request) -> Answer {
        let file = request.path.strip_prefix("/vmetric/").and_then(|name| self.0.get(name));
        let response = match file {
            Some(bytes) => Response::of(200, "application/octet-stream", bytes.clone()),
            None => Response::empty(404),
        };
        Box::pin(std::future::ready(response))
    }
}

/// Serves the files for the rest of the test; the URL and the pin.
fn web(files: BTreeMap<String, Vec<u8>>) -> (String, Pin) {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let folder = tempfile::tempdir().unwrap();
        let ca = SiteCa::open_or_create(folder.path(), &Names::default(), clock::unix()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        tell.send((format!("https://{}/vmetric/", listener.local_addr().unwrap()), ca.pin())).unwrap();
        let executor = Rc::new(smol::LocalExecutor::new());
        let service = Rc::new(Files(files));
        let _ = smol::block_on(executor.run(serve(listener, ca.server_config(), service, &executor, Limits::default())));
    });
    told.recv().unwrap()
}

pub fn released() -> Bench {
    let bench = Bench::with_seeds();
    bench.good(&format!("init --repo release --keys keys --now {}", now()));
    add(&bench, "1.0.0");
    publish(&bench);
    bench
}

pub fn add(bench: &Bench, version: &str) {
    bench.write("vmetric-agent", &agent_file(version));
    bench.good(&format!("{} --now {}", add_line(version), now()));
}

pub fn publish(bench: &Bench) {
    bench.good(&format!("sign --repo release --keys keys --now {}", now()));
    bench.good(&format!("publish --repo release --out public --now {}", now()));
}

pub fn mirror(bench: &Bench, source: Source) -> Mirror {
    let root = std::fs::read(bench.path("release/root.json")).unwrap();
    Mirror {
        source,
        folder: bench.path("site/release"),
        trust: bench.path("site/trust"),
        root,
        floor: 0,
        facts: Default::default(),
        allowance: None,
        user_agent: "test",
    }
}

pub fn refreshed(mirror: &Mirror, known: &Tree) -> Renewed {
    mirror.refresh(known, clock::unix()).unwrap()
}

fn names(tree: &Tree) -> Vec<&str> {
    let mut names: Vec<&str> = tree.entries.keys().map(String::as_str).filter(|n| n.starts_with("metadata/")).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_web_server_is_mirrored() {
    let bench = released();
    let (url, pin) = web(bench.files("public"));
    let mirror = mirror(&bench, Source::Url(url.clone(), vec![pin]));
    let first = refreshed(&mirror, &Tree::default());
    assert!(first.changed && first.left_out.is_empty(), "{:?}", first.left_out);
    let expected = ["1.agent-linux-amd64.json", "1.root.json", "1.snapshot.json", "1.targets.json", "timestamp.json"];
    assert_eq!(names(&first.tree), expected.map(|n| format!("metadata/{n}")));
    assert_eq!(first.tree.releases.artifacts.len(), 1);
    let entry = &first.tree.entries["targets/vmetric-agent/1.0.0/linux-amd64/vmetric-agent"];
    assert_eq!(std::fs::read(&entry.file).unwrap(), agent_file("1.0.0"));
    assert!(!refreshed(&mirror, &first.tree).changed, "nothing new");

    let stranger = self::mirror(&bench, Source::Url(url, vec![[7; 32]]));
    let reason = stranger.refresh(&first.tree, clock::unix()).unwrap_err();
    assert!(!reason.code.is_empty() && !reason.detail.is_empty(), "another server's key is refused: {reason}");
}

/// A Director's own bytes are bytes of its day, and what did not come is given back.
#[test]
fn what_the_mirror_fetches_counts_in_the_day() {
    let bench = released();
    let (url, pin) = web(bench.files("public"));
    let site = crate::director_service::Bench::new();
    let one = agent_file("1.0.0").len() as u64;
    let spent = || site.site.registry.borrow().metering.spent.get("director:").map_or(0, |row| row.bytes);
    let limit = |bytes| site.site.registry.borrow_mut().metering.per_day[0] = Some(bytes);
    let (allowance, counting) = vmetric::director::allowance::of(&site.site);
    let mut mirror = mirror(&bench, Source::Url(url, vec![pin]));
    mirror.allowance = Some(allowance);
    let _counts = site.spawn(counting);
    let look = |mirror: &Mirror| {
        let mirror = mirror.clone();
        site.wait(smol::unblock(move || refreshed(&mirror, &Tree::default())))
    };
    limit(one + one / 2);
    // A connection that fails costs nothing.
    let gone = Mirror { source: Source::Folder(bench.path("gone")), ..mirror.clone() };
    let gone = site.wait(smol::unblock(move || gone.refresh(&Tree::default(), clock::unix())));
    assert_eq!((gone.unwrap_err().code.as_ref(), spent()), ("mirror_unreachable", 0));
    assert_eq!((look(&mirror).left_out.len(), spent()), (0, one));
    // The rest of the day is not enough for the same file again: nothing of it is asked for.
    std::fs::remove_dir_all(bench.path("site/release/targets")).unwrap();
    let refused = look(&mirror);
    assert_eq!((refused.left_out[0].code.as_ref(), spent()), ("bytes_per_day", one), "{:?}", refused.left_out);
    limit(2 * one);
    assert_eq!((look(&mirror).left_out.len(), spent()), (0, 2 * one));
}

#[test]
fn what_is_on_the_disk_serves_without_the_source() {
    let bench = released();
    let mirror = mirror(&bench, Source::Folder(bench.path("public")));
    let first = refreshed(&mirror, &Tree::default());
    std::fs::remove_dir_all(bench.path("public")).unwrap();
    assert_eq!(mirror.refresh(&first.tree, clock::unix()).unwrap_err().code, "mirror_unreachable");
    let found = mirror.from_disk().unwrap();
    assert_eq!(names(&found.tree), names(&first.tree));
    assert_eq!(found.tree.releases.artifacts.len(), 1);

    // What somebody changed on the disk is not served.
    let file: PathBuf = first.tree.entries["targets/vmetric-agent/1.0.0/linux-amd64/vmetric-agent"].file.clone();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::File::create(&file).and_then(|mut f| std::io::Write::write_all(&mut f, &bytes)).unwrap();
    let found = mirror.from_disk().unwrap();
    assert!(found.tree.releases.artifacts.is_empty());
    let found = mirror.from_disk().unwrap();
    assert!(!found.tree.entries.keys().any(|n| n.starts_with("targets/")));
}

#[test]
fn an_older_tree_is_refused_and_a_withdrawn_file_leaves() {
    let bench = released();
    let old = bench.files("public");
    let mirror = mirror(&bench, Source::Folder(bench.path("public")));
    add(&bench, "2.0.0");
    publish(&bench);
    let tree = refreshed(&mirror, &Tree::default()).tree;
    assert_eq!(tree.releases.versions("vmetric-agent").len(), 2);

    // A source that goes back in time (attack: rollback).
    let newest = bench.files("public")["metadata/timestamp.json"].clone();
    bench.write("public/metadata/timestamp.json", &old["metadata/timestamp.json"]);
    assert_eq!(mirror.refresh(&tree, clock::unix()).unwrap_err().code, "timestamp_rollback");
    bench.write("public/metadata/timestamp.json", &newest);

    bench.good(&format!("withdraw --repo release vmetric-agent/1.0.0/linux-amd64/vmetric-agent --reason wrong --now {}", now()));
    publish(&bench);
    let gone = tree.entries["targets/vmetric-agent/1.0.0/linux-amd64/vmetric-agent"].file.clone();
    let renewed = refreshed(&mirror, &tree);
    assert_eq!(renewed.tree.releases.versions("vmetric-agent").len(), 1);
    assert!(!gone.exists() && renewed.changed);
    let withdrawn: Vec<(String, &str)> =
        renewed.tree.releases.withdrawn.iter().map(|w| (w.path.version.to_string(), w.reason.as_str())).collect();
    assert_eq!(withdrawn, [("1.0.0".to_string(), "wrong")]);
    let served = names(&renewed.tree);
    assert!(served.contains(&"metadata/2.snapshot.json") && served.contains(&"metadata/3.snapshot.json"), "an agent may be in between");
}

#[test]
fn roots_from_the_first_on_are_kept() {
    let bench = released();
    bench.good(&format!("sign --repo release --keys keys --renew --role root --now {}", now()));
    publish(&bench);
    // This Director begins with the second root; devices of the first one's date ask it too.
    let mut mirror = mirror(&bench, Source::Folder(bench.path("public")));
    mirror.root = bench.files("public")["metadata/2.root.json"].clone();
    let tree = refreshed(&mirror, &Tree::default()).tree;
    assert!(names(&tree).contains(&"metadata/1.root.json") && names(&tree).contains(&"metadata/2.root.json"), "{:?}", names(&tree));
    assert_eq!(tree.versions[0], 2);
}

#[test]
fn a_bundle_is_imported_as_if_it_were_mirrored() {
    let bench = released();
    add(&bench, "2.0.0");
    publish(&bench);
    let mut mirror = mirror(&bench, Source::Nowhere);
    let bundle = |options: &str, name: &str| bench.good(&format!("bundle --tree public --out {name} {options} --now {}", now()));
    bundle("", "all.vmb");
    bundle("--version 1.0.0", "old.vmb");
    assert_eq!(mirror.refresh(&Tree::default(), clock::unix()).unwrap_err().code, "no_source");

    // What a restricted bundle does not hold is no mistake; what another one brought stays.
    let import = |mirror: &Mirror, name: &str, known: &Tree| mirror.import(&bench.path(name), false, known, clock::unix());
    let first = import(&mirror, "old.vmb", &Tree::default()).unwrap();
    assert_eq!((first.absent.len(), first.left_out.len(), first.tree.releases.artifacts.len()), (1, 0, 1));
    let second = import(&mirror, "all.vmb", &first.tree).unwrap();
    assert_eq!((second.absent.len(), second.tree.releases.artifacts.len()), (0, 2));
    let third = import(&mirror, "old.vmb", &second.tree).unwrap();
    assert_eq!((third.absent.len(), third.tree.releases.artifacts.len()), (0, 2));
    let found = mirror.from_disk().unwrap();
    assert_eq!((names(&found.tree), found.tree.releases.artifacts.len()), (names(&third.tree), 2));
    assert!(names(&found.tree).contains(&"metadata/1.root.json"));

    // An older bundle is a rollback, whoever brings it; a spoiled artifact is left out by name and nothing else.
    bench.good(&format!("sign --repo release --keys keys --renew --role timestamp --now {}", now()));
    publish(&bench);
    bundle("", "new.vmb");
    let newest = import(&mirror, "new.vmb", &third.tree).unwrap();
    assert_eq!(import(&mirror, "all.vmb", &newest.tree).unwrap_err().code, "timestamp_rollback");
    let good = std::fs::read(bench.path("new.vmb")).unwrap();
    let mut flipped = good.clone();
    let last = flipped.len() - 2048;
    flipped[last] ^= 1;
    bench.write("flipped.vmb", &flipped);
    (mirror.folder, mirror.trust) = (bench.path("other/release"), bench.path("other/trust"));
    let spoiled = import(&mirror, "flipped.vmb", &Tree::default()).unwrap();
    let said = spoiled.left_out[0].to_string();
    assert!(spoiled.tree.releases.artifacts.len() == 1 && said.contains("file_hash") && said.contains("vmetric-agent/2.0.0"), "{said}");

    // Somebody else's bundle, and every cut of this one: nothing of it is kept.
    let stranger = Bench::new();
    stranger.good(&format!("init --repo release --keys keys --now {}", now()));
    mirror.root = std::fs::read(stranger.path("release/root.json")).unwrap();
    (mirror.folder, mirror.trust) = (bench.path("third/release"), bench.path("third/trust"));
    assert_eq!(import(&mirror, "new.vmb", &Tree::default()).unwrap_err().code, "timestamp_threshold");
    for length in (0..good.len()).step_by(511) {
        bench.write("cut.vmb", &good[..length]);
        let reason = import(&mirror, "cut.vmb", &Tree::default()).unwrap_err();
        assert!(reason.code.starts_with("bundle_") && reason.detail.contains("cut.vmb"), "{length}: {reason}");
    }
    assert!(!bench.path("third/release/metadata/timestamp.json").exists());
}

/// A server that knows every file, and breaks artifacts off after so many bytes.
struct Brittle {
    files: BTreeMap<String, Vec<u8>>,
    after: usize,
    /// It knows `Range`.
    ranges: bool,
    /// From where artifacts were asked for.
    asked: Mutex<Vec<usize>>,
}

impl Brittle {
    fn start(files: BTreeMap<String, Vec<u8>>, ranges: bool) -> (Arc<Brittle>, String, Pin) {
        let server = Arc::new(Brittle { files, after: BREAKS, ranges, asked: Mutex::default() });
        let (own, (tell, told)) = (server.clone(), channel());
        std::thread::spawn(move || {
            let folder = tempfile::tempdir().unwrap();
            let ca = SiteCa::open_or_create(folder.path(), &Names::default(), clock::unix()).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            tell.send((format!("https://{}", listener.local_addr().unwrap()), ca.pin())).unwrap();
            for stream in listener.incoming().map(Result::unwrap) {
                let tls = rustls::StreamOwned::new(rustls::ServerConnection::new(ca.server_config()).unwrap(), stream);
                let _ = own.answer(tls);
            }
        });
        let (url, pin) = told.recv().unwrap();
        (server, url, pin)
    }

    /// One request of one connection.
    fn answer(&self, tls: rustls::StreamOwned<rustls::ServerConnection, TcpStream>) -> std::io::Result<()> {
        let mut reader = BufReader::new(tls);
        let (mut path, mut from) = (String::new(), None);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("get /") {
                path = rest.split(' ').next().unwrap_or_default().to_string();
            }
            if let Some(rest) = line.strip_prefix("range: bytes=") {
                from = rest.trim_end_matches('-').parse::<usize>().ok();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut tls = reader.into_inner();
        let Some(bytes) = self.files.get(&path) else {
            return write!(tls, "HTTP/1.1 404 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        };
        let artifact = path.starts_with("targets/");
        if artifact {
            self.asked.lock().unwrap().push(from.unwrap_or(0));
        }
        let start = from.filter(|_| self.ranges).unwrap_or(0);
        let (status, range) = match start {
            0 => ("200 OK", String::new()),
            _ => ("206 Partial Content", format!("content-range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len())),
        };
        let rest = &bytes[start..];
        write!(tls, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{range}connection: close\r\n\r\n", rest.len())?;
        tls.write_all(if artifact { &rest[..rest.len().min(self.after)] } else { rest })?;
        tls.conn.send_close_notify();
        tls.flush()
    }
}

/// Where the brittle server breaks off, and the length of what it serves: the rest takes two more tries.
const BREAKS: usize = 300_000;
const WHOLE: usize = 2 * BREAKS + 1;

fn large(bench: &Bench) -> Vec<u8> {
    let bytes: Vec<u8> = (0..WHOLE).map(|n| (n % 251) as u8).collect();
    bench.write("vmetric-agent", &bytes);
    bench.good(&format!("{} --now {}", add_line("3.0.0"), now()));
    publish(bench);
    bytes
}

const LARGE: &str = "targets/vmetric-agent/3.0.0/linux-amd64/vmetric-agent";

/// The part that an artifact grows in.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("targets/vmetric-agent/3.0.0/linux-amd64")).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "part")).collect()
}

#[test]
fn an_artifact_that_broke_off_goes_on_where_it_ended() {
    let bench = Bench::with_seeds();
    bench.good(&format!("init --repo release --keys keys --now {}", now()));
    let bytes = large(&bench);
    let (server, url, pin) = Brittle::start(bench.files("public"), true);
    let mirror = mirror(&bench, Source::Url(url, vec![pin]));
    let mut tree = Tree::default();
    for (round, begins) in [(1, 0), (2, BREAKS), (3, 2 * BREAKS)] {
        let renewed = refreshed(&mirror, &tree);
        let asked = server.asked.lock().unwrap().clone();
        assert_eq!(asked.iter().copied().max(), Some(begins), "round {round}: {asked:?}");
        assert_eq!(renewed.tree.entries.contains_key(LARGE), round == 3, "{:?}", renewed.left_out);
        assert!(round == 3 || renewed.left_out[0].detail.contains(".part"), "{:?}", renewed.left_out);
        tree = renewed.tree;
    }
    assert_eq!(std::fs::read(&tree.entries[LARGE].file).unwrap(), bytes);
    assert!(parts(&mirror.folder).is_empty());
}

#[test]
fn what_a_part_was_made_of_is_checked_whole() {
    let bench = Bench::with_seeds();
    bench.good(&format!("init --repo release --keys keys --now {}", now()));
    let bytes = large(&bench);
    let (server, url, pin) = Brittle::start(bench.files("public"), true);
    let mirror = mirror(&bench, Source::Url(url, vec![pin]));
    let tree = refreshed(&mirror, &Tree::default()).tree;
    let part = parts(&mirror.folder).remove(0);
    let mut there = std::fs::read(&part).unwrap();
    assert_eq!(there, bytes[..BREAKS]);
    // Somebody's byte in it, or a disk's: the rest comes, the whole is refused, and it begins anew.
    there[7] ^= 1;
    std::fs::File::create(&part).and_then(|mut f| f.write_all(&there)).unwrap();
    refreshed(&mirror, &tree);
    let third = refreshed(&mirror, &tree);
    assert!(!third.tree.entries.contains_key(LARGE) && parts(&mirror.folder).is_empty(), "{:?}", third.left_out);
    let rounds = (0..4).find(|_| refreshed(&mirror, &tree).tree.entries.contains_key(LARGE));
    assert_eq!(rounds, Some(2), "from the beginning: {:?}", server.asked.lock().unwrap());
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let bench = Bench::with_seeds();
    bench.good(&format!("init --repo release --keys keys --now {}", now()));
    let bytes = large(&bench);
    let (_server, url, pin) = Brittle::start(bench.files("public"), false);
    let mirror = mirror(&bench, Source::Url(url, vec![pin]));
    let tree = refreshed(&mirror, &Tree::default()).tree;
    assert_eq!(std::fs::metadata(parts(&mirror.folder).remove(0)).unwrap().len(), BREAKS as u64);
    refreshed(&mirror, &tree);
    assert_eq!(std::fs::metadata(parts(&mirror.folder).remove(0)).unwrap().len(), BREAKS as u64, "never two beginnings in one file");
    // A medium that has it all goes on with what is there.
    let brought = mirror.import(&bench.path("public"), false, &tree, clock::unix()).unwrap();
    assert_eq!(std::fs::read(&brought.tree.entries[LARGE].file).unwrap(), bytes);
}
