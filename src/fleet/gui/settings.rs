//! Update settings as a form: the same fields in the organization's defaults, in every Update Management panel and in every
//! wizard. What they mean and whether they are good is `core::policy`'s, by way of the command `policy`.

use serde_json::{Value, json};

use super::ask::Ask;
use super::form::{Errors, Form};
use super::input::Input;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::wire::settings::{FIELDS, SettingsWire};

/// Names of the form's fields beside those of the settings: the toggle, and which of the two schedules.
const CUSTOM: &str = "custom";
const WHEN: &str = "when";
/// Zones that are offered while one types; every IANA name is taken.
const ZONES: [&str; 9] = [
    "local",
    "UTC",
    "Europe/London",
    "Europe/Berlin",
    "Europe/Istanbul",
    "America/New_York",
    "America/Los_Angeles",
    "Asia/Tokyo",
    "Australia/Sydney",
];

/// What was typed, as the command takes it: only what counts under the mode and method that were chosen.
pub fn typed(form: &Form) -> SettingsWire {
    let mut out = SettingsWire { mode: form.some("mode"), version: form.some("version"), ..Default::default() };
    if out.mode.as_deref() == Some("manual") {
        return out;
    }
    out.method = form.some("method");
    if out.method.as_deref() == Some("schedule") {
        match form.get(WHEN) {
            "interval" => out.interval = form.some("interval"),
            _ => out.cron = form.some("cron"),
        }
        out.zone = form.some("zone");
    }
    out
}

/// Whether the toggle is on; settings without one always count.
pub fn custom(form: &Form, toggle: bool) -> bool {
    !toggle || form.has(CUSTOM)
}

/// Fields that were left empty although the choice needs them.
pub fn missing(form: &Form, toggle: bool) -> Errors {
    let mut errors = Errors::default();
    let wire = typed(form);
    if custom(form, toggle) {
        match (wire.mode.as_deref(), wire.method.as_deref()) {
            (None, _) => errors.add("mode", "Choose Manual or Auto."),
            (Some("auto"), None) => errors.add("method", "Choose how updates start."),
            (Some("auto"), Some("schedule")) if form.get(WHEN) == "interval" && wire.interval.is_none() => {
                errors.add("interval", "Type an interval, such as 1h or 30m.");
            }
            (Some("auto"), Some("schedule")) if form.get(WHEN) != "interval" && wire.cron.is_none() => {
                errors.add("cron", "Type five fields, such as 0 2 * * 0 for every Sunday at 02:00.");
            }
            _ => {}
        }
    }
    errors
}

/// A change of one scope's settings.
pub fn change(act: &str, scope: &str, form: &Form, toggle: bool) -> AdminWire {
    AdminWire {
        command: "policy".into(),
        act: Some(act.into()),
        scope: Some(scope.into()),
        settings: Some(typed(form)),
        replace: Some(true),
        custom: Some(custom(form, toggle)),
        expected: form.get("revision").parse().ok(),
        ..Default::default()
    }
}

/// The problems that `policy check` names, beside their fields.
pub fn problems(check: &Value) -> Errors {
    let mut errors = Errors::default();
    for problem in check["problems"].as_array().into_iter().flatten() {
        let (field, detail) = (problem["field"].as_str().unwrap_or_default(), problem["detail"].as_str().unwrap_or_default());
        errors.add(if FIELDS.contains(&field) { field } else { "" }, detail);
    }
    errors
}

/// What stands in the form: typed before, else what is inherited, so that a new Custom Policy begins as what counts now.
pub fn filled(view: &Value) -> Form {
    let value = |name: &str| {
        let inherited = || {
            let all = view["inherited"].as_array()?;
            all.iter().find(|v| v["field"] == name)?["value"].as_str()
        };
        view["typed"][name].as_str().or_else(inherited).unwrap_or_default().to_string()
    };
    let mut pairs: Vec<(&str, String)> = FIELDS.iter().map(|name| (*name, value(name))).collect();
    let interval = view["typed"]["interval"].is_string() || (!view["typed"]["cron"].is_string() && !value("interval").is_empty());
    pairs.push((WHEN, if interval { "interval" } else { "cron" }.into()));
    pairs.push(("revision", view["revision"].as_u64().unwrap_or(0).to_string()));
    if view["custom"] == true {
        pairs.push((CUSTOM, "on".into()));
    }
    let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", crate::fleet::access::encoded(value))).collect();
    Form::parse(&text.join("&")).unwrap_or_default()
}

