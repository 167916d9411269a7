//! One refresh: the order of specification section 5, without a file or a socket.

use super::delegation::{Link, Walk};
use super::{Now, ROOT_MAX, ROTATIONS_MAX, Refusal, SNAPSHOT_MAX, TARGETS_MAX, TIMESTAMP_MAX, Trusted, file_name, snapshot, targets};
use crate::core::release::TargetPath;

/// What a refresh is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The roles on the way to this artifact; a device needs no more.
    Find(TargetPath),
    /// The same for a path of somebody else's repository.
    FindPath(String),
    /// Root, timestamp, snapshot, targets.
    TopLevel,
    /// Every delegated role as well: a mirror. One that is refused is left out and named in [`Outcome::left_out`], so
    /// that a mistake in one platform's role does not keep the others from their updates.
    All,
}

/// What a refresh needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// A file of the repository's metadata folder.
    Fetch(Fetch),
    /// Nothing: the refresh is over, well or not. Ask [`Refresh::finish`].
    Done,
}

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Such as `3.root.json`, `timestamp.json`, `12.snapshot.json`, `4.agent-linux-amd64.json`; percent-quoted.
    pub name: String,
    /// Stop reading after this many bytes, and refuse.
    pub limit: u64,
    /// That it is not there is normal: the end of the root chain.
    pub optional: bool,
}

/// The answer to [`Want::Fetch`].
#[derive(Clone, Copy, Debug)]
pub enum Fetched<'a> {
    /// The whole file.
    Bytes(&'a [u8]),
    /// The repository says that there is no such file (404, 403). A failed connection is no answer: do not give it.
    NotFound,
}

/// What is trusted from now on and should be durable before the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// `root`, `timestamp`, `snapshot`, `targets` or a delegated role's name: not a file name.
    pub role: String,
    /// The version of it; 0 for a removal.
    pub version: u64,
    /// The file; none = remove what is stored (5.3.11).
    pub bytes: Option<Vec<u8>>,
}

/// How a refresh ended.
#[derive(Clone, Debug)]
#[must_use = "a refresh that refused something says so here"]
pub struct Outcome {
    /// Trusted versions before: root, timestamp, snapshot, targets.
    pub before: [u64; 4],
    /// Trusted versions now.
    pub after: [u64; 4],
    /// The check that ended it, if one did. What was trusted up to there stays trusted.
    pub refused: Option<Refusal>,
    /// Delegated roles that a mirror has to do without, with the reason ([`Goal::All`] only).
    pub left_out: Vec<Refusal>,
    /// False when the caller stopped before the end.
    pub complete: bool,
}

enum Step {
    Root,
    FinalRoot,
    Timestamp,
    Snapshot,
    Targets,
    Walk,
    Delegated(Link),
    Done,
}

/// A refresh in progress: ask [`Refresh::want`], fetch, [`Refresh::give`], make durable, again.
pub struct Refresh {
    trusted: Trusted,
    now: Now,
    step: Step,
    walk: Option<Walk>,
    rotations: u32,
    before: [u64; 4],
    refused: Option<Refusal>,
    left_out: Vec<Refusal>,
}

impl Refresh {
    /// "5.1 Record fixed update start time": `now` holds for the whole refresh.
    pub fn new(trusted: Trusted, now: Now, goal: Goal) -> Refresh {
        let walk = match goal {
            Goal::Find(path) => Some(Walk::to(&path.to_string())),
            Goal::FindPath(path) => Some(Walk::to(&path)),
            Goal::All => Some(Walk::everywhere()),
            Goal::TopLevel => None,
        };
        let before = trusted.versions();
        Refresh { trusted, now, step: Step::Root, walk, rotations: 0, before, refused: None, left_out: Vec::new() }
    }

    /// Only the search below the top level, for one more path right after a refresh: 5.6.7 without what comes before it.
    pub fn search(trusted: Trusted, now: Now, path: &str) -> Refresh {
        let mut refresh = Refresh::new(trusted, now, Goal::FindPath(path.into()));
        refresh.enter("targets");
        if let Err(refusal) = refresh.advance() {
            refresh.refuse(refusal);
        }
        refresh
    }

