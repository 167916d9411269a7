//! "5.6.7 Perform a pre-order depth-first search": who is asked, in which order, under whose keys.

use vmetric::core::trust::{Goal, Trusted};

use crate::trust_repo::*;

/// One tree of roles: `delegator -> role paths [!]`, one arrow per line in order; `!` = terminating. Roles that list
/// `x` are named apart. Every role is signed by a key with its own name.
fn tree(arrows: &str, lists_x: &[&str]) -> Repo {
    let mut repo = Repo::empty();
    for line in arrows.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut delegation = Delegation::new(words[1], &[words.get(2).copied().unwrap_or("*")]);
        delegation.terminating = words.last() == Some(&"!");
        repo.delegate(words[0], delegation);
    }
    for role in lists_x {
        repo.add(role, "x", role.as_bytes());
    }
    repo.publish();
    repo
}

/// Which delegated roles a search for `x` fetches, and which role's word counts ("" = nobody's).
fn search(repo: &Repo) -> (Vec<String>, String) {
    let done = repo.refresh(repo.bootstrap(), now(), Goal::FindPath("x".into()));
    assert_eq!(done.code(), "");
    let name = |file: &String| file.strip_prefix("1.").unwrap().strip_suffix(".json").unwrap().to_string();
    let fetched = done.asked.iter().skip(4).map(name).collect();
    (fetched, whose(repo, &done.trusted))
}

fn whose(repo: &Repo, trusted: &Trusted) -> String {
    let Ok(found) = trusted.target("x") else { return String::new() };
    repo.targets.keys().find(|role| found.check("x", role.as_bytes()).is_ok()).unwrap().clone()
}

#[test]
fn the_order_of_the_search() {
    let cases: &[(&str, &str, &[&str], &str, &str)] = &[
        ("the top level first", "targets A", &["targets", "A"], "", "targets"),
        ("in order of appearance", "targets A\n targets B", &["A", "B"], "A", "A"),
        ("CVE-2024-47534: depth before breadth", "targets A\n targets B\n A C\n B D", &["C", "B"], "A C", "C"),
        ("back up when a branch has nothing", "targets A\n targets B\n A C\n C E\n B D", &["D"], "A C E B D", "D"),
        ("pre-order: a role before those it delegates to", "targets A\n A C", &["A", "C"], "A", "A"),
        ("nobody", "targets A\n A B", &[], "A B", ""),
        ("CVE-2025-2886: terminating ends the search on its level", "targets A * !\n targets B", &["B"], "A", ""),
        ("terminating still searches below", "targets A * !\n targets B\n A C", &["B", "C"], "A C", "C"),
        ("terminating ends the levels above too", "targets A\n targets B\n A C * !\n A D", &["B", "D"], "A C", ""),
        ("terminating for another path ends nothing", "targets A y !\n targets B", &["B"], "B", "B"),
        ("terminating after siblings keeps those before it", "targets A\n targets B * !\n targets C", &["C"], "A B", ""),
        ("the pattern counts at every link", "targets A y\n A B\n targets C", &["B", "A", "C"], "C", "C"),
        ("a role that lists more than it may speak for", "targets A y", &["A"], "", ""),
        ("a cycle ends", "targets A\n A B\n B A\n B C", &["C"], "A B C", "C"),
        ("a role that delegates to itself", "targets A\n A A\n targets B", &["B"], "A B", "B"),
        ("a diamond is entered once", "targets A\n targets B\n A C\n B C\n B D", &["D"], "A C B D", "D"),
        ("upper case is another path", "targets A X\n targets B", &["A", "B"], "B", "B"),
        ("brackets match nothing", "targets A [x]\n targets B", &["A", "B"], "B", "B"),
    ];
    for (name, arrows, lists, fetched, whose) in cases {
        let (asked, role) = search(&tree(arrows, lists));
        assert_eq!((asked.join(" ").as_str(), role.as_str()), (*fetched, *whose), "{name}");
    }
}

