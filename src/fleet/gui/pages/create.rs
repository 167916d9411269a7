//! Creation wizards of Directors and clusters, each with its Update Management step.

use serde_json::{Value, json};

use super::Templates;
use super::directors::PATH as DIRECTORS;
use crate::core::access::Act;
use crate::core::cluster::{MEMBERS_MAX, MEMBERS_MIN};
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::fleet::access::encoded;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::form::{Errors, Form};
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Page, Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::settings::{self, sentence};
use crate::fleet::gui::wizard::Wizard;
use crate::fleet::gui::words;
use crate::wire::settings::FIELDS;

/// Clusters of Directors.
pub const CLUSTERS: &str = "/fleet-management/clusters";
const NEW_DIRECTOR: &str = "/fleet-management/directors/new";
const NEW_CLUSTER: &str = "/fleet-management/clusters/new";

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: NEW_DIRECTOR, id: "director-new", need: Act::Enroll, page: |ask| Box::pin(director(ask)) as Paged },
    Route { method: "POST", path: NEW_DIRECTOR, id: "director-new-step", need: Act::Enroll, page: |ask| Box::pin(director(ask)) as Paged },
    Route { method: "GET", path: NEW_CLUSTER, id: "cluster-new", need: Act::EditPolicy, page: |ask| Box::pin(cluster(ask)) as Paged },
    Route { method: "POST", path: NEW_CLUSTER, id: "cluster-new-step", need: Act::EditPolicy, page: |ask| Box::pin(cluster(ask)) as Paged },
];

/// Templates.
pub static TEMPLATES: Templates = &[
    ("wizard-steps", include_str!("../templates/wizard-steps.html")),
    ("wizard", include_str!("../templates/wizard.html")),
    ("cluster-members", include_str!("../templates/cluster-members.html")),
    ("install", include_str!("../templates/install.html")),
];

const DIRECTOR: Wizard = Wizard { steps: &["Director Setup", "Update Management", "Connect Director"], done: "Create Director" };
const CLUSTER: Wizard =
    Wizard { steps: &["Cluster Details", "Cluster Configuration", "Update Management", "Done"], done: "Create cluster" };
/// How long a command is good: value in seconds, label.
pub const LIVES: [(&str, &str); 4] = [("3600", "1 hour"), ("86400", "1 day"), ("604800", "7 days"), ("2592000", "30 days")];
/// Longest name of anything that a wizard makes.
pub const NAME_MAX: usize = 60;

/// Names of the fields of the Update Management step.
pub fn settings_names() -> Vec<&'static str> {
    FIELDS.into_iter().chain(["custom", "when", "revision"]).collect()
}

/// What is wrong in an Update Management step, as far as the form itself tells; the command has the last word.
pub fn settings_errors(form: &Form) -> Errors {
    let mut errors = settings::missing(form, true);
    if errors.is_empty()
        && settings::custom(form, true)
        && let Err(wrong) = settings::typed(form).check()
    {
        errors.add(wrong.field, sentence(&wrong.what));
    }
    errors
}

/// The settings of a wizard; nothing while the toggle is off.
pub fn chosen(form: &Form) -> Option<crate::wire::settings::SettingsWire> {
    settings::custom(form, true).then(|| settings::typed(form))
}

/// What is wrong with a name.
pub fn name_errors(form: &Form, field: &str) -> Errors {
    let mut errors = Errors::default();
    match form.get(field) {
        "" => errors.add(field, "Type a name."),
        name if name.chars().count() > NAME_MAX => errors.add(field, format!("At most {NAME_MAX} characters.")),
        _ => {}
    }
    errors
}

fn number_errors(form: &Form, field: &str, most: u64, errors: &mut Errors) {
    if !matches!(form.get(field).parse::<u64>(), Ok(n) if n >= 1 && n <= most) {
        errors.add(field, format!("A whole number from 1 to {most}."));
    }
}

/// A step's page.
pub fn step(title: &str, frame: Value, lead: &str, fields: Vec<Value>, settings: Option<Value>, cancel: &str) -> Page {
    let wrong = fields.iter().chain(settings.iter().flat_map(|s| s.as_object().into_iter().flat_map(|o| o.values())));
    let wrong = wrong.clone().any(|f| f["error"].as_str().is_some_and(|e| !e.is_empty())) || frame["problem"] != "";
    let context = json!({
        "title": title,
        "frame": frame,
        "lead": lead,
        "fields": fields,
        "has_settings": settings.is_some(),
        "settings": settings.unwrap_or(Value::Null),
        "cancel": cancel,
    });
    Page::new(title, "wizard", context).status(if wrong { 422 } else { 200 })
}