    /// The next file.
    pub fn want(&self) -> Want {
        match &self.step {
            Step::Root => {
                let next = self.trusted.root.head.version.saturating_add(1);
                Want::Fetch(Fetch { name: file_name("root", next, true), limit: ROOT_MAX, optional: true })
            }
            Step::Timestamp => Want::Fetch(Fetch { name: "timestamp.json".into(), limit: TIMESTAMP_MAX, optional: false }),
            Step::Snapshot => self.want_listed("snapshot", SNAPSHOT_MAX),
            Step::Targets => self.want_listed("targets", TARGETS_MAX),
            Step::Delegated(link) => self.want_listed(&link.role, TARGETS_MAX),
            Step::FinalRoot | Step::Walk | Step::Done => Want::Done,
        }
    }

    fn want_listed(&self, role: &str, fixed: u64) -> Want {
        let listed = if role == "snapshot" { self.trusted.snapshot_meta() } else { self.trusted.listed(role) };
        let Ok(meta) = listed else { return Want::Done };
        let name = file_name(role, meta.version, self.trusted.root.consistent_snapshot);
        Want::Fetch(Fetch { name, limit: meta.limit(fixed), optional: false })
    }

    /// Takes the file that was wanted. On success: what to make durable now, in this order.
    pub fn give(&mut self, fetched: Fetched<'_>) -> Result<Vec<Persist>, Refusal> {
        let persist = self.take(fetched).inspect_err(|refusal| self.refuse(refusal.clone()))?;
        // What comes next may be refused without a fetch (a stored snapshot that has expired). It does not take back what
        // was just trusted, so it is told at the end.
        if let Err(refusal) = self.advance() {
            self.refuse(refusal);
        }
        Ok(persist)
    }

    /// What is trusted now, and how it went. After a whole refresh, delegated roles that nobody names any more are gone.
    pub fn finish(mut self) -> (Trusted, Outcome) {
        let complete = matches!(self.step, Step::Done) && self.refused.is_none();
        if complete {
            self.trusted.forget_unnamed();
        }
        let after = self.trusted.versions();
        let outcome = Outcome { before: self.before, after, refused: self.refused, left_out: self.left_out, complete };
        (self.trusted, outcome)
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.step = Step::Done;
        self.refused = Some(refusal);
    }

    fn take(&mut self, fetched: Fetched<'_>) -> Result<Vec<Persist>, Refusal> {
        match std::mem::replace(&mut self.step, Step::Done) {
            Step::Root => Ok(self.take_root(fetched)?),
            Step::Timestamp => {
                let bytes = present(fetched, "timestamp", "timestamp_missing")?;
                let new = self.trusted.accept_timestamp(bytes, &self.now)?;
                self.step = Step::Snapshot;
                Ok(if new { vec![persist("timestamp", self.trusted.versions()[1], bytes)] } else { Vec::new() })
            }
            Step::Snapshot => {
                let bytes = present(fetched, "snapshot", snapshot::CODES.missing)?;
                self.trusted.accept_snapshot(bytes, &self.now)?;
                self.step = Step::Targets;
                Ok(vec![persist("snapshot", self.trusted.versions()[2], bytes)])
            }
            Step::Targets => {
                let bytes = present(fetched, "targets", targets::TARGETS.missing)?;
                self.trusted.accept_targets(bytes, &self.now)?;
                self.enter("targets");
                Ok(vec![persist("targets", self.trusted.versions()[3], bytes)])
            }
            Step::Delegated(link) => match self.take_delegated(&link, fetched) {
                Err(refusal) if self.visits_all() => {
                    self.leave_out(refusal);
                    Ok(Vec::new())
                }
                result => result,
            },
            Step::FinalRoot | Step::Walk | Step::Done => Ok(Vec::new()),
        }
    }

