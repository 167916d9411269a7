use super::manifest::{Head, Line};
use super::summary::Summary;
use super::*;

/// A ustar header.
fn header(name: &str, kind: u8, size: &str, mode: &str) -> [u8; BLOCK] {
    let mut h = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| h[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, mode.as_bytes());
    put(124, size.as_bytes());
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    h
}

fn file(name: &str) -> Result<Option<Entry>, Reason> {
    entry(&header(name, b'0', "00000000007\0", "0000644\0"))
}

fn code<T: std::fmt::Debug>(result: Result<T, Reason>) -> String {
    result.unwrap_err().code.to_string()
}

#[test]
fn plain_files_and_folders_are_taken() {
    let kind = Kind::File { length: 7, program: false };
    assert_eq!(file("./lookups/ports.csv").unwrap(), Some(Entry { name: "lookups/ports.csv".into(), kind }));
    let program = entry(&header("a b", b'0', "00000000007 ", "   755 \0")).unwrap().unwrap();
    assert_eq!(program.kind, Kind::File { length: 7, program: true });
    for (name, expected) in [("./", None), (".", None), ("a/", Some("a")), ("./a/b/", Some("a/b")), ("a", Some("a"))] {
        let found = entry(&header(name, b'5', "00000000000\0", "0000755\0")).unwrap();
        assert_eq!(found.map(|e| (e.name, e.kind)), expected.map(|n| (n.to_string(), Kind::Folder)), "{name}");
    }
    let mut long = header("b.csv", b'0', "00000000007\0", "0000644\0");
    long[345..348].copy_from_slice(b"x/y");
    assert_eq!(entry(&long).unwrap().unwrap().name, "x/y/b.csv");
    let mut gnu = header("b.csv", b'0', "00000000007\0", "0000644\0");
    gnu[257..265].copy_from_slice(b"ustar  \0");
    assert_eq!(entry(&gnu).unwrap().unwrap().name, "b.csv");
    gnu[345] = b'x';
    assert_eq!(code(entry(&gnu)), "package_header", "GNU's times are no part of a name");
}

#[test]
fn a_name_that_is_not_one_file_everywhere_is_refused() {
    let tricks = ["/etc/passwd", "..", "../x", "a/../../x", "a/..", "./../x", "a//b", "a/./b", "././a", "a/", "", "\\x", "a\\..\\x"];
    let windows =
        ["con", "CON.txt", "a/nul", "Aux.", "com1.csv", "LPT9", "com0", "prn .txt", "conout$", "c:x", "a:stream", "x.", "x ", "a./b"];
    let signs = ["a\u{7}", "ä", "a\u{301}", "K\u{212a}", "a*", "a?", "a|b", "<a>", "\"a\"", "\u{202e}a", "a\nb", "a\tb", "\u{7f}"];
    for name in tricks.into_iter().chain(windows).chain(signs) {
        let result = file(name);
        assert!(result.is_err(), "{name:?}");
        let reason = result.unwrap_err();
        assert!(matches!(reason.code.as_ref(), "package_name" | "package_header"), "{name:?}: {reason}");
        assert!(!reason.detail.contains(char::is_control), "{name:?}");
    }
    let mut raw = header("ab", b'0', "00000000007\0", "0000644\0");
    raw[1] = 0xff;
    assert_eq!(code(entry(&raw)), "package_name");
    for hidden in [3, 99] {
        let mut raw = header("ab", b'0', "00000000007\0", "0000644\0");
        raw[hidden] = b'x';
        assert_eq!(code(entry(&raw)), "package_header", "a name behind a name");
    }
    assert!(check_name(&"a".repeat(NAME_MAX)).is_ok() && code(check_name(&"a".repeat(NAME_MAX + 1))) == "package_name");
    let deep = |n: usize| vec!["a"; n].join("/");
    assert!(check_name(&deep(DEPTH_MAX)).is_ok() && code(check_name(&deep(DEPTH_MAX + 1))) == "package_name");
    for good in ["console", "com", "com10", ".keep", "a b", "ns..x", "a (1).csv", "Auxiliary/x"] {
        assert!(check_name(good).is_ok(), "{good}");
    }
}

#[test]
fn only_files_and_folders() {
    for kind in b"1234678xgLKSMDVN\0Z" {
        let expected = "package_type";
        assert_eq!(code(entry(&header("a", *kind, "00000000000\0", "0000644\0"))), expected, "{}", *kind as char);
    }
    let mut linked = header("a", b'0', "00000000000\0", "0000644\0");
    linked[157] = b'b';
    assert_eq!(code(entry(&linked)), "package_type", "a link's target on a file");
    for mode in ["0004755\0", "0002755\0", "0001777\0"] {
        assert_eq!(code(entry(&header("a", b'0', "00000000000\0", mode))), "package_mode", "{mode}");
    }
    assert_eq!(code(entry(&header("a", b'5', "00000000001\0", "0000755\0"))), "package_header");
    let sizes = [
        &b"\x80\0\0\0\0\0\0\0\0\0\0\x07"[..],
        b"-0000000007\0",
        b"0000000000a\0",
        b"\0\0\0\0\0\0\0\0\0\0\0\0",
        b"00000009999\0",
        b"0000 0007\0\0\0",
    ];
    for size in sizes {
        let mut h = header("a", b'0', "", "0000644\0");
        h[124..136].copy_from_slice(size);
        assert_eq!(code(entry(&h)), "package_header", "{size:?}");
    }
    assert_eq!(code(entry(&[0; BLOCK])), "package_header");
}