/// The Update Management step's fields.
pub async fn settings_step(ask: &Ask, product: &str, errors: &Errors, whom: &str) -> Result<Value, Reason> {
    let versions = settings::versions(ask, product).await?;
    Ok(settings::fields(&ask.form, errors, true, &versions, whom, "new"))
}

async fn director(ask: Ask) -> Result<Reply, Reason> {
    let at = DIRECTOR.at(&ask, |step, form| match step {
        0 => {
            let mut errors = name_errors(form, "name");
            number_errors(form, "uses", 1_000, &mut errors);
            errors
        }
        _ => settings_errors(form),
    });
    if at.finish {
        match connect(&ask).await {
            Ok(page) => return page.below(&trail("Directors", DIRECTORS)).reply(),
            Err(reason) => return director_step(&ask, 0, &Errors::default(), &sentence(&reason.detail)).await,
        }
    }
    director_step(&ask, at.step, &at.errors, "").await
}

fn trail<'a>(name: &'a str, path: &'a str) -> [(&'a str, &'a str); 2] {
    [("Fleet Management", ""), (name, path)]
}

async fn director_step(ask: &Ask, at: usize, errors: &Errors, problem: &str) -> Result<Reply, Reason> {
    let title = "Create Director";
    if at == 1 {
        let settings = settings_step(ask, "vmetric-director", errors, "the new Director").await?;
        let frame = DIRECTOR.frame(ask, 1, &settings_names(), problem);
        return step(title, frame, "", Vec::new(), Some(settings), DIRECTORS).below(&trail("Directors", DIRECTORS)).reply();
    }
    let typed = |input: Input, name: &str, otherwise: &str| {
        let value = ask.form.get(name);
        input.value(if value.is_empty() && !ask.form.has(name) { otherwise } else { value }).error(errors.of(name)).json()
    };
    let archs = [("amd64", "x86-64 (amd64)"), ("arm64", "ARM 64 (arm64)")];
    let fields = vec![
        typed(Input::text("name", "Name").required().help("For you: where it will stand, such as a site."), "name", ""),
        typed(Input::select("arch", "Architecture", &archs).help("Directors run on Linux."), "arch", "amd64"),
        typed(Input::text("uses", "Directors").kind("number").help("How many may be installed with this command."), "uses", "1"),
        typed(Input::select("ttl", "Good for", &LIVES).help("After that the command installs nothing."), "ttl", "3600"),
        Input::tick("approval", "Approve each Director")
            .checked(ask.form.has("approval"))
            .help("It waits until somebody here approves it.")
            .json(),
    ];
    let names = ["name", "arch", "uses", "ttl", "approval"];
    let frame = DIRECTOR.frame(ask, 0, &names, problem);
    let lead = "The wizard makes one command. Run it on the Director's host: it installs, verifies, enrolls and starts.";
    step(title, frame, lead, fields, None, DIRECTORS).below(&trail("Directors", DIRECTORS)).reply()
}

async fn connect(ask: &Ask) -> Result<Page, Reason> {
    let made = ask.command(AdminWire {
        command: "install-command".into(),
        os: Some("linux".into()),
        arch: ask.form.some("arch"),
        uses: ask.form.get("uses").parse().ok(),
        ttl_s: ask.form.get("ttl").parse().ok(),
        approval: Some(ask.form.has("approval")),
        label: ask.form.some("name"),
        settings: chosen(&ask.form),
        ..Default::default()
    });
    let made = made.await?;
    let text = |name: &str| made[name].as_str().unwrap_or_default().to_string();
    let commands = vec![
        command(
            "install",
            "Linux with systemd",
            "As root, on the new host. It holds a secret key: treat it as a password.",
            &text("command"),
        ),
        command("enroll", "A Director that is installed already", "Only enrolls it, with the same key.", &text("enroll")),
    ];
    let frame = DIRECTOR.frame(ask, 2, &[], "");
    Ok(installed("Create Director", frame, &made, commands, DIRECTORS, "To the Directors"))
}

/// One command to copy.
pub fn command(id: &str, name: &str, about: &str, text: &str) -> Value {
    json!({"id": id, "name": name, "about": about, "text": text.trim_end()})
}