#[test]
fn hash_prefixes_choose_bins() {
    // SHA-256 of "x" begins with 2d71.
    for (prefixes, found) in [(&["2d71"][..], true), (&["00", "2d"], true), (&[""], true), (&["2d70"], false), (&["2D71"], false)] {
        let mut repo = tree("targets A", &["A"]);
        repo.delegations.get_mut("targets").unwrap()[0].hash_prefixes = prefixes.iter().map(|p| p.to_string()).collect();
        repo.publish();
        assert_eq!(search(&repo).1 == "A", found, "{prefixes:?}");
    }
}

/// go-tuf #759, python-tuf #2977: a role that one delegator vouches for says nothing under another one.
#[test]
fn a_cached_role_is_verified_under_each_delegator() {
    let mut repo = tree("targets A a\n targets B x\n A C a\n B C x", &["C"]);
    repo.add("C", "a", b"a");
    // B expects another key for C.
    repo.delegations.get_mut("B").unwrap()[0].keys = Keys::new(&["other"], 1);
    repo.publish();
    let done = repo.refresh(repo.bootstrap(), now(), Goal::FindPath("a".into()));
    assert_eq!(done.code(), "");
    assert!(done.trusted.target("a").is_ok());
    let done = repo.refresh(done.trusted, now(), Goal::FindPath("x".into()));
    assert_eq!(done.code(), "delegated_threshold");
    assert_eq!(code(done.trusted.target("x")), "delegated_threshold");
    assert!(done.trusted.target("a").is_ok(), "A's word still holds");
    // Signed for both, it counts for both; nothing is fetched twice.
    repo.signers.insert("C".into(), vec![Key::new("C"), Key::new("other")]);
    repo.publish();
    let done = repo.refresh(repo.bootstrap(), now(), Goal::All);
    assert_eq!(done.asked.iter().filter(|name| name.contains('C')).count(), 1);
    assert!(done.outcome.left_out.is_empty());
    assert_eq!(whose(&repo, &done.trusted), "C");
}

#[test]
fn at_most_32_roles_on_the_way() {
    let chain = |n: usize| {
        let arrows: Vec<String> = (1..n).map(|i| format!("r{i} r{}", i + 1)).collect();
        tree(&format!("targets r1\n{}", arrows.join("\n")), &[&format!("r{n}")])
    };
    assert_eq!(search(&chain(32)).1, "r32");
    let repo = chain(33);
    let done = repo.refresh(repo.bootstrap(), now(), Goal::FindPath("x".into()));
    assert_eq!(done.code(), "delegation_roles");
    assert_eq!(done.asked.len(), 4 + 32);
    assert_eq!(code(done.trusted.target("x")), "delegation_roles");
    // A wide tree is limited just as a deep one; a mirror takes what fits and says so.
    let arrows: Vec<String> = (0..40).map(|i| format!("targets r{i:02}")).collect();
    let wide = tree(&arrows.join("\n"), &["r39"]);
    assert_eq!(wide.refresh(wide.bootstrap(), now(), Goal::FindPath("x".into())).code(), "delegation_roles");
    let done = wide.refresh(wide.bootstrap(), now(), Goal::All);
    assert_eq!((done.code(), done.outcome.left_out[0].code, done.asked.len()), ("", "delegation_roles", 4 + 32));
}

/// CVE-2021-41131, CVE-2021-41150, CVE-2026-24686: a role's name is never a path.
#[test]
fn names_of_roles_are_quoted() {
    for (name, file) in [
        ("../../etc/passwd", "1...%2F..%2Fetc%2Fpasswd.json"),
        ("..", "1....json"),
        ("/abs", "1.%2Fabs.json"),
        ("C:\\x", "1.C%3A%5Cx.json"),
        ("a%2fb", "1.a%252fb.json"),
        ("CON", "1.CON.json"),
        ("a b?c#d&e", "1.a%20b%3Fc%23d%26e.json"),
        ("Rôle", "1.R%C3%B4le.json"),
        ("new\nline", "1.new%0Aline.json"),
        ("2.root", "1.2.root.json"),
    ] {
        let mut repo = Repo::empty();
        repo.delegate("targets", Delegation::new(name, &["*"]));
        repo.add(name, "x", name.as_bytes());
        repo.publish();
        let done = repo.refresh(repo.bootstrap(), now(), Goal::FindPath("x".into()));
        assert_eq!(done.asked.last().unwrap(), file);
        assert_eq!((done.code(), whose(&repo, &done.trusted).as_str()), ("", name));
    }
}

