use std::path::Path;

use super::*;

fn problems(text: &str) -> String {
    problem::listed(Path::new("/f.yml"), &Config::parse(text.as_bytes()).unwrap_err())
}

fn good(text: &str) -> Config {
    Config::parse(text.as_bytes()).unwrap_or_else(|p| panic!("{text}\n{}", problem::listed(Path::new("/f.yml"), &p)))
}

fn update(text: &str) -> Update {
    good(text).update.unwrap()
}

#[test]
fn the_specifications_examples() {
    let u = update("update:\n  mode: auto\n  method: schedule\n  version: \"2.5.0\"\n  cron: \"0 2 * * 0\" # Every Sunday at 2:00 AM\n");
    assert_eq!(u.cron.map(|c| (c.line, c.value)), Some((5, "0 2 * * 0".into())));
    assert_eq!(update("update:\n  mode: auto\n  method: immediate\n  version: \"2.5.0\"\n").method.unwrap().value, "immediate");
    assert_eq!(
        update("update:\n  mode: auto\n  method: schedule\n  version: \"2.5.0\"\n  interval: 1h # Check hourly\n").interval.unwrap().value,
        "1h"
    );
    for interval in ["30s", "30m", "24h", "1d", "300", "30"] {
        update(&format!("update: {{mode: auto, method: schedule, version: latest, interval: {interval}}}"));
    }
    // What is not in the specification: nothing but the mode, a person's word, the newest version.
    assert_eq!(update("update: {mode: manual}").mode(), "manual");
    update("update: {mode: auto, method: user_action, version: latest}");
    update("update: {mode: auto, method: schedule, version: latest}");
    update("update: {mode: auto, method: schedule, version: 2.5.0-rc.1, cron: '0 2 * * 0', interval: 1h}");
}

#[test]
fn everything_wrong_has_file_line_field_what_was_found_and_what_is_allowed() {
    for (text, expected) in [
        ("updte:\n  mode: auto\n", "/f.yml:1: updte: found an unknown field; did you mean `update`?"),
        ("mode: auto\n", "/f.yml:1: mode: found an unknown field; indent it below `update:`"),
        ("zzz: 1\n", "/f.yml:1: zzz: found an unknown field; allowed here: name, listen"),
        ("update:\n", "/f.yml:1: update: found nothing; fields below it, indented: mode, method"),
        ("update: auto\n", "/f.yml:1: update: found `auto`; fields below it"),
        ("- update\n", "/f.yml:1: found a list; fields below it, indented: name"),
        ("update:\n  method: immediate\n", "/f.yml:2: update.mode: found nothing; is required; expected manual or auto"),
        ("update:\n  mode: Auto\n", "/f.yml:2: update.mode: found `Auto`; did you mean `auto`?"),
        ("update:\n  mode:\n", "/f.yml:2: update.mode: found nothing; one of: manual, auto; or leave the line out"),
        ("update:\n  mode: [auto]\n", "/f.yml:2: update.mode: found a list; one of: manual, auto"),
        ("update: {mode: auto}\n", "update.method: found nothing; is required"),
        ("update:\n  mode: auto\n  method: Scheduled\n", "/f.yml:3: update.method: found `Scheduled`; did you mean `schedule`?"),
        ("update: {mode: auto, method: immediate}\n", "update.version: found nothing; is required"),
        (
            "update:\n  mode: auto\n  method: immediate\n  version: 2.5\n",
            "/f.yml:4: update.version: found `2.5`; a version such as \"2.5.0\"",
        ),
        (
            "update:\n  mode: auto\n  method: immediate\n  version: 2.5.0\n  cron: 0 2 * * 0\n",
            "/f.yml:5: update.cron: found `0 2 * * 0`; belongs to method: schedule",
        ),
        ("update: {mode: manual, interval: 1h}\n", "update.interval: found `1h`; belongs to method: schedule"),
        (
            "update:\n  mode: auto\n  method: schedule\n  version: latest\n  interval: 29s\n",
            "/f.yml:5: update.interval: found `29s`; 30s, 5m, 1h",
        ),
        ("update: {mode: auto, method: schedule, version: latest, interval: 0}\n", "update.interval: found `0`"),
        ("update: {mode: auto, method: schedule, version: latest, interval: 1h30m}\n", "update.interval: found `1h30m`"),
        ("update:\n  mode: auto\n  cron: */5 * * * *\n", "/f.yml:3: found"),
        ("update:\n  mode: auto\n  mode: manual\n", "/f.yml:3: mode: found the second `mode`; once; the first is in line 2"),
        ("agents:\n  mode: manual\n", "/f.yml:2: agents.mode: found an unknown field; indent it below `agents:`, `update:`"),
        ("agents:\n  update:\n    mdoe: auto\n", "/f.yml:3: agents.update.mdoe: found an unknown field; did you mean `mode`?"),
        ("listen: 8443\n", "/f.yml:1: listen: found `8443`; ADDRESS:PORT"),
        ("listen:\n  - 0.0.0.0:1\n  - 0.0.0.0:1\n", "/f.yml:3: listen: found `0.0.0.0:1`; each address once; it is in line 2"),
        ("listen: []\n", "listen: found an empty list"),
        ("root: root.json\n", "/f.yml:1: root: found `root.json`; an absolute path"),
        ("tls:\n  certificate: /c.pem\n", "tls.key: found nothing; both"),
        ("mirror: /srv\n", "/f.yml:1: mirror: found `/srv`; fields below it, indented: from, pin"),
        ("mirror:\n  from: http://x\n", "/f.yml:2: mirror.from: found `http://x`; an absolute path of a folder"),
        ("mirror:\n  from: https://x\n", "mirror.pin: found nothing; required with https://"),
        ("mirror:\n  pin: abc\n", "mirror.pin: found `abc`; `sha256:`"),
        ("fleet:\n  address: https://f:1\n", "fleet.pin: found nothing; required"),
        ("fleet:\n  address: http://f:1\n", "fleet.address: found `http://f:1`; https://HOST:PORT"),
        ("time_zone: 'Mars; rm'\n", "time_zone: found `Mars; rm`; a zone such as"),
        ("retention:\n  activity: 1h\n", "retention.activity: found `1h`; a duration such as 30s, 5m, 1h or 90d, from 1d"),
        ("retention:\n  backups: 0\n", "retention.backups: found `0`; a whole number from 1 to 100"),
        ("limits:\n  mirror_bytes: 5G\n", "limits.mirror_bytes: found `5G`; a number of bytes such as 500MB, 20GiB"),
        (
            "limits:\n  agent:\n    bytes_per_dya: 1GB\n",
            "limits.agent.bytes_per_dya: found an unknown field; did you mean `bytes_per_day`?",
        ),
        ("name: a:b\n", "name: found `a:b`; a host name"),
    ] {
        let said = problems(text);
        assert!(said.contains(expected), "{text}\n  says    {said}\n  expected {expected}");
    }
    assert!(problems("update:\n  cron: */5 * * * *\n").contains("is quoted: cron:"));
}

