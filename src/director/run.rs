//! The life of the process: open everything, serve, stop in order.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smol::LocalExecutor;
use smol::io::AsyncReadExt;

use super::admin;
use super::args::Run;
use super::certificates::{self, Naming};
use super::config;
use super::config::start::Settings;
use super::extra::Extra;
use super::mirror::Mirror;
use super::own::{self, Begun, Own};
use super::pki::SiteCa;
use super::refresh;
use super::registry::Registry;
use super::role::Role;
use super::service::Front;
use super::site::{About, Site, load};
use super::store::{Store, damaged};
use super::uplink;
use crate::agent::run::RunArgs;
use crate::core::keep::Facts;
use crate::core::trust::ROOT_MAX;
use crate::io::fs::{make_folder, read_limited};
use crate::io::lock::{Lock, Taken};
use crate::io::serve::{Limits, serve};
use crate::io::user::become_owner_of;
use crate::io::{clock, notify, open_files, signals, tls};

/// Connections that may wait to be accepted: most of a large fleet after a restart.
const QUEUE: i32 = 4096;
/// Longest time that a stop waits for answers under way.
const STOP_MAX: Duration = Duration::from_secs(3);
/// Of it, for answers that their peers do not take.
const SENT_MAX: Duration = Duration::from_millis(100);
/// How often that is looked at: agents wait for the next version.
const LEAVE_LOOK: Duration = Duration::from_millis(1);
/// How often the trials are looked at before a stop.
const DRAIN_LOOK: Duration = Duration::from_millis(200);
/// How often the service manager may hear that the server lives.
const ALIVE: Duration = Duration::from_secs(10);
/// How often old events are removed.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);

/// Runs until SIGTERM or SIGINT, or until another version of it takes this process over. The exit code.
///
/// # Errors
/// One sentence: what cannot be used, and what to do.
pub fn run(args: &Run, role: &'static Role, extra: Option<Rc<dyn Extra>>, launch: Option<RunArgs>) -> Result<i32, String> {
    make_folder(&args.state).map_err(|e| format!("{}: {e}; check the folder's owner and rights", args.state.display()))?;
    become_owner_of(&args.state).map_err(|e| format!("{}: its owner cannot be become: {e}", args.state.display()))?;
    let (own, _lock) = match launch.map(own::begin).transpose()? {
        Some(Begun::Director(own)) => (Some(own), None),
        Some(Begun::Ended(code)) => return Ok(code),
        None => (None, Some(take_lock(&args.state.join("run.lock"), role)?)),
    };
    let stop = signals::stop_signals().map_err(|e| format!("signals: {e}"))?;
    let how = stop.try_clone().map_err(|e| format!("signals: {e}")).and_then(|stop| serve_site(args, role, extra, own.as_ref(), stop));
    match own {
        Some(own) => own.end(how, &stop).map(|()| 0),
        None => how.map(|_| 0),
    }
}

/// True: the launcher is wanted.
fn serve_site(
    given: &Run,
    role: &'static Role,
    extra: Option<Rc<dyn Extra>>,
    own: Option<&Rc<Own>>,
    stop: UnixStream,
) -> Result<bool, String> {
    let now = clock::unix();
    let (args, settings) = &match role.configured {
        true => config::start::resolve(given)?,
        false => (given.clone(), Settings::default()),
    };
    let path = args.state.join(role.store);
    let (store, mut registry) = read_state(&path, role, now)?;
    registry.role = role;
    let depends = |yes| own.iter().for_each(|own| own.outside(yes));
    depends(true);
    let listeners = bind(&args.listen, role)?;
    depends(false);
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    let naming = Naming { name: args.name.clone(), addresses, files: args.tls.clone() };
    let ca = SiteCa::open_or_create(&args.state.join("pki"), &naming.names(), certificates::now()).map_err(|r| r.to_string())?;
    if let Some(files) = &naming.files {
        ca.set_company(files.load().map_err(|r| r.detail.clone())?);
    }
    let mirror = mirror(args, role)?;
    // Its artifacts are read and verified beside the first polls: they may be gigabytes, and agents wait for this start.
    let tree = mirror.metadata_on_disk().map_err(|r| format!("root metadata: {r}"))?;
    let site = Site::new(registry, store, ca, tree);
    *site.settings.borrow_mut() = settings.clone();
    config::watch::apply(&site);
    let addresses = &naming.addresses;
    let url = format!("https://{}", with_port(&naming.name(), addresses.first().map_or(0, SocketAddr::port)));
    *site.naming.borrow_mut() = naming.clone();
    *site.extra.borrow_mut() = extra;
    *site.about.borrow_mut() =
        About { listen: addresses.iter().map(|a| a.to_string()).collect(), url, mirror: args.mirror.clone().unwrap_or_default() };
    greet(&site, given);
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(live(&executor, site, listeners, mirror, naming, given, (own, stop))))
}