/// A mistake in one platform's role must not keep a mirror from the others, and must be told.
#[test]
fn a_mirror_goes_on_without_a_broken_role() {
    let good = tree("targets A a\n targets B x\n A C a", &["B"]);
    type Case = (&'static str, fn(&mut Repo));
    let cases: &[Case] = &[
        ("delegated_missing", |r| drop(r.files.remove("1.A.json").unwrap())),
        ("delegated_length", |r| r.files.get_mut("1.A.json").unwrap().push(b' ')),
        ("delegated_expired", |r| {
            r.expires.insert("A".into(), NOW);
            r.publish();
        }),
        ("delegated_threshold", |r| {
            r.signers.insert("A".into(), vec![Key::new("B")]);
            r.publish();
        }),
        ("snapshot_role_unlisted", |r| {
            r.edit("snapshot", |doc| unset(doc, &["meta", "A.json"]));
            r.publish();
        }),
        ("delegation_reserved", |r| {
            r.delegate("A", Delegation::new("root", &["*"]));
            r.targets.remove("root");
            r.publish();
        }),
    ];
    for (code, broken) in cases {
        let mut repo = good.clone();
        broken(&mut repo);
        let done = repo.refresh(repo.bootstrap(), now(), Goal::All);
        assert_eq!((done.code(), done.outcome.complete), ("", true), "{code}");
        let left_out: Vec<_> = done.outcome.left_out.iter().map(|r| (r.role.as_str(), r.code)).collect();
        assert_eq!(left_out, [("A", *code)]);
        assert_eq!(whose(&repo, &done.trusted), "B", "{code}");
        // A device that needs the broken role is told, and does not look elsewhere.
        let done = repo.refresh(repo.bootstrap(), now(), Goal::FindPath("a".into()));
        assert_eq!(done.code(), *code);
    }
    let done = good.refresh(good.bootstrap(), now(), Goal::All);
    assert!(done.outcome.left_out.is_empty());
    assert_eq!(done.asked[4..], ["1.A.json", "1.C.json", "1.B.json"]);
}

#[test]
fn only_the_roles_on_the_way_are_fetched() {
    let mut repo = Repo::new();
    for platform in ["linux-arm64", "windows-amd64"] {
        let pattern = format!("vmetric-agent/*/{platform}/*");
        repo.delegate("targets", Delegation::new(&format!("agent-{platform}"), &[&pattern]).terminating());
    }
    repo.publish();
    let done = repo.refresh(repo.bootstrap(), now(), find());
    assert_eq!(done.asked.len(), 5);
    assert_eq!(done.trusted.unloaded(), ["agent-linux-arm64", "agent-windows-amd64"]);
    let other = "vmetric-agent/2.5.0/linux-arm64/vmetric-agent".parse().unwrap();
    assert_eq!(code(done.trusted.lookup(&other)), "target_not_loaded");
    assert!(done.trusted.find(&TARGET.parse().unwrap()).is_some());
    let done = repo.refresh(done.trusted, now(), Goal::TopLevel);
    assert_eq!(done.asked, ["2.root.json", "timestamp.json"]);
}

/// CVE-2025-2887 at the level of what is held: a role of an older snapshot is no answer for the newer one.
#[test]
fn a_stale_role_answers_nothing() {
    let mut repo = Repo::new();
    let trusted = repo.client(repo.bootstrap());
    repo.next_release();
    repo.publish();
    let done = repo.refresh(trusted, now(), Goal::TopLevel);
    assert_eq!(code(done.trusted.lookup(&TARGET.parse().unwrap())), "target_not_loaded");
    assert!(done.trusted.files().iter().all(|(name, _)| !name.contains("agent")));
    let done = repo.refresh(done.trusted, now(), find());
    assert_eq!(code(done.trusted.lookup(&TARGET.parse().unwrap())), "");
}
