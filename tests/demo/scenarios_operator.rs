//! The operator's way out of everything, on the real processes.
#![expect(clippy::disallowed_methods, reason = "what a test writes need not outlive a power cut")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use vmetric::director::cancel::CancelView;
use vmetric::director::explain::ExplainView;
use vmetric::director::quarantine::{AllowView, RejectView};
use vmetric::director::retry::RetryView;
use vmetric::director::views::StatusView;

use crate::build::{FACTORY, GOOD};
use crate::device::Device;
use crate::pause;
use crate::release::Release;
use crate::scenarios::{Cast, Untouched, ended, same};
use crate::show::Row;
use crate::site::Site;

/// (r) The operator's check decides, its last line is shown at the Director, and a retry is the way out.
pub fn check_says_no(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-r")?;
    let check = device.state.join("config/check");
    let script = "#!/bin/sh\necho looks at sensor 3 of version $VMETRIC_VERSION\necho sensor 3 does not answer >&2\nexit 1\n";
    std::fs::write(&check, script).map_err(|e| e.to_string())?;
    device.say("the operator's config/check is there, but nobody may execute it");
    let clock = cast.clock();
    cast.site.assign(&[&device.id], GOOD, "")?;
    let unusable = || cast.site.ask::<ExplainView>(&format!("explain {}", device.id)).ok().filter(|e| e.agent.code == "check_unusable");
    let told = device.until("it waits for the check to be repaired", 30, unusable)?;
    same("whose move it is", told.agent.owner.as_deref().unwrap_or("nobody's"), "operator")?;
    std::fs::set_permissions(&check, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    let result = device.result_after("", 60)?;
    let row = clock.row(&result);
    ended(&result, "rolled_back", "bad", "check_failed")?;
    let told: ExplainView = cast.site.ask(&format!("explain {}", device.id))?;
    let last = told.last_result.map(|r| r.detail).unwrap_or_default();
    if !last.contains("sensor 3 does not answer") {
        return Err(format!("the check's last line is not shown at the Director: {last}"));
    }
    let way_out = told.remedies.iter().any(|r| r.command == format!("vmetric-director retry --agent {}", device.id));
    same("explain names the way out", &way_out.to_string(), "true")?;
    device.say("repairs what the check had found, then: vmetric-director retry");
    std::fs::write(&check, "#!/bin/sh\nexit 0\n").map_err(|e| e.to_string())?;
    let again: RetryView = cast.site.ask(&format!("retry --agent {} --reason repaired", device.id))?;
    same("roll-outs made by the retry", &again.rollouts.len().to_string(), "1")?;
    ended(&device.result_after(&result.id, 60)?, "updated", "", "confirmed")?;
    cast.confirmed(&device, GOOD)?;
    Ok(row)
}

/// Puts the operator's check on a device.
fn write_check(device: &Device, script: &str) -> Result<(), String> {
    let check = device.state.join("config/check");
    std::fs::write(&check, format!("#!/bin/sh\n{script}\n")).map_err(|e| e.to_string())?;
    std::fs::set_permissions(&check, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())
}

/// (s) On trial, and a person changes their mind.
pub fn sent_back(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-s")?;
    write_check(&device, "echo warming up; exit 75")?;
    let clock = cast.clock();
    // Its check never can tell, and it may stay on trial for a day.
    cast.site.assign(&[&device.id], GOOD, "--unattended")?;
    let unsure = || device.view().ok().filter(|v| v.state == "trial" && v.code == "check_unsure" && v.detail.contains("warming up"));
    device.until("the Director shows the trial and why it is not over", 40, unsure)?;
    device.say("vmetric-director cancel: too late, it says; then cancel --roll-back");
    let view: CancelView = cast.site.ask(&format!("cancel --agent {}", device.id))?;
    same("agents for which a plain cancel comes too late", &view.on_trial.len().to_string(), "1")?;
    let _: CancelView = cast.site.ask(&format!("cancel --agent {} --roll-back --reason changed-my-mind", device.id))?;
    let result = device.until("it goes back", 40, || device.last_result().filter(|r| r.outcome == "rolled_back"))?;
    let row = clock.row(&result);
    ended(&result, "rolled_back", "bad", "operator")?;
    let seen = || device.view().ok().filter(|v| v.state == "cancelled" && v.version == FACTORY);
    device.until("the Director shows it as cancelled, not as failed", 20, seen)?;
    let by = cast.site.activity().into_iter().find(|e| e.agent == device.id && e.code == "trial_refused");
    let by = by.ok_or("the activity does not know that the trial was refused")?;
    if !by.by.as_deref().is_some_and(|by| by.starts_with("uid ")) || !by.detail.contains("changed-my-mind") {
        return Err(format!("the activity does not say who and why: {by:?}"));
    }
    Ok(row)
}

/// (t) SIGTERM while an agent needs the Director's word: the word comes first.
pub fn drained(cast: &Cast) -> Result<Row, String> {
    let site = cast.own_site()?;
    let device = cast.device_at(&site, "device-t")?;
    let other = cast.device_at(&site, "device-u")?;
    let clock = cast.clock();
    write_check(&device, "sleep 4")?;
    site.assign(&[&device.id], GOOD, "")?;
    let known = || device.view().ok().filter(|v| matches!(v.state.as_str(), "switching" | "trial"));
    device.until("the Director knows of the switch", 40, known)?;
    device.say("stops the Director (SIGTERM) while the new version is on trial");
    site.ask_to_stop();
    pause(1_500);
    same("the Director waits", &site.has_ended().to_string(), "false")?;
    let refused = site.assign(&[&other.id], GOOD, "").err().unwrap_or_default();
    if !refused.contains("(stopping)") {
        return Err(format!("an order that would overlap the stop was taken: {refused}"));
    }
    let confirmed = device.until("the trial's end", 30, || device.last_result().filter(|r| r.outcome == "updated"))?;
    let row = Row { gap_ms: 0, ..clock.row(&confirmed) };
    device.until("the Director ends by itself", 20, || site.has_ended().then_some(()))?;
    site.stop();
    site.up()?;
    cast.confirmed(&device, GOOD)?;
    Ok(Row { result: "updated, then stopped".into(), ..row })
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (path, name) = (entry.as_ref().map(|e| e.path()).unwrap_or_default(), entry?.file_name());
        if path.is_dir() {
            copy_tree(&path, &to.join(name))?;
        } else {
            std::fs::hard_link(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// (u) The source of releases is gone for good: what was mirrored is enough, also after a restart.
pub fn upstream_away(cast: &Cast) -> Result<Row, String> {
    let folder = cast.folder("source");
    copy_tree(&cast.stage.release.tree, &folder).map_err(|e| e.to_string())?;
    let release = Release { tree: folder.clone(), root: cast.stage.release.root.clone(), bundle: cast.stage.release.bundle.clone() };
    let site = Site::start(&cast.folder("site"), &cast.stage.builds, &release, &cast.stage.show).map(Arc::new)?;
    let devices = ["device-x", "device-y"].map(|name| cast.device_at(&site, name));
    let [first, second] = devices;
    let (first, second) = (first?, second?);
    // What was brought here before is what a site can go on with.
    site.ask::<StatusView>(&format!("mirror --file {}", release.bundle.display()))?;
    first.say("removes the mirror's source, then kills the Director and starts it again");
    std::fs::remove_dir_all(&folder).map_err(|e| e.to_string())?;
    site.kill();
    site.up()?;
    let clock = cast.clock();
    let ordered = site.assign(&[&first.id, &second.id], GOOD, "")?;
    let done = || site.rollout(ordered.rollout).ok().filter(|r| r.state != "running");
    let end = first.until("the end of the roll-out", 60, done)?;
    same("the roll-out", &format!("{}, {} done", end.state, end.done), "done, 2 done")?;
    cast.confirmed(&second, GOOD)?;
    let result = second.last_result().ok_or("there is no result")?;
    Ok(Row { result: "2 updated".into(), ..clock.row(&result) })
}

/// (v) Nobody gets a rejected file, whoever assigns it, until it is allowed.
pub fn rejected(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-v")?;
    let sha256 = cast.sha256(GOOD)?;
    let before = Untouched::look(&device)?;
    let clock = cast.clock();
    let view: RejectView = cast.site.ask(&format!("reject {} --agent {} --reason too-hot", &sha256[..12], device.id))?;
    same("the file that the first digits mean", &view.sha256, &sha256)?;
    cast.site.assign(&[&device.id], GOOD, "--retry")?;
    let seen = || device.view().ok().filter(|v| v.state == "refused" && v.code == "quarantined" && v.detail.contains("too-hot"));
    device.until("the Director refuses it and says why", 20, seen)?;
    before.still(&device)?;
    let view: AllowView = cast.site.ask(&format!("allow {} --agent {}", &sha256[..12], device.id))?;
    same("rejections lifted", &view.lifted.to_string(), "1")?;
    let again: RetryView = cast.site.ask(&format!("retry --agent {}", device.id))?;
    same("roll-outs made by the retry", &again.rollouts.len().to_string(), "1")?;
    let result = device.result_after("", 60)?;
    ended(&result, "updated", "", "confirmed")?;
    cast.confirmed(&device, GOOD)?;
    Ok(clock.row(&result))
}