/// The lock tells `-service` and a second server which process works with this state folder.
fn take_lock(path: &Path, role: &Role) -> Result<Lock, String> {
    Lock::take(path).map_err(|taken| match taken {
        Taken::By(pid) => {
            let who = pid.map_or("another process".to_string(), |pid| format!("process {pid}"));
            format!("{}: {} runs already with this state folder: {who}", path.display(), role.program)
        }
        Taken::Error(e) => format!("{}: {e}; check the folder's owner and rights", path.display()),
    })
}

/// Opens the store. redb answers most damage with an error and some with a panic; both end in the same sentence.
fn read_state(path: &Path, role: &'static Role, now: u64) -> Result<(Store, Registry), String> {
    // An empty file would be taken for a new one, and every agent forgotten without a word.
    if path.metadata().is_ok_and(|m| m.len() == 0) {
        return Err(damaged(path, "it is empty"));
    }
    let text = damaged(path, "it cannot be read");
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |_| {
        eprintln!("{}: {text}", role.program);
        std::process::exit(1);
    }));
    let read = Store::open(path).and_then(|store| {
        let registry = load(&store, now)?;
        Ok((store, registry))
    });
    std::panic::set_hook(before);
    read
}

async fn live(
    executor: &Rc<LocalExecutor<'static>>,
    site: Rc<Site>,
    listeners: Vec<TcpListener>,
    mirror: Mirror,
    naming: Naming,
    given: &Run,
    (own, stop): (Option<&Rc<Own>>, UnixStream),
) -> Result<bool, String> {
    let state = given.state.as_path();
    let mut stop = smol::Async::new(stop).map_err(|e| format!("signals: {e}"))?;
    executor.spawn(site.store.clone().commit_forever()).detach();
    let started = format!("{}_started", site.role.code);
    site.registry.borrow_mut().event(clock::unix(), "", &started, env!("VMETRIC_BUILT_VERSION"), None);
    site.flush();
    // What the disk refuses at the start is an error at the start, not of the first agent.
    site.store.durable().await?;
    let extra = site.extra.borrow().clone();
    if let Some(extra) = &extra {
        extra.prepare(&site, executor).await?;
        extra.start(&site, executor)?;
    }
    executor.spawn(site.clone().plan_forever()).detach();
    executor.spawn(refresh::forever(site.clone(), Arc::new(mirror))).detach();
    if site.role.configured {
        executor.spawn(config::watch::forever(site.clone(), given.clone())).detach();
        executor.spawn(uplink::forever(site.clone(), state.to_path_buf())).detach();
        executor.spawn(super::cluster::peers::forever(site.clone())).detach();
        executor.spawn(super::policing::hand::follow(site.clone())).detach();
    }
    executor.spawn(keep_house(site.clone())).detach();
    executor.spawn(certificates::watch(site.clone(), naming)).detach();
    let socket = admin::bind(state).map_err(|e| format!("{}: {e}", state.join(admin::SOCKET).display()))?;
    let administration = executor.spawn(admin::serve(socket, site.clone(), executor.clone()));
    let tls = site.ca.server_config();
    let limits = Limits { connections: connections(&site), ..Limits::default() };
    for listener in listeners {
        let (tls, site, executor_too) = (tls.clone(), site.clone(), executor.clone());
        let front = async move {
            if let Err(e) = serve(listener, tls, Rc::new(Front(site)), &executor_too, limits).await {
                log::error!("a listener failed: {e}");
            }
        };
        executor.spawn(front).detach();
    }
    match own {
        Some(own) => own.serve(&site, executor)?,
        None => executor.spawn(say_alive()).detach(),
    }
    notify::ready(&format!("listens on {}", site.about.borrow().listen.join(", ")));
    let relaunch = leaves(own, &site, &mut stop).await;
    log::info!("stopping: {} parked polls are answered", site.parked());
    drop(administration);
    leave(&site).await?;
    let _ = crate::io::fs::remove_if_there(&state.join(admin::SOCKET));
    Ok(relaunch)
}