/// The last step: what to run, and what it trusts.
pub fn installed(title: &str, frame: Value, made: &Value, commands: Vec<Value>, next: &str, next_name: &str) -> Page {
    let text = |name: &str| made[name].as_str().unwrap_or_default().to_string();
    let fact =
        |name: &str, value: String, mono: bool| json!({"name": name, "value": value, "mono": mono, "is_time": false, "time": Value::Null});
    let until = json!({"name": "Good until", "value": "", "mono": false, "is_time": true, "time": words::at(made["expires_at"].as_u64().unwrap_or(0))});
    let facts = vec![
        fact("Version", text("version"), false),
        fact("SHA-256", text("sha256"), true),
        fact("Pin", text("pin"), true),
        fact("Installs", made["uses"].as_u64().unwrap_or(1).to_string(), false),
        until,
    ];
    let lead = "Shown once. Every file that it fetches is compared with the SHA-256 in its text before anything runs.";
    let context = json!({
        "title": title, "frame": frame, "lead": lead, "commands": commands, "facts": facts, "next": next, "next_name": next_name,
        "live": false,
    });
    Page::new(title, "install", context)
}

async fn cluster(ask: Ask) -> Result<Reply, Reason> {
    let at = CLUSTER.at(&ask, |step, form| match step {
        0 => name_errors(form, "name"),
        1 => member_errors(form),
        _ => settings_errors(form),
    });
    if !at.finish {
        return cluster_step(&ask, at.step, &at.errors, "").await;
    }
    let members = ask.form.all("member");
    let wire = AdminWire {
        command: "cluster".into(),
        act: Some("create".into()),
        name: ask.form.some("name"),
        members: Some(members),
        ..Default::default()
    };
    let made = match ask.command(wire).await {
        Ok(made) => made,
        Err(reason) => {
            let (step, field) = if reason.code.starts_with("name_") { (0, "name") } else { (1, "member") };
            let mut errors = Errors::default();
            errors.add(field, sentence(reason.detail.trim_start_matches("name: ")));
            return cluster_step(&ask, step, &errors, "").await;
        }
    };
    let wanted = ask.form.get("name");
    let found = made["clusters"].as_array().into_iter().flatten().find(|c| c["name"] == wanted);
    let id = found.and_then(|c| c["id"].as_str()).unwrap_or_default().to_string();
    if settings::custom(&ask.form, true) {
        let set = AdminWire { expected: None, ..settings::change("set", &format!("cluster/{id}"), &ask.form, true) };
        // It is there already: its page has the panel to try again.
        if let Err(reason) = ask.command(set).await {
            let text = format!("The cluster {wanted} was created, but its policy was not taken: {}", reason.detail);
            return Ok(Reply::See(format!("{CLUSTERS}/{}", encoded(&id)), Some(Toast { bad: true, text })));
        }
    }
    Ok(Reply::See(format!("{CLUSTERS}/{}", encoded(&id)), Toast::good(format!("The cluster {wanted} was created."))))
}

fn member_errors(form: &Form) -> Errors {
    let mut errors = Errors::default();
    let members = form.all("member").len();
    if !(MEMBERS_MIN..=MEMBERS_MAX).contains(&members) || members.is_multiple_of(2) {
        errors.add(
            "member",
            format!("Choose {MEMBERS_MIN} to {MEMBERS_MAX} Directors, an odd number of them: more than half must always be up."),
        );
    }
    errors
}

async fn cluster_step(ask: &Ask, at: usize, errors: &Errors, problem: &str) -> Result<Reply, Reason> {
    let title = "Create cluster";
    let below = trail("Clusters", CLUSTERS);
    let page = match at {
        0 => {
            let name = Input::text("name", "Name").required().value(ask.form.get("name")).error(errors.of("name"));
            let frame = CLUSTER.frame(ask, 0, &["name"], problem);
            step(title, frame, "Members of a cluster have one policy, and are updated one at a time.", vec![name.json()], None, CLUSTERS)
        }
        1 => {
            let frame = CLUSTER.frame(ask, 1, &["member"], problem);
            let mut page = step(title, frame, "", Vec::new(), None, CLUSTERS);
            page.template = "cluster-members";
            page.context["members"] = members(ask).into();
            page.context["error"] = errors.of("member").into();
            page.status(if errors.is_empty() && problem.is_empty() { 200 } else { 422 })
        }
        _ => {
            let settings = settings_step(ask, "vmetric-director", errors, "the new cluster").await?;
            let frame = CLUSTER.frame(ask, 2, &settings_names(), problem);
            step(title, frame, "", Vec::new(), Some(settings), CLUSTERS)
        }
    };
    page.below(&below).reply()
}

/// Directors that are free to be members.
fn members(ask: &Ask) -> Vec<Value> {
    let ticked = ask.form.all("member");
    let registry = ask.site.registry.borrow();
    let all = registry.agents.values().filter(|a| a.removed_at.is_none());
    all.map(|a| {
        let free = registry.cluster_of(&a.id).is_none();
        let name = if a.hostname.is_empty() { a.id.clone() } else { a.hostname.clone() };
        json!({"id": a.id, "name": name, "version": a.version, "free": free, "checked": free && ticked.contains(&a.id)})
    })
    .collect()
}