#[test]
fn all_problems_at_once_in_the_order_of_the_file() {
    let said = problems("updte: 1\nlisten: x\nupdate:\n  mode: of\n  version: 2\nlimits:\n  downloads: many\n");
    let lines: Vec<&str> = said.lines().map(|l| l.split(": found").next().unwrap()).collect();
    assert_eq!(
        lines,
        ["/f.yml:1: updte", "/f.yml:2: listen", "/f.yml:4: update.mode", "/f.yml:5: update.version", "/f.yml:7: limits.downloads"]
    );
    let many = (0..500).map(|n| format!("zz{n}: 1\n")).collect::<String>();
    assert!(problems(&many).ends_with("and 450 more"));
    let reason = reason(Path::new("/f.yml"), &Config::parse(many.as_bytes()).unwrap_err());
    assert_eq!(reason.code, "config_invalid");
    assert!(reason.detail.contains("/f.yml:1: zz0") && reason.detail.contains("499 more"), "{reason}");
}

#[test]
fn the_example_validates_as_it_is_and_with_every_line_in_force() {
    let example = good(example::TEXT);
    assert_eq!(example.update.unwrap().mode(), "manual");
    let all: String = example::TEXT
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => format!("{rest}\n"),
            Some(rest) if rest.starts_with("  ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let all = all.replace("mode: manual", "mode: auto");
    let config = good(&all);
    assert_eq!(config.listen.len(), 1);
    assert_eq!(config.limits.agent_bytes_per_day.map(|b| b.value), Some(1 << 30));
    for there in [config.name.is_some(), config.root.is_some(), config.tls.is_some(), config.mirror.is_some(), config.fleet.is_some()] {
        assert!(there, "{all}");
    }
    assert!(config.agents_update.is_some() && config.retention.backup_bytes.is_some() && config.time_zone.is_some());
    for name in NAMES {
        assert!(example::TEXT.contains(&format!("{name}:")), "{name} is not in the example");
    }
}

#[test]
fn the_file_forbids_what_fleet_may_not_order() {
    let version = |t: &str| t.parse::<Version>().unwrap();
    let code = |text: &str, v: &str| good(text).local_policy("/f.yml", &version(v)).err().map(|r| r.code.to_string());
    assert_eq!(code("update: {mode: manual}", "1.0.0").as_deref(), Some("file_manual"));
    assert_eq!(code("update: {mode: manual, version: 1.0.0}", "1.0.0").as_deref(), Some("file_manual"));
    let exact = "update:\n  mode: auto\n  method: immediate\n  version: 2.5.0\n";
    assert_eq!(code(exact, "2.5.0"), None);
    assert_eq!(code(exact, "2.5.1").as_deref(), Some("file_version"));
    assert!(good(exact).local_policy("/f.yml", &version("3.0.0")).unwrap_err().detail.starts_with("/f.yml:4:"));
    assert_eq!(code("update: {mode: auto, method: immediate, version: latest}", "9.0.0"), None);
    assert_eq!(code("agents: {update: {mode: manual}}", "9.0.0"), None);
    assert_eq!(code("# nothing\n", "9.0.0"), None);
}

#[test]
fn a_newer_files_names_are_told_apart_from_wrong_values() {
    assert!(Config::parse_known(b"newer: 1\nupdate: {mode: manual}\n").is_some_and(|c| c.update.unwrap().mode() == "manual"));
    assert!(Config::parse_known(b"newer: 1\nupdate: {mode: of}\n").is_none());
    assert!(Config::parse_known(b"a: [").is_none());
}

proptest::proptest! {
    #[test]
    fn no_file_panics(lines in proptest::collection::vec("( ){0,4}(update|mode|auto|agents|listen|limits|agent|version|-)?:? ?[a-z0-9\"'\\[\\]{}:&*!<]{0,8}", 0..12)) {
        let _ = Config::parse(lines.join("\n").as_bytes());
    }
}