/// Waits for the end, and then for the agents on trial. True: another version takes over.
async fn leaves(own: Option<&Rc<Own>>, site: &Site, stop: &mut smol::Async<UnixStream>) -> bool {
    let stopped = async {
        let _ = stop.read(&mut [0]).await;
        None
    };
    let asked = async {
        match own {
            Some(own) => Some(own.asked_to_leave().await),
            None => std::future::pending().await,
        }
    };
    let why = smol::future::or(stopped, asked).await;
    let end = |own: &Rc<Own>| own.stop();
    match &why {
        Some(reason) => log::info!("another version takes over: {reason}"),
        None => {
            own.into_iter().for_each(end);
            notify::stopping("stopping");
        }
    }
    // A signal ends the wait, and whatever else was meant to come.
    let signalled = drain(site, stop).await;
    if signalled {
        own.into_iter().for_each(end);
    }
    why.is_some() && !signalled
}

/// Waits until no agent is on trial: each of them needs this Director's word, and would go back without it. Bounded by
/// their deadlines; a second signal ends the wait: true.
async fn drain(site: &Site, stop: &mut smol::Async<UnixStream>) -> bool {
    site.draining.set(true);
    let mut told = 0;
    loop {
        let now = clock::unix();
        let (agents, until) = site.registry.borrow().trials(now);
        if agents == 0 {
            return false;
        }
        if told != agents {
            told = agents;
            let detail = format!(
                "{agents} {} are on trial; stops when they are done, at {} at the latest",
                site.role.nodes,
                super::table::utc(until)
            );
            notify::stopping(&format!("{detail}; a second SIGTERM ends the wait"));
            let stopping = format!("{}_stopping", site.role.code);
            site.registry.borrow_mut().event(now, "", &stopping, detail, None);
            site.flush();
        }
        let again = async {
            let mut byte = [0];
            let _ = stop.read(&mut byte).await;
            true
        };
        let pause = async {
            smol::Timer::after(DRAIN_LOOK).await;
            false
        };
        if smol::future::or(again, pause).await {
            log::warn!("stopping at once: a second signal; {agents} {} on trial wait for the next start", site.role.nodes);
            return true;
        }
    }
}

/// Answers all parked polls and writes what is pending.
async fn leave(site: &Site) -> Result<(), String> {
    site.stop();
    let deadline = clock::monotonic() + STOP_MAX;
    // Woken polls leave their places when their answers are made, and those count until they are sent.
    while site.parked() > 0 && clock::monotonic() < deadline {
        smol::Timer::after(LEAVE_LOOK).await;
    }
    let deadline = deadline.min(clock::monotonic() + SENT_MAX);
    while site.answering.get() > 0 && clock::monotonic() < deadline {
        smol::Timer::after(LEAVE_LOOK).await;
    }
    let stopped = format!("{}_stopped", site.role.code);
    site.registry.borrow_mut().event(clock::unix(), "", &stopped, "", None);
    site.flush();
    site.store.durable().await?;
    site.store.close();
    Ok(())
}

