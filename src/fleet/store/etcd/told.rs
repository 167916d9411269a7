//! What an answer of etcd that is no success means: for the operator a reason with its remedy, for us what to do next.
//!
//! etcd's errors are gRPC codes with fixed texts; several texts share a code, so the text decides.

use super::wire::{Failure, read};
use crate::core::reason::Reason;

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is an answer: nothing was changed, and it will not be different elsewhere.
    Stop,
    /// Log in again, then ask again.
    LogIn,
    /// Ask another server; `sent` = this one may have acted on it all the same.
    Elsewhere {
        /// It may have been acted on.
        sent: bool,
    },
}

/// A call that failed.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub reason: Reason,
    /// And now.
    pub then: Then,
}

impl Failed {
    /// Nothing reached the server.
    pub fn before(reason: Reason) -> Failed {
        Failed { reason, then: Then::Elsewhere { sent: false } }
    }

    /// The server may have acted.
    pub fn midway(reason: Reason) -> Failed {
        Failed { reason, then: Then::Elsewhere { sent: true } }
    }

    /// An answer.
    pub fn stop(reason: Reason) -> Failed {
        Failed { reason, then: Then::Stop }
    }
}

/// Texts of etcd (`rpctypes`), the code of our reason, the remedy.
const ANSWERS: [(&str, &str, &str); 13] = [
    (
        "database space exceeded",
        "store_full",
        "compact and defragment it (etcdctl compaction, defrag), or raise --quota-backend-bytes; then etcdctl alarm disarm",
    ),
    ("has been compacted", "store_compacted", "list again and go on from there"),
    (
        "future revision",
        "store_compacted",
        "the store is older than what was read from it (brought back from a backup?); list again and go on from there",
    ),
    ("lease not found", "store_lease_gone", "it has ended; take a new one and look at what it held"),
    ("invalid user ID or password", "store_refused", "check `user` and `password_file`"),
    (
        "permission denied",
        "store_refused",
        "the user needs a role that may read and write the keys under `prefix` (etcdctl role grant-permission --prefix=true ROLE readwrite PREFIX)",
    ),
    ("user name not found", "store_refused", "check `user`"),
    ("request is too large", "store_too_large", "raise etcd's --max-request-bytes to at least 1.5 MiB"),
    ("too many operations in txn", "store_too_large", "raise etcd's --max-txn-ops to at least 128"),
    ("corrupt cluster", "store_damaged", "its members differ; see etcd's own guide, or bring back a backup"),
    ("required lease TTL", "store_bad_request", "another time is needed"),
    ("duplicate key", "store_bad_request", "each key once"),
    ("role", "store_refused", "check the user's role"),
];

/// Texts after which to log in again.
const STALE: [&str; 3] = ["invalid auth token", "revision of auth store is old", "revision in header is old"];

/// What a failed call means; `user` = there is a name to log in with.
pub fn meaning(peer: &str, status: u16, body: &[u8], user: bool) -> Failed {
    if status == 404 && body.starts_with(b"Not Found") {
        let why = "it has no /v3; etcd 3.4 or later is needed, with its gateway on (no --enable-grpc-gateway=false)";
        return Failed::stop(Reason::new("store_misconfigured", format!("{peer}: {why}")));
    }
    if body.starts_with(b"CommonName of client") {
        let why = "while it asks for users, its gateway takes no client certificate with a CommonName; `cert` needs one without";
        return Failed::stop(Reason::new("store_refused", format!("{peer}: {why} (names go into subjectAltName)")));
    }
    match read::<Failure>(peer, body) {
        Ok(Failure { message: Some(text), code }) => spoken(peer, &text, code.unwrap_or(0), user),
        // Something in between: a load balancer without a server behind it.
        _ => {
            let text: String = String::from_utf8_lossy(body).chars().take(100).collect();
            let detail = format!("{peer} answers with status {status} and no word of etcd's: {text}");
            Failed::midway(Reason::new("store_unreachable", detail))
        }
    }
}

