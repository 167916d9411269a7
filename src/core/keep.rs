//! Which files a mirror fetches, and what it keeps within its limit of bytes.
//!
//! Metadata is always looked at: what there is can be shown and ordered. A file is fetched only when somebody may take it
//! ([`Facts::fetched`]); what is here already stays as long as there is room, also when nobody needs it any more.
//!
//! | first to last | what | fetched in mode `manual` |
//! |---|---|---|
//! | `ordered` | what an order in force names, and its resources | yes: a person ordered it |
//! | `asked` | what a person fetches by name: a first install, a mirror below this one | yes, for the same reason |
//! | `running` | what a device runs: it is fetched again after a repair | no, kept |
//! | `fallback` | what a device may go back to | no, kept |
//! | `wanted` | what a policy in mode `auto` lets a device take, now or at its time | - |
//! | `newest` | the highest release of each product for each platform that is enrolled | no, kept |
//! | `older` | other releases of those platforms, highest first | no, kept |
//! | `elsewhere` | platforms of which no device is enrolled | no, kept |
//!
//! Each takes what fits, whole; a file that does not fit leaves its place to smaller ones after it. What is needed (the first
//! six) and does not fit is told with the remedy; the rest is only counted.

use std::collections::{BTreeSet, HashSet};

use super::reason::Reason;
use super::release::{Artifact, Platform};
use super::version::Version;

/// Who needs a version; what is needed more comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// An order in force names it.
    Ordered,
    /// A person asks for it by name.
    Asked,
    /// A device runs it.
    Running,
    /// A device may go back to it.
    Fallback,
    /// A policy lets a device take it.
    Wanted,
    /// The highest release for a platform that is enrolled.
    Newest,
    /// Another one for such a platform.
    Older,
    /// For a platform that is not enrolled.
    Elsewhere,
}

impl Need {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Need::Ordered => "it is ordered",
            Need::Asked => "it is asked for",
            Need::Running => "devices run it",
            Need::Fallback => "devices may go back to it",
            Need::Wanted => "a policy names it",
            Need::Newest => "it is the newest for its platform",
            Need::Older => "an older release",
            Need::Elsewhere => "no device of its platform is enrolled",
        }
    }
}

/// One device's use of a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// Product.
    pub product: String,
    /// Version.
    pub version: Version,
    /// Operating system and architecture.
    pub platform: Platform,
}

/// What is known of a site.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Most bytes of artifacts; `None` = all of them are kept.
    pub limit: Option<u64>,
    /// Platforms of which a device is enrolled, with its product.
    pub enrolled: BTreeSet<(String, Platform)>,
    /// Versions in orders.
    pub ordered: BTreeSet<Use>,
    /// Versions that run.
    pub running: BTreeSet<Use>,
    /// Versions in the other slot.
    pub fallback: BTreeSet<Use>,
    /// Versions that a policy in mode `auto` lets devices take.
    pub wanted: BTreeSet<Use>,
    /// Versions that were asked for by name.
    pub asked: BTreeSet<Use>,
    /// Versions that may be fetched; `None` = all that are listed: a person brings them.
    pub fetched: Option<BTreeSet<Use>>,
}

impl Facts {
    /// Whether this version may be fetched at all.
    pub fn may_fetch(&self, this: &Use) -> bool {
        self.fetched.as_ref().is_none_or(|fetched| fetched.contains(this))
    }
}

/// What goes, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Paths that have no place, in no particular order.
    pub dropped: HashSet<String>,
    /// Paths that are not fetched because nobody may take them; they are not here, and take no place.
    pub held_back: HashSet<String>,
    /// Those of the dropped ones that are needed, with the remedy.
    pub told: Vec<Reason>,
    /// Bytes of what is kept.
    pub bytes: u64,
}

