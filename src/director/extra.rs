//! What a role adds to the server that all have in common: Fleet's REST API and its own commands.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use smol::LocalExecutor;
use smol::net::unix::UnixStream;

use super::admin::AdminWire;
use super::metrics::Page;
use super::policing::rows::Scope;
use super::policing::scopes::Concerned;
use super::site::Site;
use crate::core::reason::Reason;
use crate::io::serve::{Answer, Request};

/// The answer to a command, under way.
pub type Commanded<'a> = Pin<Box<dyn Future<Output = Result<(), Reason>> + 'a>>;

/// The text of an answer, under way.
pub type Logged<'a> = Pin<Box<dyn Future<Output = Result<String, Reason>> + 'a>>;

/// A preparation, under way.
pub type Prepared<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// Nodes that were looked up.
pub type Looked<'a> = Pin<Box<dyn Future<Output = Result<Vec<Concerned>, Reason>> + 'a>>;

/// Everything is optional: what an addition does not know is the server's own.
pub trait Extra: std::any::Any {
    /// Longest body of a request that is this addition's.
    fn body_limit(&self, _method: &str, _path: &str) -> Option<usize> {
        None
    }

    /// Answers a request, if its path is this addition's.
    fn call(&self, _site: &Rc<Site>, _request: &Request) -> Option<Answer> {
        None
    }

    /// Answers an administrator, if the command is this addition's.
    fn command<'a>(
        &'a self,
        _site: &'a Rc<Site>,
        _request: &'a AdminWire,
        _who: &'a str,
        _out: &'a mut UnixStream,
    ) -> Option<Commanded<'a>> {
        None
    }

    /// Nodes of other servers that settings are for, as far as they were told of.
    ///
    /// # Errors
    /// `store_unavailable`, `agent_unknown`.
    fn concerned<'a>(&'a self, _site: &'a Rc<Site>, _scope: &'a Scope) -> Looked<'a> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Runs an administrator's command of which a log is kept: its answer, once the log is on the disk. `None`: it is not
    /// logged.
    fn logged<'a>(&'a self, _site: &'a Rc<Site>, _request: &'a AdminWire, _who: &'a str) -> Option<Logged<'a>> {
        None
    }

    /// Adds to what Prometheus gathers.
    fn metrics(&self, _site: &Rc<Site>, _page: &mut Page) {}

    /// The server has opened its own file, and nothing is decided yet: the place to bring in what others have.
    ///
    /// # Errors
    /// One sentence; the server does not start.
    fn prepare<'a>(&'a self, _site: &'a Rc<Site>, _executor: &'a Rc<LocalExecutor<'static>>) -> Prepared<'a> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The server has opened its store and is about to listen: the place to start tasks.
    ///
    /// # Errors
    /// One sentence; the server does not start.
    fn start(&self, _site: &Rc<Site>, _executor: &Rc<LocalExecutor<'static>>) -> Result<(), String> {
        Ok(())
    }
}
