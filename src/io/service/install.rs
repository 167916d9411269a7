//! `install` and `uninstall`: everything is checked, then everything is written; a second time changes nothing.

use std::io::{BufRead, IsTerminal};
use std::os::unix::fs::symlink;

use super::live::{running, set_inittab};
use super::look::{at, facts, failed, read};
use super::unix::{Site, differs_from, make_parents, standing_of};
use super::{Command, state};
use crate::core::reason::Reason;
use crate::core::service::inittab::Line;
use crate::core::service::layout::File;
use crate::core::service::unit::{Standing, recorded};
use crate::core::service::{Act, Manager, check};
use crate::io::fs::{remove_all, remove_if_there, sync_folder_of, write_durable};

impl Command<'_> {
    pub(super) fn install(&mut self, site: &Site) -> Result<i32, Reason> {
        let name = self.product.name;
        let asked = self.asked;
        let facts = facts(&site.spec, &site.root, site.live);
        check::install(&site.spec, &facts, asked.force)?;
        self.check_options(site)?;
        let files = self.to_write(site)?;
        // From here on things change.
        let mut changed = Vec::new();
        if state::ensure_user(&site.spec, site.manager, &site.root, site.live)? {
            changed.push(format!("user {}", site.spec.user));
        }
        if state::ensure_folder(&site.spec, &site.root)? {
            changed.push(site.spec.state.clone());
        }
        for (file, standing) in files {
            self.write(site, file, matches!(standing, Standing::Edited | Standing::Foreign))?;
            changed.push(match standing {
                Standing::Older => format!("{} (it was of an older template)", file.path),
                _ => file.path.clone(),
            });
        }
        // Without a start, runsvdir must not start what it finds.
        let hold = site.live && !asked.now && site.manager == Manager::Runit && !site.enabled()?;
        if hold {
            let down = at(&site.root, &format!("/etc/sv/{name}/down"));
            write_durable(&down, b"", 0o644).map_err(|e| failed(&down, &e))?;
        }
        if let Some(what) = enable(site)? {
            changed.push(what);
        }
        if site.live && !changed.is_empty() {
            site.live().reload()?;
        }
        if hold {
            site.live().hold(&site.root)?;
        }
        match changed.is_empty() {
            true => (self.say)(&format!("{name} is installed as a service of {} already: nothing changed", site.manager.name())),
            false => {
                (self.say)(&format!("{name} is installed as a service of {}: {}", site.manager.name(), changed.join(", ")));
                let runs = site.live && running(&at(&site.root, &site.spec.state)).is_some();
                match runs {
                    true => (self.say)(&format!("it runs as before until: {name} -service restart")),
                    false if site.live && !asked.now => (self.say)(&format!("it starts at the next boot, or now: {name} -service start")),
                    false => {}
                }
            }
        }
        if asked.now {
            let live = running(&at(&site.root, &site.spec.state)).is_some();
            site.live().act(if live && !changed.is_empty() { Act::Restart } else { Act::Start })?;
            (self.say)(&format!("{name} runs"));
        }
        Ok(0)
    }

    /// A service that can only ever end with wrong usage is not installed. What `/etc/default` adds is not known here.
    fn check_options(&self, site: &Site) -> Result<(), Reason> {
        let name = self.product.name;
        let more = format!("/etc/default/{name}");
        let words: Vec<String> = site.spec.words()[1..].iter().map(|word| word.to_string()).collect();
        match (self.wrong)(&words).filter(|_| !at(&site.root, &more).exists()) {
            None => Ok(()),
            Some(what) => {
                let remedy = format!("name the options of `run` after --, or in {more} (VMETRIC_OPTIONS=) before");
                Err(Reason::new("service_options", format!("{name} {}: {what}; {remedy}", words.join(" "))))
            }
        }
    }

    /// The files that have to be written, and what is there.
    fn to_write<'s>(&self, site: &'s Site) -> Result<Vec<(&'s File, Standing)>, Reason> {
        let name = self.product.name;
        if let Some(path) = &site.packaged {
            let found = recorded(&read(&at(&site.root, path))?.unwrap_or_default());
            if differs_from(&found, &site.spec) {
                let remedy =
                    format!("put run options into /etc/default/{name} (VMETRIC_OPTIONS=), anything else into: systemctl edit {name}");
                return Err(Reason::new("unit_packaged", format!("{path} belongs to a package, and has other settings: {remedy}")));
            }
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for file in &site.layout.files {
            let standing = standing_of(&site.root, &file.path, &file.text)?;
            let kept = format!("--replace writes it anew and keeps this one as {}.replaced", file.path);
            let refused = |code, what: String| Err(Reason::new(code, format!("{} {what}", file.path)));
            match standing {
                Standing::Current => continue,
                Standing::Edited if !self.asked.replace => {
                    let remedy = match site.manager {
                        Manager::Systemd => format!("move that into a drop-in (systemctl edit {name}); {kept}"),
                        _ => format!("move that into /etc/default/{name} where it fits; {kept}"),
                    };
                    return refused("unit_edited", format!("was edited by hand since it was installed: {remedy}"));
                }
                Standing::Foreign if !self.asked.replace => {
                    return refused("unit_foreign", format!("was not written by this program: {kept}"));
                }
                Standing::Newer if !self.asked.replace => {
                    return refused("unit_newer", "was written by a newer version of this program: it fits, leave it".into());
                }
                _ => files.push((file, standing)),
            }
        }
        Ok(files)
    }

    fn write(&mut self, site: &Site, file: &File, keep: bool) -> Result<(), Reason> {
        let path = at(&site.root, &file.path);
        make_parents(&path)?;
        if keep && let Some(old) = read(&path)? {
            let aside = at(&site.root, &format!("{}.replaced", file.path));
            // Not executable: OpenRC takes every program in its folder for a service.
            write_durable(&aside, old.as_bytes(), 0o644).map_err(|e| failed(&aside, &e))?;
        }
        write_durable(&path, file.text.as_bytes(), file.mode).map_err(|e| failed(&path, &e))
    }

    pub(super) fn uninstall(&mut self, site: &Site) -> Result<i32, Reason> {
        let name = self.product.name;
        if let Some(path) = &site.packaged {
            let remedy = format!("remove the package; to keep it and not run it: systemctl disable --now {name}");
            return Err(Reason::new("unit_packaged", format!("{path} belongs to a package: {remedy}")));
        }
        if site.main == Standing::Foreign {
            return Err(Reason::new("unit_foreign", format!("{} was not written by this program: remove it by hand", site.file())));
        }
        if self.asked.purge {
            self.confirm(site)?;
        }
        let installed = site.main != Standing::Absent;
        if installed && site.live {
            site.live().act(Act::Stop)?;
        }
        if let Some((link, _)) = &site.layout.link {
            let link = at(&site.root, link);
            remove_if_there(&link).map_err(|e| failed(&link, &e))?;
        }
        if site.manager == Manager::BusyBox {
            match site.live && installed {
                true => site.live().inittab(Line::Absent)?,
                false => drop(set_inittab(&site.root, self.product, site.file(), Line::Absent)?),
            }
        }
        if installed && site.live && site.manager == Manager::Runit {
            site.live().let_go()?;
        }
        for path in site.layout.files.iter().map(|f| &f.path).chain(&site.layout.folders) {
            let path = at(&site.root, path);
            remove_all(&path).map_err(|e| failed(&path, &e))?;
            // Where it was ours alone; another service's file keeps it.
            path.parent().filter(|folder| folder.ends_with("etc/vmetric")).map(std::fs::remove_dir);
        }
        if installed && site.live {
            site.live().reload()?;
        }
        match installed {
            true => (self.say)(&format!("{name} is no service of {} any more", site.manager.name())),
            false => (self.say)(&format!("{name} was not installed as a service of {}: nothing changed", site.manager.name())),
        }
        let folder = at(&site.root, &site.spec.state);
        if self.asked.purge {
            state::purge(&site.spec, &site.root)?;
            (self.say)(&format!("removed with all that was in it: {}; the user {} stays", folder.display(), site.spec.user));
        } else if folder.exists() {
            (self.say)(&format!("kept: {} (identity, slots); --purge removes it", folder.display()));
        }
        Ok(0)
    }

    /// Data go only by an answer: `--yes`, or `yes` at a terminal.
    fn confirm(&mut self, site: &Site) -> Result<(), Reason> {
        let folder = at(&site.root, &site.spec.state);
        if self.asked.yes || !folder.exists() {
            return Ok(());
        }
        let refused = |what: &str| Err(Reason::new("purge_unanswered", format!("{}: {what}; nothing was changed", folder.display())));
        if !std::io::stdin().is_terminal() {
            return refused("--purge needs --yes where no terminal can answer");
        }
        (self.say)(&format!("{} goes with this device's identity and every slot in it. Remove it? Type yes:", folder.display()));
        let mut answer = String::new();
        let _ = std::io::stdin().lock().read_line(&mut answer);
        if answer.trim() == "yes" { Ok(()) } else { refused("kept, as the answer was not yes") }
    }
}

/// Enables the service; what was changed.
fn enable(site: &Site) -> Result<Option<String>, Reason> {
    if let Some((link, to)) = &site.layout.link {
        let path = at(&site.root, link);
        if path.symlink_metadata().is_ok() {
            return Ok(None);
        }
        make_parents(&path)?;
        symlink(to, &path).and_then(|()| sync_folder_of(&path)).map_err(|e| failed(&path, &e))?;
        return Ok(Some(link.clone()));
    }
    if site.manager == Manager::BusyBox && set_inittab(&site.root, site.spec.product, site.file(), Line::Runs)? {
        return Ok(Some("/etc/inittab".into()));
    }
    Ok(None)
}
