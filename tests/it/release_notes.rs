//! Release notes: signed beside what devices read, and shown at Fleet as the text that they are.

use vmetric::director::api_tokens::ApiTokenView;
use vmetric::director::releases::ReleasesView;

use crate::access::{add, ask, log_in};
use crate::director_bench::{Site, agent_file, now};
use crate::fleet::get;
use crate::release_bench::{Bench, add_line};

const TEXT: &str = "Fixes\n\n- a <script>alert(1)</script> & \"quotes\" are text\n- caf\u{e9}\n";

fn published(notes: Option<&str>) -> Bench {
    let bench = Bench::with_seeds();
    bench.published();
    if let Some(text) = notes {
        bench.write("notes.txt", text.as_bytes());
        bench.good(&format!("{} --notes notes.txt", add_line("1.0.0")));
        bench.release();
    }
    bench
}

/// The newest metadata file of a role.
fn newest(bench: &Bench, role: &str) -> Vec<u8> {
    let files = bench.files("public/metadata");
    let number = |name: &String| name.strip_suffix(&format!(".{role}.json"))?.parse::<u64>().ok();
    let newest = files.keys().filter_map(number).max().unwrap_or_else(|| panic!("no {role} in {:?}", files.keys()));
    files[&format!("{newest}.{role}.json")].clone()
}

#[test]
fn a_device_reads_nothing_of_them() {
    let (bare, noted) = (published(None), published(Some(TEXT)));
    assert_eq!(newest(&bare, "agent-linux-amd64"), newest(&noted, "agent-linux-amd64"), "its platform's role is the same");
    let more = newest(&noted, "targets").len() - newest(&bare, "targets").len();
    assert!(more < 512, "one delegation, once for all notes: {more} bytes");
    assert!(!String::from_utf8(newest(&noted, "targets")).unwrap().contains("alert"));
    let verified = noted.good("verify --tree public --root release/root.json");
    assert!(verified.contains("verified: 1 file"), "{verified}");
    println!("release_notes: targets.json has {more} bytes more");
}

#[test]
fn the_same_notes_give_the_same_bytes_and_others_replace_them() {
    let (one, two) = (published(Some(TEXT)), published(Some(TEXT)));
    assert_eq!(one.files("public"), two.files("public"));
    let before = newest(&one, "notes");
    one.good(&format!("{} --notes notes.txt", add_line("1.0.0")));
    one.release();
    assert_eq!(newest(&one, "notes"), before, "added again, it is no new version");
    one.write("notes.txt", b"Corrected\r\n");
    one.good(&format!("{} --notes notes.txt", add_line("1.0.0")));
    let pending = one.good("list --repo release");
    assert!(pending.contains("notes: vmetric-agent/1.0.0: Corrected"), "{pending}");
    one.release();
    let after = String::from_utf8(newest(&one, "notes")).unwrap();
    assert!(after.contains("Corrected") && !after.contains("quotes"), "{after}");
}

#[test]
fn what_is_no_plain_page_is_refused_and_changes_nothing() {
    let bench = published(None);
    let before = bench.files("release/draft");
    for (text, said) in [
        (&b""[..], "it is empty"),
        (b"a\x1b[2J", "control characters"),
        (b"\xff", "no UTF-8"),
        (&[b'a'; 4097], "4097 bytes"),
        ("a\n".repeat(121).as_bytes(), "121 lines"),
        ("x\u{202e}y".as_bytes(), "direction of text"),
    ] {
        bench.write("notes.txt", text);
        let refused = bench.bad(&format!("{} --notes notes.txt", add_line("1.0.0")));
        assert!(refused.contains("notes.txt") && refused.contains(said), "{said}: {refused}");
    }
    assert!(bench.bad(&format!("{} --notes nothing.txt", add_line("1.0.0"))).contains("nothing.txt"));
    assert_eq!(bench.files("release/draft"), before);
}

#[test]
fn fleet_and_director_show_them_as_text() {
    for (site, product) in [(Site::fleet(), "vmetric-director"), (Site::new(), "vmetric-agent")] {
        assert!(site.good("releases --notes 2.0.0").contains("no notes"));
        site.bench.write("notes.txt", TEXT.as_bytes());
        site.bench.write(product, &agent_file("2.0.0"));
        let line = add_line("2.0.0").replace("vmetric-agent", product);
        site.bench.good(&format!("{line} --notes notes.txt --now {}", now()));
        site.publish();
        site.good("mirror");
        for wanted in ["2.0.0", "latest"] {
            let shown = site.good(&format!("releases --notes {wanted}"));
            assert_eq!(shown.lines().next(), Some(format!("{product} 2.0.0").as_str()), "{shown}");
            assert!(shown.contains("- a <script>alert(1)</script> & \"quotes\" are text"), "{shown}");
        }
        let view: ReleasesView = site.json("releases --notes 2.0.0 --json");
        assert_eq!(view.notes.map(|n| (n.len(), n[0].lines.len())), Some((1, 4)));
        assert!(site.json::<ReleasesView>("releases --json").notes.is_none(), "a list is no book");
        assert!(!site.good("status").contains("notes"), "nothing is left out of the mirror");
        if product == "vmetric-agent" {
            continue;
        }
        let token = site.json::<ApiTokenView>("token create --role viewer --json").token;
        let (status, body) = get(&site, "/api/v1/releases?notes=latest", Some(&token));
        assert!(status == 200 && body.contains("\"lines\":[\"Fixes\",\"\""), "{body}");
        add(&site, "vera", "viewer");
        let cookie = format!("cookie: __Host-session={}\r\n", log_in(&site, "vera"));
        for path in ["/updates", "/releases"] {
            let page = ask(&site, "GET", path, &cookie, "").body;
            assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp;") && !page.contains("<script>alert"), "{path}: {page}");
        }
    }
}
