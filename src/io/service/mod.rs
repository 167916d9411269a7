//! `-service`: looks at this system, decides with [`crate::core::service`], writes files, calls the service manager.

#[cfg(windows)]
pub mod dispatch;
#[cfg(unix)]
mod install;
#[cfg(unix)]
mod live;
#[cfg(unix)]
mod look;
#[cfg(windows)]
mod scm;
#[cfg(unix)]
mod state;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::path::{Path, PathBuf};

use crate::core::reason::Reason;
use crate::core::service::args::Asked;
use crate::core::service::layout::layout;
use crate::core::service::unit::Settings;
use crate::core::service::{Act, Manager, Product, Spec, check};

/// Exit codes of `status`, those of the Linux Standard Base.
pub const RUNS: i32 = 0;
/// It is installed and does not run.
pub const RUNS_NOT: i32 = 3;
/// It is not installed.
pub const NOT_INSTALLED: i32 = 4;

/// One command, with all that it needs from its program.
pub struct Command<'a> {
    /// Which program.
    pub product: &'static Product,
    /// What was asked.
    pub asked: &'a Asked,
    /// The state folder that the environment names.
    pub env_state: Option<String>,
    /// Says a line to whoever asked.
    pub say: &'a mut dyn FnMut(&str),
    /// What is wrong with the words that the service would give its program.
    pub wrong: &'a dyn Fn(&[String]) -> Option<String>,
}

impl Command<'_> {
    /// Does it; the exit code.
    ///
    /// # Errors
    /// What was refused or went wrong, and the remedy.
    pub fn obey(&mut self) -> Result<i32, Reason> {
        if self.asked.act == Act::Print {
            return self.print();
        }
        #[cfg(unix)]
        return self.obey_unix();
        #[cfg(windows)]
        return self.obey_windows();
    }

    /// The service's main file; for every manager on every system.
    fn print(&mut self) -> Result<i32, Reason> {
        let manager = match self.asked.manager {
            Some(manager) => manager,
            None => here()?,
        };
        let spec = self.spec(manager, &Settings::default())?;
        check::words(&spec)?;
        let files = layout(manager, &spec, "").files;
        (self.say)(files.first().map_or("", |file| file.text.trim_end()));
        Ok(0)
    }

    /// What was asked, else what the installed service has, else the environment's, else the product's.
    fn spec(&self, manager: Manager, found: &Settings) -> Result<Spec, Reason> {
        let (asked, product) = (self.asked, self.product);
        // Who only looks or stops means the installed one, wherever that lies.
        let installed = found.program.clone().filter(|_| !matches!(asked.act, Act::Install | Act::Print));
        let program = match asked.program.clone().or(installed) {
            Some(program) => program,
            None if matches!(asked.act, Act::Install | Act::Print) => self.own_program()?,
            None => String::new(),
        };
        let first = |a: &Option<String>, b: &Option<String>| a.clone().or_else(|| b.clone());
        let own = if manager == Manager::Launchd { format!("_{}", product.name) } else { product.name.into() };
        Ok(Spec {
            product,
            program,
            state: first(&asked.state, &found.state).or_else(|| self.env_state.clone()).unwrap_or(product.state.into()),
            user: first(&asked.user, &found.user).unwrap_or(own),
            options: asked.options.clone().unwrap_or_else(|| found.options.clone()),
        })
    }

    /// This file, as the image knows it.
    fn own_program(&self) -> Result<String, Reason> {
        let own = crate::io::process::own_name().unwrap_or_default();
        let own = match &self.asked.root {
            None => Some(own),
            Some(root) => {
                std::fs::canonicalize(root).ok().and_then(|root| own.strip_prefix(root).map(|rest| Path::new("/").join(rest)).ok())
            }
        };
        let remedy = "name the program as the image knows it: --program /opt/virtualmetric/...";
        let own = own.ok_or_else(|| Reason::new("program_path", format!("this program does not lie in the image; {remedy}")))?;
        text(own)
    }
}

/// A path that service files can hold.
fn text(path: PathBuf) -> Result<String, Reason> {
    let text = path.into_os_string().into_string();
    text.map_err(|path| Reason::new("program_path", format!("{}: is no plain text, which service files need", path.display())))
}

fn here() -> Result<Manager, Reason> {
    #[cfg(unix)]
    return crate::core::service::detect::detect(&look::seen(Path::new("/"), true));
    #[cfg(windows)]
    return Ok(Manager::Windows);
}
