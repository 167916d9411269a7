//! The store of several Fleets: an etcd v3 cluster, over the JSON gateway that every etcd server has.
//!
//! JSON over HTTPS instead of gRPC: a protobuf compiler, HTTP/2 and their crates would be more code than all of this, for
//! messages of a few hundred bytes. What it costs is base64, and that a watch cannot be asked to speak up; so a watch that is
//! silent for five seconds (`walk::SILENT`) makes sure that its server is still in touch with the others.
//!
//! Keys of ours begin with the configured prefix, then `d/` (data) or `l/` (marks, see `commit`). History is compacted by
//! [`super::Store::compact`] or by etcd's own `--auto-compaction-retention`; whoever runs etcd sees to one of them.

mod commit;
mod link;
mod told;
mod walk;
mod wire;

use std::rc::Rc;
use std::time::Duration;

use super::{Commit, Fut, Health, KEY_MAX, LeaseId, Listing, Member, Outcome, Revision, Row, Span, Store, Watch, key_checked, lease_time};
use crate::core::reason::Reason;
use commit::Lanes;
use link::Link;
pub use link::{ENDPOINTS_MAX, Settings};

/// For one server's word on how it is.
const LOOK: Duration = Duration::from_secs(4);

/// See the module's text.
pub struct Etcd {
    link: Link,
    /// What the keys of data begin with.
    data: String,
    lanes: Lanes,
}

impl Etcd {
    /// Reads the files that the settings name; connects to nothing yet.
    ///
    /// # Errors
    /// `store_misconfigured`.
    pub fn new(settings: Settings) -> Result<Rc<Etcd>, Reason> {
        let prefix = settings.prefix.clone();
        if prefix.is_empty() || prefix.len() > KEY_MAX || prefix.chars().any(char::is_control) {
            let detail = format!("etcd: `prefix` has {} bytes; 1 to {KEY_MAX} are needed, /vmetric/fleet/ for example", prefix.len());
            return Err(Reason::new("store_misconfigured", detail));
        }
        let link = Link::new(settings)?;
        Ok(Rc::new(Etcd { link, data: format!("{prefix}d/"), lanes: Lanes::new(format!("{prefix}l/")) }))
    }

    /// Where a key of ours is.
    fn place(&self, key: &str) -> String {
        format!("{}{key}", self.data)
    }

    /// Where a span of ours is.
    fn places(&self, span: &Span) -> Span {
        let place = |bytes: &[u8]| [self.data.as_bytes(), bytes].concat();
        Span { from: place(&span.from), to: place(&span.to) }
    }

    async fn get_now(&self, key: &str) -> Result<Option<Row>, Reason> {
        let bytes = self.link.ask("/v3/kv/range", &wire::one(&self.place(key_checked(key)?))).await?;
        let peer = self.link.name(self.link.at());
        let answer: wire::Range = wire::read(peer, &bytes)?;
        answer.kvs.unwrap_or_default().first().map(|kv| kv.row(peer, &self.data)).transpose()
    }