/// Decides about all artifacts that the metadata list. `here`: the file is on the disk.
pub fn keep(artifacts: &[Artifact], facts: &Facts, here: &dyn Fn(&Artifact) -> bool) -> Kept {
    let mut kept = Kept::default();
    let mut sorted: Vec<(Need, &Artifact)> = Vec::with_capacity(artifacts.len());
    for artifact in artifacts {
        if facts.may_fetch(&used(artifact)) || here(artifact) {
            sorted.push((need(artifact, artifacts, facts), artifact));
        } else {
            kept.held_back.insert(artifact.path.to_string());
        }
    }
    let Some(limit) = facts.limit else {
        return Kept { bytes: sorted.iter().map(|(_, a)| a.length).fold(0, u64::saturating_add), ..kept };
    };
    // The path at last: the same decision each time, whatever the order of the list.
    sorted.sort_by(|(n, a), (m, b)| {
        let (x, y) = (&a.path, &b.path);
        n.cmp(m).then_with(|| y.version.cmp(&x.version)).then_with(|| x.to_string().cmp(&y.to_string()))
    });
    for (need, artifact) in sorted {
        match kept.bytes.checked_add(artifact.length).filter(|bytes| *bytes <= limit) {
            Some(bytes) => kept.bytes = bytes,
            None => {
                if need <= Need::Newest {
                    kept.told.push(no_room(need, artifact, limit, limit - kept.bytes));
                }
                kept.dropped.insert(artifact.path.to_string());
            }
        }
    }
    kept
}

/// What a file is of.
pub fn used(artifact: &Artifact) -> Use {
    let path = &artifact.path;
    Use { product: path.product.clone(), version: path.version.clone(), platform: path.platform.clone() }
}

fn need(artifact: &Artifact, all: &[Artifact], facts: &Facts) -> Need {
    let path = &artifact.path;
    let this = used(artifact);
    let newest = || {
        let same = |a: &&Artifact| a.path.product == path.product && a.path.platform == path.platform && !a.path.version.is_pre_release();
        all.iter().filter(same).map(|a| &a.path.version).max() == Some(&path.version)
    };
    match () {
        () if facts.ordered.contains(&this) => Need::Ordered,
        () if facts.asked.contains(&this) => Need::Asked,
        () if facts.running.contains(&this) => Need::Running,
        () if facts.fallback.contains(&this) => Need::Fallback,
        () if facts.wanted.contains(&this) => Need::Wanted,
        () if !facts.enrolled.contains(&(this.product, this.platform)) => Need::Elsewhere,
        () if newest() => Need::Newest,
        () => Need::Older,
    }
}

