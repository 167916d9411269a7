//! The service: every template as a golden file, systemd's own judgement of its unit, and `-service` into an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vmetric::core::service::layout::layout;
use vmetric::core::service::{AGENT, DIRECTOR, Manager, Product, Spec};

/// Highest exposure that `systemd-analyze security` may find.
const EXPOSURE_MAX: f64 = 2.0;

fn spec(product: &'static Product, options: &[&str]) -> Spec {
    Spec {
        product,
        program: format!("/opt/virtualmetric/{}", product.name),
        state: product.state.into(),
        user: product.name.into(),
        options: options.iter().map(|o| o.to_string()).collect(),
    }
}

fn specs() -> [(&'static str, Spec); 3] {
    let odd = Spec {
        program: "/opt/Virtual Metric/vmetric-agent".into(),
        state: "/data/it's <100%> $HOME".into(),
        ..spec(&AGENT, &["--odd", "a b", "\"q\""])
    };
    let director = spec(&DIRECTOR, &["--root", "/etc/vmetric/root.json", "--mirror", "/srv/releases"]);
    [("agent", spec(&AGENT, &[])), ("director", director), ("odd", odd)]
}

/// A change of a template changes these files, and has to raise `unit::TEMPLATE`, or no device is told that its unit is old.
/// `UPDATE=1` writes them anew.
#[test]
fn the_files_of_every_manager_are_golden() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/service");
    #[expect(clippy::disallowed_methods, reason = "a test's switch")]
    let update = std::env::var("UPDATE").is_ok();
    for (name, spec) in specs() {
        for manager in Manager::ALL {
            for (n, file) in layout(manager, &spec, "").files.iter().enumerate() {
                assert!(!file.text.contains("{{"), "{}", file.text);
                let path = folder.join(format!("{name}.{}{}", manager.name(), if n > 0 { format!(".{n}") } else { String::new() }));
                if update {
                    #[expect(clippy::disallowed_methods, reason = "a fixture needs no durability")]
                    fs::write(&path, &file.text).unwrap();
                }
                let golden = fs::read_to_string(&path).unwrap_or_default();
                assert_eq!(file.text, golden, "{}: raise unit::TEMPLATE, then UPDATE=1 cargo test", path.display());
            }
        }
    }
}

fn systemd_analyze() -> bool {
    let found = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !found {
        crate::left_out("systemd's judgement of the units: there is no systemd-analyze here");
    }
    found
}

/// The unit in a folder of its own, with a program that is there: `verify` looks for it.
fn written(spec: &Spec) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join(format!("{}.service", spec.product.name));
    let spec = Spec { program: "/bin/true".into(), user: "root".into(), ..spec.clone() };
    #[expect(clippy::disallowed_methods, reason = "a unit in a test needs no durability")]
    fs::write(&unit, &layout(Manager::Systemd, &spec, "").files[0].text).unwrap();
    (folder, unit)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !systemd_analyze() {
        return;
    }
    for (name, spec) in specs() {
        let (_folder, unit) = written(&spec);
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // It tells of every unit that it meets on the way.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains(spec.product.name)).collect();
        assert!(ours.is_empty(), "{name}: {ours:?}");
    }
}

#[test]
fn the_units_are_hardened() {
    if !systemd_analyze() {
        return;
    }
    for (name, spec) in specs() {
        let (_folder, unit) = written(&spec);
        let unit_text = fs::read_to_string(&unit).unwrap().replace("User=root", "User=nobody");
        #[expect(clippy::disallowed_methods, reason = "a unit in a test needs no durability")]
        fs::write(&unit, unit_text).unwrap();
        let output = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().find(|l| l.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said}"));
        let score = line.split_whitespace().find_map(|word| word.parse::<f64>().ok()).unwrap();
        eprintln!("{name}: exposure {score}");
        assert!(score <= EXPOSURE_MAX, "{name}: {said}");
    }
}