/// The service manager's watchdog hears of it as long as this task gets its turns.
async fn say_alive() {
    loop {
        notify::alive();
        smol::Timer::after(ALIVE).await;
    }
}

async fn keep_house(site: Rc<Site>) {
    loop {
        let now = clock::unix();
        {
            let mut registry = site.registry.borrow_mut();
            registry.prune_activity(now);
            registry.prune_quarantine(now);
            registry.prune_approvals(now);
            registry.prune_rollouts(now);
            registry.prune_spent(now);
        }
        site.flush();
        smol::Timer::after(HOUSEKEEPING).await;
    }
}

/// How many connections fit into the limit of open files, which is raised first; a limit that is too low for the agents
/// that there are is told at once, not when the first of them finds no place.
fn connections(site: &Site) -> usize {
    let wanted = Limits::default().connections;
    let Err(reason) = open_files::raise(wanted as u64) else { return wanted };
    let fit = usize::try_from(open_files::connections()).unwrap_or(wanted).clamp(1, wanted);
    let agents = site.registry.borrow().agents.values().filter(|a| a.removed_at.is_none()).count();
    if fit < agents {
        let detail = format!("{agents} {}, {fit} connections: {}", site.role.nodes, reason.detail);
        site.registry.borrow_mut().event(clock::unix(), "", "open_files_too_low", detail, None);
        site.flush();
    } else {
        log::info!("{fit} connections fit into the limit of open files");
    }
    fit
}

fn bind(addresses: &[SocketAddr], role: &Role) -> Result<Vec<TcpListener>, String> {
    let default: SocketAddr = role.listen.parse().map_err(|_| "no default address")?;
    let addresses = if addresses.is_empty() { &[default] } else { addresses };
    let one = |address: &SocketAddr| {
        let listener = TcpListener::bind(address).map_err(|e| format!("listen {address}: {e}"))?;
        open_files::widen_queue(&listener, QUEUE);
        Ok(listener)
    };
    addresses.iter().map(one).collect()
}

fn root_file(args: &Run) -> Result<&Path, String> {
    args.root
        .as_deref()
        .ok_or_else(|| "run needs --root, or `root:` in vmetric.yml: the root.json that `vmetric-release init` made".to_string())
}

fn mirror(args: &Run, role: &Role) -> Result<Mirror, String> {
    let file = root_file(args)?;
    let root = read_limited(file, ROOT_MAX).map_err(|e| format!("root {}: {e}", file.display()))?;
    let root = root
        .ok_or_else(|| format!("root {}: there is no such file; it is the root.json that `vmetric-release init` made", file.display()))?;
    let source = config::start::source(args);
    let floor = env!("VMETRIC_BUILT_TIME").parse().unwrap_or(0);
    Ok(Mirror {
        source,
        folder: args.state.join("release"),
        trust: args.state.join("trust"),
        root,
        floor,
        // Until the registry is asked, nothing is fetched.
        facts: Facts { fetched: Some(Default::default()), ..Facts::default() },
        allowance: None,
        user_agent: role.user_agent,
    })
}

fn with_port(name: &str, port: u16) -> String {
    match name.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{name}:{port}"),
    }
}

/// What a person needs to go on: where, which pin, how to enroll.
fn greet(site: &Site, given: &Run) {
    let state = &given.state;
    match &site.settings.borrow().file {
        Some(file) => log::info!("configuration {}", file.display()),
        None if !site.role.configured => {}
        None => log::info!("no configuration file; the command line and the defaults count"),
    }
    let (about, pin) = (site.about.borrow(), tls::pin_text(&site.ca.pin()));
    let (role, state) = (site.role, state.display());
    log::info!("{} {} listens on {}", role.program, env!("VMETRIC_BUILT_VERSION"), about.listen.join(", "));
    log::info!("site CA pin {pin}");
    log::info!("to enroll: {} {} create --state {state}", role.program, role.token);
    let (program, at, with) = (role.product.name, role.enroll_at, role.enroll_with);
    log::info!("then: {program} enroll {at} {} --pin {pin} {with} ...", about.url);
}