fn no_room(need: Need, artifact: &Artifact, limit: u64, left: u64) -> Reason {
    let (path, length, why) = (&artifact.path, artifact.length, need.word());
    let detail = format!(
        "{path}: {length} bytes, {left} of {limit} left, although {why}; raise limits.mirror_bytes in vmetric.yml, or cancel or remove what needs it"
    );
    Reason::new("mirror_full", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::hex;

    fn artifact(version: &str, platform: &str, length: u64) -> Artifact {
        let path = format!("vmetric-agent/{version}/{platform}/vmetric-agent");
        Artifact {
            sha256: hex::sha256(path.as_bytes()),
            path: path.parse().unwrap(),
            length,
            min_version: None,
            counter: 0,
            build_keyid: String::new(),
            build_sig: [0; 64],
        }
    }

    fn linux() -> Platform {
        Platform { os: "linux".into(), arch: "amd64".into() }
    }

    fn uses(version: &str) -> BTreeSet<Use> {
        [Use { product: "vmetric-agent".into(), version: version.parse().unwrap(), platform: linux() }].into()
    }

    fn site(limit: u64) -> Facts {
        Facts {
            limit: Some(limit),
            enrolled: [("vmetric-agent".to_string(), linux())].into(),
            ordered: uses("1.4.0"),
            running: uses("1.2.0"),
            fallback: uses("1.1.0"),
            ..Facts::default()
        }
    }

    fn tree() -> Vec<Artifact> {
        let mut all: Vec<Artifact> = (0..8).map(|n| artifact(&format!("1.{n}.0"), "linux-amd64", 10)).collect();
        all.push(artifact("1.8.0-rc.1", "linux-amd64", 10));
        all.push(artifact("1.7.0", "windows-amd64", 10));
        all
    }

    fn nothing(_: &Artifact) -> bool {
        false
    }

    fn left(limit: u64) -> Vec<String> {
        let kept = keep(&tree(), &site(limit), &nothing);
        let mut out: Vec<String> = tree().iter().map(|a| a.path.to_string()).filter(|p| !kept.dropped.contains(p)).collect();
        out.iter_mut().for_each(|p| *p = p.split('/').skip(1).take(2).collect::<Vec<_>>().join("/").replace("/linux-amd64", ""));
        assert!(kept.bytes <= limit && kept.bytes == 10 * out.len() as u64);
        out.sort();
        out
    }

    #[test]
    fn what_is_needed_comes_first() {
        assert_eq!(left(9), Vec::<String>::new());
        assert_eq!(left(10), ["1.4.0"], "ordered");
        assert_eq!(left(20), ["1.2.0", "1.4.0"], "running");
        assert_eq!(left(30), ["1.1.0", "1.2.0", "1.4.0"], "fallback");
        assert_eq!(left(40), ["1.1.0", "1.2.0", "1.4.0", "1.7.0"], "newest; no pre-release");
        assert_eq!(left(50), ["1.1.0", "1.2.0", "1.4.0", "1.7.0", "1.8.0-rc.1"]);
        assert_eq!(left(80), ["1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0", "1.7.0", "1.8.0-rc.1"]);
        assert_eq!(left(100).len(), 10, "everything, another platform's last");
        assert_eq!(keep(&tree(), &Facts { limit: None, ..site(0) }, &nothing).dropped.len(), 0);
    }

    #[test]
    fn what_is_needed_and_has_no_place_is_told_with_the_remedy() {
        let told = |limit| keep(&tree(), &site(limit), &nothing).told;
        assert_eq!(told(40), []);
        assert_eq!(told(25).len(), 2, "fallback and newest");
        let first = &told(0)[0];
        assert_eq!(first.code, "mirror_full");
        assert!(first.detail.contains("1.4.0") && first.detail.contains("it is ordered") && first.detail.contains("limits.mirror_bytes"));
        // A file that does not fit leaves its place to those that do.
        let mut all = tree();
        all[4] = artifact("1.4.0", "linux-amd64", 1_000);
        let kept = keep(&all, &site(30), &nothing);
        assert_eq!((kept.bytes, kept.told.len()), (30, 1));
    }

    #[test]
    fn only_what_somebody_may_take_is_fetched_and_what_is_here_stays() {
        let here = |a: &Artifact| a.path.version.to_string() == "1.3.0";
        let there = |facts: &Facts| {
            let kept = keep(&tree(), facts, &here);
            let gone = |a: &&Artifact| !kept.held_back.contains(&a.path.to_string()) && !kept.dropped.contains(&a.path.to_string());
            let mut out: Vec<String> = tree().iter().filter(gone).map(|a| a.path.version.to_string()).collect();
            assert_eq!(kept.bytes, 10 * out.len() as u64);
            out.sort();
            out
        };
        // Everybody is in mode manual: running, fallback, newest are not fetched; what is here is nobody's loss.
        let manual = Facts { limit: None, fetched: Some(BTreeSet::new()), ..site(0) };
        assert_eq!(there(&manual), ["1.3.0"]);
        let ordered = Facts { fetched: Some(uses("1.4.0")), ..manual.clone() };
        assert_eq!(there(&ordered), ["1.3.0", "1.4.0"]);
        // What is here and not needed gives way first.
        let tight = Facts { limit: Some(10), ..ordered };
        assert_eq!(there(&tight), ["1.4.0"]);
        assert_eq!(keep(&tree(), &tight, &here).told, [], "nobody misses the other one");
        // A pinned policy: that version, not the newest.
        let wanted = Facts { wanted: uses("1.5.0"), fetched: Some(uses("1.5.0")), limit: Some(10), ..Facts::default() };
        assert_eq!(there(&wanted), ["1.5.0"]);
        let both = uses("1.5.0").union(&uses("1.6.0")).cloned().collect();
        assert_eq!(there(&Facts { asked: uses("1.6.0"), fetched: Some(both), ..wanted }), ["1.6.0"], "a person first");
    }

    proptest::proptest! {
        #[test]
        fn the_limit_holds_whatever_the_order_of_the_list(lengths in proptest::collection::vec(0u64..50, 1..12), limit in 0u64..300) {
            let all: Vec<Artifact> = lengths.iter().enumerate().map(|(n, l)| artifact(&format!("1.{n}.0"), "linux-amd64", *l)).collect();
            let kept = keep(&all, &site(limit), &nothing);
            let sum: u64 = all.iter().filter(|a| !kept.dropped.contains(&a.path.to_string())).map(|a| a.length).sum();
            proptest::prop_assert!(sum <= limit && sum == kept.bytes);
            let mut turned = all.clone();
            turned.reverse();
            proptest::prop_assert_eq!(keep(&turned, &site(limit), &nothing).dropped, kept.dropped);
        }
    }
}
