//! One accepted form, and everything else refused by name.

use super::*;

fn bundle(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        out.extend_from_slice(&header(name, bytes.len() as u64).unwrap());
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn small() -> Vec<u8> {
    bundle(&[("metadata/1.root.json", b"{}"), ("metadata/timestamp.json", &[7; 512]), ("targets/p/1.0.0/linux-amd64/x", b"")])
}

fn code(bytes: &[u8]) -> String {
    members(bytes).unwrap_err().code.to_string()
}

/// Changes a header and gives it the right checksum again.
fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut all = small();
    all[at..at + bytes.len()].copy_from_slice(bytes);
    let start = at / BLOCK * BLOCK;
    let mut block: [u8; BLOCK] = all[start..start + BLOCK].try_into().unwrap();
    let sum = format!("{:06o}\0 ", checksum(&block));
    put(&mut block, CHECKSUM_AT, sum.as_bytes());
    all[start..start + BLOCK].copy_from_slice(&block);
    all
}

#[test]
fn members_are_found_where_they_are() {
    let all = small();
    let found = members(&all).unwrap();
    let brief: Vec<(&str, u64, u64)> = found.iter().map(|m| (m.name.as_str(), m.offset, m.length)).collect();
    let expected = [("metadata/1.root.json", 512, 2), ("metadata/timestamp.json", 1536, 512), ("targets/p/1.0.0/linux-amd64/x", 2560, 0)];
    assert_eq!(brief, expected);
    assert_eq!(all.len(), 2560 + 1024);
}

#[test]
fn every_flipped_bit_outside_of_the_members_bytes_is_refused() {
    let all = small();
    let data = |at: usize| (512..514).contains(&at) || (1536..2048).contains(&at);
    for at in (0..all.len()).filter(|at| !data(*at)) {
        for bit in 0..8 {
            let mut bad = all.clone();
            bad[at] ^= 1 << bit;
            assert!(members(&bad).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn every_cut_and_every_extension_is_refused() {
    let all = small();
    for length in 0..all.len() {
        assert!(members(&all[..length]).is_err(), "{length}");
    }
    for more in [1, 511, 512, 1024, 8704] {
        let mut bad = all.clone();
        bad.resize(all.len() + more, 0);
        assert_eq!(code(&bad), "bundle_trailing", "{more}");
    }
    let two = [&all[..], &bundle(&[("targets/z", b"")])[..]].concat();
    assert_eq!(code(&two), "bundle_trailing", "two bundles in one file");
}

#[test]
fn each_trick_has_its_code() {
    for (what, bytes, expected) in [
        ("a hard link", changed(TYPE_AT, b"1"), "bundle_type"),
        ("a symbolic link", changed(TYPE_AT, b"2"), "bundle_type"),
        ("a folder", changed(TYPE_AT, b"5"), "bundle_type"),
        ("a pax extension", changed(TYPE_AT, b"x"), "bundle_type"),
        ("a GNU long name", changed(TYPE_AT, b"L"), "bundle_type"),
        ("an old-style file", changed(TYPE_AT, b"\0"), "bundle_type"),
        ("GNU's magic", changed(MAGIC_AT, b"ustar  \0"), "bundle_header"),
        ("another kind of file", changed(MAGIC_AT, b"notar"), "bundle_foreign"),
        ("a base-256 size", changed(SIZE_AT, b"\x80\0\0\0\0\0\0\0\0\0\0\x02"), "bundle_number"),
        ("a size with spaces", changed(SIZE_AT, b"          2\0"), "bundle_number"),
        ("a size of 8 GB", changed(SIZE_AT, b"77777777777\0"), "bundle_number"),
        ("a size beyond the end", changed(SIZE_AT, b"00000100000\0"), "bundle_truncated"),
        ("a date", changed(136, b"14723456701\0"), "bundle_header"),
        ("an owner", changed(265, b"root\0"), "bundle_header"),
        ("a link's name", changed(157, b"x"), "bundle_header"),
        ("a path upwards", changed(0, b"metadata/../root.jso"), "bundle_name"),
        ("an absolute path", changed(0, b"/etadata/1.root.json"), "bundle_name"),
        ("a drive", changed(0, b"C:tadata/1.root.json"), "bundle_name"),
        ("a backslash", changed(0, b"metadata/1\\root.json"), "bundle_name"),
        ("a hidden file", changed(0, b"metadata/.1root.json"), "bundle_name"),
        ("another folder", changed(0, b"metadatA/1.root.json"), "bundle_name"),
        ("an empty part", changed(0, b"targets//a\0"), "bundle_name"),
        ("text behind the name's end", changed(90, b"x"), "bundle_header"),
        ("a name split in another way", changed(PREFIX_AT, b"targets"), "bundle_header"),
        ("the same name twice", changed(1024, b"metadata/1.root.json\0\0\0"), "bundle_order"),
        ("names that fall", changed(1024, b"metadata/0.root.json\0\0\0"), "bundle_order"),
        ("nothing at all", vec![0; 10_240], "bundle_foreign"),
        ("a gzip file", [&b"\x1f\x8b\x08"[..], &[9; 4096]].concat(), "bundle_foreign"),
        ("an empty file", Vec::new(), "bundle_truncated"),
    ] {
        assert_eq!(code(&bytes), expected, "{what}");
    }
    let mut padding = small();
    padding[600] = 1;
    let reason = members(&padding).unwrap_err();
    assert!(reason.code == "bundle_padding" && reason.detail.contains("metadata/1.root.json"), "{reason}");
    let mut sum = small();
    sum[1024] ^= 1;
    let reason = members(&sum).unwrap_err();
    assert!(reason.code == "bundle_damaged" && reason.detail.contains("after metadata/1.root.json"), "{reason}");
}

#[test]
fn long_names_are_split_in_one_way() {
    let name = format!("targets/{}/1.0.0/linux-amd64/{}.{}", "p".repeat(64), "a".repeat(64), "vmetric-director.tar.gz");
    let all = bundle(&[(&name, b"x")]);
    assert_eq!(members(&all).unwrap()[0].name, name);
    assert_eq!(&all[PREFIX_AT..PREFIX_AT + 8], b"targets/");
    let long = format!("targets/{}", "b".repeat(101));
    assert_eq!(header(&long, 1).unwrap_err().code, "bundle_name");
    assert_eq!(header("targets/a", MEMBER_MAX + 1).unwrap_err().code, "bundle_number");
}