    async fn grant_now(&self, time: Duration) -> Result<LeaseId, Reason> {
        // Asked twice, a lease that nobody knows of ends by itself.
        let seconds = lease_time(time)?.as_secs();
        let bytes = self.link.ask("/v3/lease/grant", &format!(r#"{{"TTL":"{seconds}"}}"#)).await?;
        let peer = self.link.name(self.link.at());
        let answer: wire::Lease = wire::read(peer, &bytes)?;
        match wire::number(&answer.id) {
            0 => Err(wire::strange(peer, "a lease without a number")),
            id => Ok(LeaseId(id)),
        }
    }

    async fn renew_now(&self, lease: LeaseId) -> Result<(), Reason> {
        let bytes = self.link.ask("/v3/lease/keepalive", &format!(r#"{{"ID":"{}"}}"#, lease.0)).await?;
        let peer = self.link.name(self.link.at());
        let answer: wire::KeptLease = wire::read(peer, &bytes)?;
        if let Some(error) = answer.error {
            return Err(told::spoken(peer, &error.message.unwrap_or_default(), error.grpc_code.unwrap_or(0), false).reason);
        }
        match answer.result.map_or(0, |lease| wire::number(&lease.ttl)) {
            0 => Err(Reason::new("store_lease_gone", format!("lease {} has ended; take a new one and look at what it held", lease.0))),
            _ => Ok(()),
        }
    }

    async fn revoke_now(&self, lease: LeaseId) -> Result<(), Reason> {
        match self.link.ask("/v3/lease/revoke", &format!(r#"{{"ID":"{}"}}"#, lease.0)).await {
            Err(reason) if reason.code != "store_lease_gone" => Err(reason),
            _ => Ok(()),
        }
    }

    async fn compact_now(&self, upto: Revision) -> Result<(), Reason> {
        match self.link.ask("/v3/kv/compaction", &format!(r#"{{"revision":"{upto}"}}"#)).await {
            // Another Fleet was faster.
            Err(reason) if reason.code != "store_compacted" => Err(reason),
            _ => Ok(()),
        }
    }

    async fn health_now(&self) -> Result<Health, Reason> {
        let mut health = Health { kind: "etcd", ..Health::default() };
        // Linearizable: it fails without a quorum.
        let newest = self.link.ask("/v3/kv/range", &wire::one(&self.data)).await;
        let alarms = match &newest {
            Ok(_) => self.link.ask("/v3/maintenance/alarm", r#"{"action":"GET"}"#).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let alarms: wire::Alarms = wire::read("etcd", &alarms).unwrap_or_default();
        for at in 0..self.link.servers() {
            let name = self.link.name(at).to_string();
            let status = self.link.once(at, "/v3/maintenance/status", "{}", LOOK).await.map_err(|f| f.reason);
            let status = status.and_then(|bytes| wire::read::<wire::Status>(&name, &bytes));
            let member = match status {
                Err(reason) => Member { name, problem: Some(reason), ..Member::default() },
                Ok(status) => {
                    let id = status.header.as_ref().and_then(|h| h.member_id.clone()).unwrap_or_default();
                    let (leads, bytes) = (status.leader.as_deref() == Some(&id), wire::number(&status.db_size));
                    let problem = alarms.alarms.iter().flatten().find(|a| a.member_id.as_deref() == Some(&id));
                    let problem = problem.map(|a| alarm(&name, a.alarm.as_deref().unwrap_or_default()));
                    Member { name, version: status.version.unwrap_or_default(), leads, bytes, problem }
                }
            };
            health.members.push(member);
        }
        match newest.and_then(|bytes| wire::read::<wire::Range>("etcd", &bytes)) {
            Ok(answer) => health.revision = wire::revision(&answer.header),
            // Servers may answer, and still not together.
            Err(reason) => {
                health.members.iter_mut().filter(|m| m.problem.is_none()).for_each(|m| m.problem = Some(reason.clone()));
            }
        }
        Ok(health)
    }
}

fn alarm(name: &str, alarm: &str) -> Reason {
    told::spoken(name, if alarm == "NOSPACE" { "database space exceeded" } else { "corrupt cluster" }, 8, false).reason
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, Option<Row>> {
        Box::pin(self.get_now(key))
    }

    fn list(self: Rc<Self>, span: Span) -> Box<dyn Listing> {
        Box::new(walk::Rows::new(self, span))
    }

    fn commit(&self, commit: Commit) -> Fut<'_, Outcome> {
        Box::pin(async move {
            commit.check()?;
            self.lanes.commit(&self.link, &self.data, &commit).await
        })
    }

    fn watch(self: Rc<Self>, span: Span, after: Revision) -> Box<dyn Watch> {
        Box::new(walk::Follow::new(self, span, after))
    }

    fn grant(&self, time: Duration) -> Fut<'_, LeaseId> {
        Box::pin(self.grant_now(time))
    }

    fn renew(&self, lease: LeaseId) -> Fut<'_, ()> {
        Box::pin(self.renew_now(lease))
    }

    fn revoke(&self, lease: LeaseId) -> Fut<'_, ()> {
        Box::pin(self.revoke_now(lease))
    }

    fn compact(&self, upto: Revision) -> Fut<'_, ()> {
        Box::pin(self.compact_now(upto))
    }

    fn health(&self) -> Fut<'_, Health> {
        Box::pin(self.health_now())
    }
}