/// The fields for the template `settings`. `whom` is who the settings are for, in words.
/// `prefix` makes the ids of two such forms on one page different.
pub fn fields(form: &Form, errors: &Errors, toggle: bool, versions: &[String], whom: &str, prefix: &str) -> Value {
    let or = |name: &str, otherwise: &str| if form.get(name).is_empty() { otherwise.to_string() } else { form.get(name).to_string() };
    let with = |input: Input, name: &str, otherwise: &str| input.value(&or(name, otherwise)).error(errors.of(name)).json();
    let mode = Input::radio(
        "mode",
        "Update Mode",
        &[
            ("manual", "Manual", "People download and install; nothing happens by itself."),
            ("auto", "Auto", "Updates are handled by the method below."),
        ],
    );
    let method = Input::radio(
        "method",
        "Update Method",
        &[
            ("user_action", "User Action", "Updates are shown under Available updates; a person confirms and triggers."),
            ("immediate", "Immediate", "Applied as soon as a version is there."),
            ("schedule", "Scheduled", "Applied at the times of a schedule."),
        ],
    );
    let when = Input::radio(WHEN, "Schedule", &[("cron", "Cron expression", ""), ("interval", "Interval", "")]);
    let scheduled = "mode=auto,method=schedule";
    let cron = Input::text("cron", "Cron expression").mono().only_if("mode=auto,method=schedule,when=cron");
    let cron = cron.help("Minute, hour, day of month, month, day of week: 0 2 * * 0 is every Sunday at 02:00.");
    let interval = Input::text("interval", "Interval").mono().only_if("mode=auto,method=schedule,when=interval");
    let interval = interval.help("A number with s, m, h or d: 30m, 1h, 24h. At least 30s.");
    let zones: Vec<String> = ZONES.iter().map(|z| z.to_string()).collect();
    let zone = Input::text("zone", "Time zone").only_if(scheduled).suggest(&zones);
    let zone = zone.help("An IANA name such as Europe/Berlin; local is the server's own.");
    let version = Input::text("version", "Version").mono().suggest(versions).help("latest, or one version such as 2.5.0.");
    let mut out = json!({
        "toggle": toggle,
        "custom": Input::tick(CUSTOM, "Custom Policy").checked(form.has(CUSTOM)).help(&format!(
            "Off: {whom} follows the settings above it, and what is typed here is kept for later."
        )).json(),
        "only_if": if toggle { "custom=on" } else { "" },
        "mode": with(mode, "mode", "manual"),
        "method": with(method.only_if("mode=auto"), "method", "user_action"),
        "when": with(when.only_if(scheduled), WHEN, "cron"),
        "cron": with(cron, "cron", ""),
        "interval": with(interval, "interval", ""),
        "zone": with(zone, "zone", "local"),
        "version": with(version, "version", "latest"),
        "error": errors.of(""),
        "revision": form.get("revision"),
    });
    for field in out.as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
        own_ids(field, prefix);
    }
    out
}

fn own_ids(field: &mut Value, prefix: &str) {
    if let Some(id) = field["id"].as_str().map(|id| format!("{prefix}-{id}")) {
        field["id"] = id.into();
    }
    for option in field.get_mut("options").and_then(Value::as_array_mut).into_iter().flatten() {
        own_ids(option, prefix);
    }
}

/// A schedule and what will not work, in words: for the first look and while one types.
pub fn preview(view: &Value) -> Value {
    let schedule = &view["schedule"];
    let times: Vec<Value> = schedule["next"]
        .as_array()
        .into_iter()
        .flatten()
        .zip(schedule["next_local"].as_array().into_iter().flatten())
        .map(|(at, local)| json!({"at": super::words::at(at.as_u64().unwrap_or(0)), "local": zoned(local.as_str().unwrap_or_default())}))
        .collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let list = |name: &str| -> Vec<Value> {
        view[name].as_array().into_iter().flatten().map(|w| json!({"detail": sentence(&text(&w["detail"]))})).collect()
    };
    json!({
        "words": sentence(&text(&schedule["words"])),
        "scheduled": schedule.is_object(),
        "times": times,
        "warnings": list("warnings"),
        "problems": list("problems"),
    })
}