    /// "5.3 Update the root role", one version at a time, until there is no next one.
    fn take_root(&mut self, fetched: Fetched<'_>) -> Result<Vec<Persist>, Refusal> {
        let Fetched::Bytes(bytes) = fetched else {
            self.step = Step::FinalRoot;
            return Ok(Vec::new());
        };
        let dropped = self.trusted.accept_root(bytes)?;
        self.rotations += 1;
        self.step = if self.rotations < ROTATIONS_MAX { Step::Root } else { Step::FinalRoot };
        let mut out = vec![persist("root", self.trusted.versions()[0], bytes)];
        if dropped {
            out.extend(["timestamp", "snapshot"].map(|role| Persist { role: role.into(), version: 0, bytes: None }));
        }
        Ok(out)
    }

    fn take_delegated(&mut self, link: &Link, fetched: Fetched<'_>) -> Result<Vec<Persist>, Refusal> {
        let bytes = present(fetched, &link.role, targets::DELEGATED.missing)?;
        self.trusted.accept_delegated(link, bytes, &self.now)?;
        self.enter(&link.role);
        let version = self.trusted.role(&link.role).map_or(0, |role| role.head.version);
        Ok(vec![persist(&link.role, version, bytes)])
    }

    /// Goes on as far as it can without a file.
    fn advance(&mut self) -> Result<(), Refusal> {
        loop {
            match &self.step {
                Step::FinalRoot => {
                    self.trusted.check_final_root(&self.now)?;
                    self.step = Step::Timestamp;
                }
                Step::Snapshot if self.trusted.snapshot_is_listed(&self.now)? => self.step = Step::Targets,
                Step::Targets if self.trusted.targets_are_listed(&self.now)? => self.enter("targets"),
                Step::Walk => self.next_link()?,
                Step::Delegated(link) => {
                    let link = link.clone();
                    match self.reuse(&link) {
                        Ok(true) => {}
                        Ok(false) => return Ok(()),
                        Err(refusal) if self.visits_all() => self.leave_out(refusal),
                        Err(refusal) => return Err(refusal),
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    fn next_link(&mut self) -> Result<(), Refusal> {
        self.step = match self.walk.as_mut().map(Walk::next_link).transpose() {
            Ok(link) => link.flatten().map_or(Step::Done, Step::Delegated),
            Err(refusal) if self.visits_all() => {
                self.left_out.push(refusal);
                Step::Done
            }
            Err(refusal) => return Err(refusal),
        };
        Ok(())
    }

    /// Can the role that we hold stand for this link? If it is what the snapshot lists it must be current too.
    fn reuse(&mut self, link: &Link) -> Result<bool, Refusal> {
        self.trusted.listed(&link.role)?;
        let Ok(held) = self.trusted.link_holds(link) else { return Ok(false) };
        held.check_expiry(&targets::DELEGATED, self.now.at(self.trusted.issued()))?;
        self.enter(&link.role);
        Ok(true)
    }

    /// A role was reached: is the target here, and if not, where may it be?
    fn enter(&mut self, role: &str) {
        self.step = Step::Walk;
        let (Some(walk), Some(role)) = (&mut self.walk, self.trusted.role(role)) else {
            self.step = Step::Done;
            return;
        };
        match walk.path() {
            Some(path) if matches!(role.target(path), Ok(Some(_))) || matches!(role.withdrawn(path), Ok(Some(_))) => self.step = Step::Done,
            _ => walk.descend(role),
        }
    }

    fn visits_all(&self) -> bool {
        self.walk.as_ref().is_some_and(|walk| walk.path().is_none())
    }

    fn leave_out(&mut self, refusal: Refusal) {
        self.left_out.push(refusal);
        self.step = Step::Walk;
    }
}

fn present<'a>(fetched: Fetched<'a>, role: &str, code: &'static str) -> Result<&'a [u8], Refusal> {
    match fetched {
        Fetched::Bytes(bytes) => Ok(bytes),
        Fetched::NotFound => Err(Refusal::new(code, role, "the repository does not have the file that its metadata names")),
    }
}

fn persist(role: &str, version: u64, bytes: &[u8]) -> Persist {
    Persist { role: role.to_string(), version, bytes: Some(bytes.to_vec()) }
}