fn admit(tally: &mut Tally, name: &str, length: Option<u64>) -> Result<(), Reason> {
    let kind = length.map_or(Kind::Folder, |length| Kind::File { length, program: false });
    tally.admit(&Entry { name: name.into(), kind })
}

#[test]
fn one_name_is_one_file() {
    for (names, expected) in [
        (&["a", "a"][..], "package_duplicate"),
        (&["a/", "a/"], "package_duplicate"),
        (&["a", "a/b"], "package_duplicate"),
        (&["a/b", "a"], "package_duplicate"),
        (&["a/", "a"], "package_duplicate"),
        (&["a", "A"], "package_collision"),
        (&["a/x", "A/y"], "package_collision"),
        (&["A/", "a/x"], "package_collision"),
        (&["a/b/", "a/x", "a/", "b/a", "A2", "a3/"], ""),
    ] {
        let mut tally = Tally::new(10_000, None).unwrap();
        let tried: Result<(), Reason> =
            names.iter().try_for_each(|n| admit(&mut tally, n.trim_end_matches('/'), if n.ends_with('/') { None } else { Some(1) }));
        assert_eq!(tried.err().map(|r| r.code.to_string()).unwrap_or_default(), expected, "{names:?}");
    }
}

#[test]
fn no_more_than_was_signed() {
    let declared = Unpacked { bytes: 10, files: 2 };
    let tally = || Tally::new(1_000, Some(declared)).unwrap();
    let mut good = tally();
    assert!(admit(&mut good, "a", Some(4)).is_ok() && admit(&mut good, "d", None).is_ok() && admit(&mut good, "b", Some(6)).is_ok());
    assert_eq!(code(admit(&mut good.clone(), "c", Some(0))), "package_too_many");
    assert_eq!(good.finish(), Ok(declared));
    let mut more = tally();
    assert_eq!(code(admit(&mut more, "a", Some(11))), "package_too_large");
    assert_eq!(code(admit(&mut more, "a", Some(u64::MAX))), "package_too_large");
    let mut less = tally();
    admit(&mut less, "a", Some(10)).unwrap();
    assert_eq!(code(less.finish()), "package_truncated");
    for (bytes, files, expected) in [
        (UNPACKED_MAX + 1, 1, "package_too_large"),
        (1, ENTRIES_MAX + 1, "package_too_many"),
        (1_000 * RATIO_MAX.max(RATIO_FREE / 1_000 + 1) + 1, 1, "package_bomb"),
    ] {
        assert_eq!(code(Tally::new(1_000, Some(Unpacked { bytes, files }))), expected);
    }
    let mut bomb = Tally::new(10_000, None).unwrap();
    assert!(admit(&mut bomb, "a", Some(10_000 * RATIO_MAX)).is_ok());
    assert_eq!(code(admit(&mut bomb, "b", Some(1))), "package_bomb");
    let mut many = Tally::new(10_000, None).unwrap();
    // Folders that are only named count too.
    let full = (0..ENTRIES_MAX).map(|n| admit(&mut many, &format!("{n}/x"), Some(0))).position(|r| r.is_err());
    assert_eq!(full, Some(ENTRIES_MAX as usize / 2));
}

#[test]
fn a_manifest_reads_back_what_was_written() {
    let head = Head {
        artifact: crate::core::release::Artifact {
            path: "vmetric-director/2.5.0/linux-amd64/package.tar.zst".parse().unwrap(),
            length: 9,
            sha256: [1; 32],
            min_version: None,
            counter: 0,
            build_keyid: "k".into(),
            build_sig: [2; 64],
        },
        unpacked: Unpacked { bytes: 10, files: 2 },
    };
    let text = head.text();
    assert!(text.ends_with("\n\n"));
    let lines: Vec<String> = text.trim_end().lines().map(String::from).collect();
    assert_eq!(Head::parse(&lines), Ok(head));
    for missing in 0..lines.len() {
        let fewer: Vec<String> = lines.iter().enumerate().filter(|(n, _)| *n != missing).map(|(_, l)| l.clone()).collect();
        assert_eq!(code(Head::parse(&fewer)), "package_damaged", "{missing}");
    }
    let line = Line { name: "a b/c".into(), length: 7, sha256: [3; 32], program: true };
    assert_eq!(Line::parse(line.text().trim_end()), Ok(line.clone()));
    assert!(line.text().len() <= super::manifest::LINE_MAX + 1);
    for bad in ["", "x", &line.text().replace("a b/c", "../c"), &line.text().replace(" x ", " y "), &line.text().replace(" 7 ", " -7 ")] {
        assert_eq!(code(Line::parse(bad.trim_end())), "package_damaged", "{bad}");
    }
}

#[test]
fn what_changed_is_counted_and_named() {
    let line = |name: &str, byte: u8| Line { name: name.into(), length: 1, sha256: [byte; 32], program: false };
    let old = [line("same", 1), line("gone", 1), line("other", 1)];
    let new = [line("other", 2), line("new", 1), line("same", 1)];
    let found = Summary::of(&old, &new);
    assert_eq!(found.to_string(), "resources: 1 added (new), 1 changed (other), 1 removed (gone); 1 unchanged");
    assert_eq!(Summary::of(&new, &new).to_string(), "no resource changed, 3 files");
    let many: Vec<Line> = (0..30).map(|n| line(&format!("f{n}"), 0)).collect();
    let found = Summary::of(&[], &many);
    assert!(found.added.count == 30 && found.added.named.len() == super::summary::NAMED_MAX && found.to_string().contains(", ..."));
}