/// The script of OpenRC, runit and busybox hands on every word as it was given, and VMETRIC_OPTIONS as words.
#[test]
fn the_scripts_words_survive_the_shell() {
    let folder = tempfile::tempdir().unwrap();
    let (_, odd) = specs().into_iter().find(|(name, _)| *name == "odd").unwrap();
    let program = folder.path().join("it's a program");
    crate::place_program("/bin/sh", &program);
    // The shell as the program: `run` is the script that it reads from its folder.
    let echo = "for word; do echo \"[$word]\"; done; echo $VMETRIC_RESPAWN; umask\n";
    #[expect(clippy::disallowed_methods, reason = "a script in a test needs no durability")]
    fs::write(folder.path().join("run"), echo).unwrap();
    let spec = Spec { program: program.display().to_string(), state: folder.path().display().to_string(), ..odd };
    for manager in [Manager::Runit, Manager::BusyBox] {
        let script = &layout(manager, &spec, "").files[0].text;
        // Without syslog and without leaving its folder, the script itself.
        let script = script.replace("/dev/log", "/dev/null").replace("\ncd /\n", "\n");
        let mut command = Command::new("sh");
        let command = command.args(["-c", &script]).current_dir(folder.path()).env("VMETRIC_OPTIONS", "--two words");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = format!("[--state]\n[{}]\n[--odd]\n[a b]\n[\"q\"]\n[--two]\n[words]\n1\n0077\n", spec.state);
        assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
    }
    // OpenRC's file names nothing but that script.
    let openrc = &layout(Manager::OpenRc, &spec, "").files[0].text;
    assert!(openrc.contains("\ncommand=/etc/vmetric/vmetric-agent.run\n") && openrc.contains("\nrespawn_max=0\n"), "{openrc}");
}

/// Root's `run` becomes the owner of the state folder, before it writes anything there.
#[test]
#[cfg(target_os = "linux")]
fn root_acts_as_the_owner_of_the_state_folder() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    const OWNER: u32 = 12_345;
    if !vmetric::io::user::is_root() {
        crate::left_out("that root becomes a state folder's owner: this is not root");
        return;
    }
    let site = crate::director_bench::Site::with(&[]);
    let mut device = crate::agent::Device::enrolled(&site);
    fs::set_permissions(site.bench.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let state = device.path("state");
    let given = Command::new("chown").args(["-R", &format!("{OWNER}:{OWNER}")]).arg(&state).status().unwrap();
    assert!(given.success());
    chown(site.bench.path("device"), Some(0), Some(0)).unwrap();
    device.start();
    device.wait("contact", |s| crate::agent::text(s, "last_contact") != "null");
    let pid = crate::agent::text(&device.status(), "pid");
    let of = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [format!("Uid:\t{OWNER}\t{OWNER}\t{OWNER}\t{OWNER}"), "Groups:\t ".into(), "NoNewPrivs:\t1".into()] {
        assert!(of.contains(&line), "{line:?} in {of}");
    }
    // Commands of root leave nothing there that the service could not read.
    device.run(&["rollback"]);
    for entry in fs::read_dir(&state).unwrap().map(|e| e.unwrap().path()) {
        assert_eq!(fs::symlink_metadata(&entry).unwrap().uid(), OWNER, "{}", entry.display());
    }
}

/// A system in a folder: an init, users, and the agent where a maker would put it.
struct Image(tempfile::TempDir);