/// What a text of etcd's means.
pub fn spoken(peer: &str, text: &str, code: u32, user: bool) -> Failed {
    let told = text.strip_prefix("etcdserver: ").unwrap_or(text);
    let reason = |code: &'static str, remedy: &str| Reason::new(code, format!("{peer}: {told}; {remedy}"));
    if STALE.iter().any(|stale| text.contains(stale)) || (user && text.contains("user name is empty")) {
        return Failed { reason: reason("store_refused", "logging in again"), then: Then::LogIn };
    }
    if !user && (text.contains("permission denied") || text.contains("user name is empty")) {
        let remedy = "etcd asks who we are: set `user` and `password_file` (its gateway does not take a certificate's name for a user)";
        return Failed::stop(reason("store_refused", remedy));
    }
    if let Some((_, code, remedy)) = ANSWERS.iter().find(|(known, ..)| text.contains(known)) {
        return Failed::stop(reason(code, remedy));
    }
    let alone = || reason("store_no_quorum", "more than half of etcd's members have to run and reach each other");
    // Said before anything is done with the request, because we ask for a leader with each.
    if text.contains("no leader") {
        return Failed::before(alone());
    }
    match code {
        // It was turned away before anything was done with it.
        8 => Failed::before(reason("store_unreachable", "it is overloaded")),
        3 | 5 | 6 | 9 | 11 | 12 => Failed::stop(reason("store_bad_request", "etcd does not take this")),
        7 | 16 => Failed::stop(reason("store_refused", "check `user`, `password_file` and the certificates")),
        // No leader, a new leader, a time that ran out, a member that stops: what became of a change is not known.
        _ => Failed::midway(alone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_reason_and_its_next_step() {
        let says = |text: &str, code: u32| spoken("https://e:1", text, code, true);
        for (text, code, ours, then) in [
            ("etcdserver: mvcc: database space exceeded", 8, "store_full", Then::Stop),
            ("etcdserver: mvcc: required revision has been compacted", 11, "store_compacted", Then::Stop),
            ("etcdserver: mvcc: required revision is a future revision", 11, "store_compacted", Then::Stop),
            ("etcdserver: requested lease not found", 5, "store_lease_gone", Then::Stop),
            ("etcdserver: authentication failed, invalid user ID or password", 3, "store_refused", Then::Stop),
            ("etcdserver: permission denied", 7, "store_refused", Then::Stop),
            ("etcdserver: invalid auth token", 16, "store_refused", Then::LogIn),
            ("etcdserver: user name is empty", 3, "store_refused", Then::LogIn),
            ("etcdserver: request timed out", 14, "store_no_quorum", Then::Elsewhere { sent: true }),
            ("etcdserver: no leader", 14, "store_no_quorum", Then::Elsewhere { sent: false }),
            ("etcdserver: leader changed", 14, "store_no_quorum", Then::Elsewhere { sent: true }),
            ("etcdserver: too many requests", 8, "store_unreachable", Then::Elsewhere { sent: false }),
            ("etcdserver: request is too large", 3, "store_too_large", Then::Stop),
            ("context deadline exceeded", 4, "store_no_quorum", Then::Elsewhere { sent: true }),
            ("json: what is that", 3, "store_bad_request", Then::Stop),
            ("never heard", 99, "store_no_quorum", Then::Elsewhere { sent: true }),
        ] {
            let failed = says(text, code);
            assert_eq!((failed.reason.code.as_ref(), failed.then), (ours, then), "{text}");
            assert!(failed.reason.detail.starts_with("https://e:1: ") && failed.reason.detail.contains("; "), "{}", failed.reason);
        }
        for text in ["etcdserver: user name is empty", "etcdserver: permission denied"] {
            let failed = spoken("e", text, 3, false);
            assert!(failed.then == Then::Stop && failed.reason.detail.contains("`user`"), "{}", failed.reason);
        }
        assert_eq!(meaning("e", 404, b"Not Found\n", false).reason.code, "store_misconfigured");
        assert_eq!(meaning("e", 503, b"<html>no server is available", false).then, Then::Elsewhere { sent: true });
    }
}