/// A reason's detail as a sentence: a large letter first, a full stop last.
pub fn sentence(text: &str) -> String {
    let mut letters = text.trim().chars();
    let out: String = letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect());
    if out.is_empty() || out.ends_with(['.', '!', '?', ':']) { out } else { format!("{out}.") }
}

/// `2026-11-29T02:00:00+01:00` as `2026-11-29 02:00 +01:00`.
fn zoned(rfc3339: &str) -> String {
    let (date, time) = rfc3339.split_once('T').unwrap_or((rfc3339, ""));
    let offset = time.get(8..).unwrap_or_default().replace('Z', "UTC");
    format!("{date} {} {offset}", time.get(..5).unwrap_or_default()).trim_end().to_string()
}

/// Versions that there are of a product, highest first, for the field's suggestions.
pub async fn versions(ask: &Ask, product: &str) -> Result<Vec<String>, Reason> {
    let all = ask.command(AdminWire { command: "releases".into(), ..Default::default() }).await?;
    let mut out = vec!["latest".to_string()];
    for release in all["releases"].as_array().into_iter().flatten() {
        if release["product"] == product
            && let Some(version) = release["version"].as_str()
            && !out.iter().any(|v| v == version)
        {
            out.push(version.to_string());
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        Form::parse(text).unwrap()
    }

    #[test]
    fn only_what_counts_is_sent() {
        let all = "mode=auto&method=schedule&when=cron&cron=0+2+*+*+0&interval=1h&zone=UTC&version=latest";
        let wire = typed(&form(all));
        assert_eq!((wire.cron.as_deref(), wire.interval, wire.zone.as_deref()), (Some("0 2 * * 0"), None, Some("UTC")));
        let wire = typed(&form(&all.replace("when=cron", "when=interval")));
        assert_eq!((wire.cron, wire.interval.as_deref()), (None, Some("1h")));
        let wire = typed(&form(&all.replace("schedule", "immediate")));
        assert_eq!((wire.method.as_deref(), wire.cron, wire.zone), (Some("immediate"), None, None));
        let wire = typed(&form(&all.replace("mode=auto", "mode=manual")));
        assert_eq!((wire.mode.as_deref(), wire.method, wire.version.as_deref()), (Some("manual"), None, Some("latest")));
    }

    #[test]
    fn what_is_missing_is_said_beside_its_field() {
        let errors = |text: &str| missing(&form(text), true);
        assert!(errors("mode=").is_empty(), "the toggle is off");
        assert!(!errors("custom=on").of("mode").is_empty());
        assert!(!errors("custom=on&mode=auto").of("method").is_empty());
        assert!(!errors("custom=on&mode=auto&method=schedule&when=cron").of("cron").is_empty());
        assert!(!errors("custom=on&mode=auto&method=schedule&when=interval").of("interval").is_empty());
        assert!(errors("custom=on&mode=manual").is_empty() && errors("custom=on&mode=auto&method=immediate").is_empty());
    }

    #[test]
    fn a_new_custom_policy_begins_as_what_counts_now() {
        let view = json!({
            "custom": false, "revision": 7, "typed": {"mode": null, "version": "2.5.0"},
            "inherited": [{"field": "mode", "value": "auto"}, {"field": "interval", "value": "3600s"}, {"field": "version", "value": "latest"}],
        });
        let form = filled(&view);
        assert_eq!((form.get("mode"), form.get("version"), form.get("interval")), ("auto", "2.5.0", "3600s"));
        assert_eq!((form.get("when"), form.get("revision"), form.has("custom")), ("interval", "7", false));
    }

    #[test]
    fn times_read_as_people_write_them() {
        assert_eq!(zoned("2026-11-29T02:00:00+01:00"), "2026-11-29 02:00 +01:00");
        assert_eq!(zoned("2026-11-29T02:00:00Z"), "2026-11-29 02:00 UTC");
    }
}