impl Image {
    fn new(init: &str) -> Image {
        let image = Image(tempfile::tempdir().unwrap());
        for folder in ["etc", "sbin", "opt/virtualmetric", "bin"] {
            fs::create_dir_all(image.path(folder)).unwrap();
        }
        std::os::unix::fs::symlink(init, image.path("sbin/init")).unwrap();
        image.put("etc/passwd", "root:x:0:0:root:/:/bin/sh\n");
        image.put("etc/group", "root:x:0:\n");
        fs::copy("/bin/true", image.path("opt/virtualmetric/vmetric-agent")).unwrap();
        image
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        #[expect(clippy::disallowed_methods, reason = "a file in a test needs no durability")]
        fs::write(self.path(path), text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Every file with its content, links with what they lead to.
    fn all(&self) -> Vec<(PathBuf, String)> {
        fn walk(folder: &Path, out: &mut Vec<(PathBuf, String)>) {
            for path in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
                match fs::symlink_metadata(&path).unwrap() {
                    m if m.is_dir() => walk(&path, out),
                    m if m.is_symlink() => out.push((path.clone(), fs::read_link(&path).unwrap().display().to_string())),
                    _ => out.push((path.clone(), String::from_utf8_lossy(&fs::read(&path).unwrap()).into())),
                }
            }
        }
        let mut all = Vec::new();
        walk(self.0.path(), &mut all);
        all.sort();
        all
    }

    /// `-service ACT --root IMAGE ...`: exit code and what it said.
    fn service(&self, words: &[&str]) -> (i32, String) {
        self.service_of(env!("CARGO_BIN_EXE_vmetric-agent"), words)
    }

    fn service_of(&self, program: &str, words: &[&str]) -> (i32, String) {
        let (act, rest) = words.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(["-service", act, "--root"]).arg(self.0.path());
        if *act == "install" {
            command.args(["--program", "/opt/virtualmetric/vmetric-agent"]);
        }
        let output = command.args(rest).env_remove("VMETRIC_STATE").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }
}

#[test]
fn an_install_into_an_image_is_whole_and_the_second_changes_nothing() {
    for (init, manager, file, link) in [
        (
            "/lib/systemd/systemd",
            "systemd",
            "etc/systemd/system/vmetric-agent.service",
            "etc/systemd/system/multi-user.target.wants/vmetric-agent.service",
        ),
        ("openrc-init", "openrc", "etc/init.d/vmetric-agent", "etc/runlevels/default/vmetric-agent"),
        ("runit-init", "runit", "etc/sv/vmetric-agent/run", "etc/service/vmetric-agent"),
        ("/bin/busybox", "busybox", "etc/vmetric/vmetric-agent.run", ""),
    ] {
        let image = Image::new(init);
        match manager {
            "openrc" => image.put("sbin/openrc-run", ""),
            "runit" => ["etc/runit", "etc/service"].iter().for_each(|f| fs::create_dir_all(image.path(f)).unwrap()),
            "busybox" => image.put("etc/inittab", "::sysinit:/etc/init.d/rcS\n"),
            _ => {}
        }
        let before = image.all();
        let (code, said) = image.service(&["install"]);
        assert!(code == 0 && said.contains(manager), "{manager}: {said}");
        let text = image.text(file);
        assert!(text.contains("/opt/virtualmetric/vmetric-agent") && text.contains("/var/lib/vmetric-agent"), "{manager}: {text}");
        match link {
            "" => assert!(image.text("etc/inittab").contains("\n::respawn:/etc/vmetric/vmetric-agent.run\n")),
            link => assert!(image.path(link).symlink_metadata().is_ok(), "{manager}: {link}"),
        }
        assert!(image.text("etc/passwd").contains("\nvmetric-agent:*:999:999:"), "{manager}");
        let once = image.all();
        let (code, said) = image.service(&["install"]);
        assert!(code == 0 && said.contains("nothing changed"), "{manager}: {said}");
        assert_eq!(image.all(), once, "{manager}");
        let (code, said) = image.service(&["status", "--json"]);
        assert!(code == 3 && said.contains("\"unit\":\"current\"") && said.contains("\"enabled\":true"), "{manager}: {said}");
        let (code, said) = image.service(&["uninstall", "--purge", "--yes"]);
        assert!(code == 0, "{manager}: {said}");
        let left: Vec<_> =
            image.all().into_iter().filter(|(path, _)| !path.ends_with("etc/passwd") && !path.ends_with("etc/group")).collect();
        assert_eq!(
            left,
            before.into_iter().filter(|(path, _)| !path.ends_with("etc/passwd") && !path.ends_with("etc/group")).collect::<Vec<_>>()
        );
        assert_eq!(image.service(&["status"]).0, 4, "{manager}");
    }
}

#[test]
fn an_operators_edit_stays_and_options_do_too() {
    let image = Image::new("/lib/systemd/systemd");
    let unit = "etc/systemd/system/vmetric-agent.service";
    assert_eq!(image.service(&["install", "--state", "/data/vmetric", "--", "--supervise"]).0, 0);
    let first = image.text(unit);
    assert!(first.contains("--state /data/vmetric --supervise") && first.contains("ReadWritePaths=/data/vmetric\n"), "{first}");
    // What an earlier install was told stays without being said again.
    assert!(image.service(&["install"]).1.contains("nothing changed"));
    assert_eq!(image.text(unit), first);
    image.put(unit, &first.replace("RestartSec=2", "RestartSec=9"));
    let (code, said) = image.service(&["install"]);
    assert!(code == 1 && said.contains("(unit_edited)") && said.contains("systemctl edit"), "{said}");
    assert!(image.service(&["status"]).1.contains("edited by hand"));
    assert!(image.text(unit).contains("RestartSec=9"));
    assert_eq!(image.service(&["install", "--replace"]).0, 0);
    assert_eq!(image.text(unit), first);
    assert!(image.text(&format!("{unit}.replaced")).contains("RestartSec=9"));
    image.put(unit, "[Service]\nExecStart=/bin/true\n");
    for act in ["install", "uninstall"] {
        let (code, said) = image.service(&[act]);
        assert!(code == 1 && said.contains("(unit_foreign)"), "{act}: {said}");
    }
}

#[test]
fn a_unit_of_an_older_template_is_told_and_renewed() {
    let image = Image::new("/lib/systemd/systemd");
    let unit = "etc/systemd/system/vmetric-agent.service";
    assert_eq!(image.service(&["install"]).0, 0);
    let new = image.text(unit);
    let stamp = new.lines().next().unwrap();
    let (number, _) = stamp.split_once(" sha256=").unwrap();
    let older = new.replacen(stamp, &format!("{} sha256={}", number.replace("=1", "=0"), "0".repeat(64)), 1);
    image.put(unit, &vmetric::core::service::unit::seal(&older.replace("RestartSec=2", "RestartSec=60")));
    let (_, said) = image.service(&["status", "--json"]);
    assert!(said.contains("\"unit\":\"older\""), "{said}");
    assert!(image.service(&["status"]).1.contains("-service install renews it"));
    assert!(image.service(&["install"]).1.contains("older template"));
    assert_eq!(image.text(unit), new);
}

#[test]
fn data_go_only_by_an_answer() {
    let image = Image::new("/lib/systemd/systemd");
    assert_eq!(image.service(&["install"]).0, 0);
    let state = image.path("var/lib/vmetric-agent");
    #[expect(clippy::disallowed_methods, reason = "a file in a test needs no durability")]
    fs::write(state.join("run.lock"), "").unwrap();
    let (code, said) = image.service(&["uninstall", "--purge"]);
    assert!(code == 1 && said.contains("(purge_unanswered)") && state.exists(), "{said}");
    assert!(image.path("etc/systemd/system/vmetric-agent.service").exists(), "nothing was changed");
    // At a terminal, which `script` makes, anything but yes keeps them.
    let line = format!("{} -service uninstall --purge --root '{}'", env!("CARGO_BIN_EXE_vmetric-agent"), image.0.path().display());
    let answer = |word: &str| {
        let script = format!("echo {word} | script -qec \"{line}\" /dev/null");
        String::from_utf8(Command::new("sh").args(["-c", &script]).output().unwrap().stdout).unwrap()
    };
    let said = answer("no");
    assert!(said.contains("Type yes") && said.contains("(purge_unanswered)") && state.exists(), "{said}");
    let (code, said) = image.service(&["uninstall"]);
    assert!(code == 0 && said.contains("kept:") && state.exists(), "{said}");
    let said = answer("yes");
    assert!(said.contains("removed with all") && !state.exists(), "{said}");
}

#[test]
fn refusals_change_nothing() {
    let image = Image::new("/sbin/sysvinit");
    let before = image.all();
    for (words, code) in [
        (&["install"][..], "no_service_manager"),
        (&["install", "--manager", "systemd", "--program", "vmetric-agent"], "program_path"),
        (&["install", "--manager", "systemd", "--program", "/opt/nothing"], "program_path"),
        (&["install", "--manager", "systemd", "--program", "/data/slots/a/vmetric-agent"], "program_slot"),
        (&["install", "--manager", "systemd", "--user", "a:b"], "user_name"),
        (&["install", "--manager", "systemd", "--state", "relative"], "state_path"),
        (&["install", "--manager", "systemd", "--", "a\nb"], "service_word"),
        (&["install", "--manager", "launchd"], "user_missing"),
        (&["install", "--manager", "systemd", "--", "--mirror", "x"], "service_options"),
    ] {
        let (exit, said) = image.service(words);
        assert!(exit == 1 && said.contains(&format!("({code})")), "{words:?}: {said}");
        assert_eq!(image.all(), before, "{words:?}");
    }
    assert_eq!(image.service(&["install", "--manager", "upstart"]).0, 2);
    // A Director needs its root, from here or from its file of options.
    let director =
        |more: &[&str]| image.service_of(env!("CARGO_BIN_EXE_vmetric-director"), &[&["install", "--manager", "systemd"], more].concat());
    let (exit, said) = director(&[]);
    assert!(exit == 1 && said.contains("--root") && said.contains("(service_options)"), "{said}");
    assert_eq!(image.all(), before);
    assert_eq!(director(&["--", "--root", "/etc/vmetric/root.json"]).0, 0);
    fs::create_dir_all(image.path("etc/default")).unwrap();
    image.put("etc/default/vmetric-director", "VMETRIC_OPTIONS='--root /r.json'\n");
    assert_eq!(director(&["--"]).0, 0);
}
