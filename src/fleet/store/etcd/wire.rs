//! What etcd's JSON gateway says and is told. 64-bit numbers are text, keys and values are base64, and what is zero, false or
//! empty is left out of answers.
//!
//! Requests are written by hand: all that goes in is base64 and numbers, and the gateway does not take `null` for "not given".

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use miniserde::{Deserialize, json};

use super::super::{LeaseId, Revision, Row};
use crate::core::reason::Reason;

/// Bytes as they travel.
pub fn coded(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The head of each answer.
#[derive(Deserialize, Debug, Default)]
pub struct Header {
    pub member_id: Option<String>,
    pub revision: Option<String>,
}

/// A key with its value.
#[derive(Deserialize, Debug, Default)]
pub struct Kv {
    pub key: Option<String>,
    pub value: Option<String>,
    pub create_revision: Option<String>,
    pub mod_revision: Option<String>,
    pub lease: Option<String>,
}

/// `range`.
#[derive(Deserialize, Debug, Default)]
pub struct Range {
    pub header: Option<Header>,
    pub kvs: Option<Vec<Kv>>,
    pub more: Option<bool>,
}

/// `txn`.
#[derive(Deserialize, Debug, Default)]
pub struct Txn {
    pub header: Option<Header>,
    pub succeeded: Option<bool>,
    pub responses: Option<Vec<Part>>,
}

/// What one operation of a transaction answered; only reads are looked at.
#[derive(Deserialize, Debug, Default)]
pub struct Part {
    pub response_range: Option<Range>,
}

/// `lease/grant`, and within [`KeptLease`].
#[derive(Deserialize, Debug, Default)]
pub struct Lease {
    #[serde(rename = "ID")]
    pub id: Option<String>,
    #[serde(rename = "TTL")]
    pub ttl: Option<String>,
}

/// `lease/keepalive`.
#[derive(Deserialize, Debug, Default)]
pub struct KeptLease {
    pub result: Option<Lease>,
    pub error: Option<StreamError>,
}

/// `auth/authenticate`.
#[derive(Deserialize, Debug, Default)]
pub struct Token {
    pub token: Option<String>,
}

/// `maintenance/status`.
#[derive(Deserialize, Debug, Default)]
pub struct Status {
    pub header: Option<Header>,
    pub version: Option<String>,
    #[serde(rename = "dbSize")]
    pub db_size: Option<String>,
    pub leader: Option<String>,
}

/// `maintenance/alarm`.
#[derive(Deserialize, Debug, Default)]
pub struct Alarms {
    pub alarms: Option<Vec<Alarm>>,
}

/// One alarm.
#[derive(Deserialize, Debug, Default)]
pub struct Alarm {
    #[serde(rename = "memberID")]
    pub member_id: Option<String>,
    pub alarm: Option<String>,
}

/// What a call answers that failed.
#[derive(Deserialize, Debug, Default)]
pub struct Failure {
    pub message: Option<String>,
    pub code: Option<u32>,
}

/// What a stream answers that failed.
#[derive(Deserialize, Debug, Default)]
pub struct StreamError {
    pub message: Option<String>,
    pub grpc_code: Option<u32>,
}

/// A line of `watch`.
#[derive(Deserialize, Debug, Default)]
pub struct Told {
    pub result: Option<Watched>,
    pub error: Option<StreamError>,
}

/// What it says.
#[derive(Deserialize, Debug, Default)]
pub struct Watched {
    pub header: Option<Header>,
    pub created: Option<bool>,
    pub canceled: Option<bool>,
    pub compact_revision: Option<String>,
    pub cancel_reason: Option<String>,
    pub events: Option<Vec<Happened>>,
}

/// One event; without a type it is a put.
#[derive(Deserialize, Debug, Default)]
pub struct Happened {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub kv: Option<Kv>,
}

/// Reads an answer.
pub fn read<T: Deserialize>(peer: &str, bytes: &[u8]) -> Result<T, Reason> {
    let text = std::str::from_utf8(bytes).ok();
    text.and_then(|text| json::from_str(text).ok()).ok_or_else(|| strange(peer, "its answer does not parse"))
}

/// An answer that etcd does not give.
pub fn strange(peer: &str, why: &str) -> Reason {
    Reason::new("store_misconfigured", format!("{peer} does not answer as etcd's JSON gateway does ({why}); check the endpoint"))
}

/// A number as text; left out = 0.
pub fn number(text: &Option<String>) -> u64 {
    text.as_deref().and_then(|t| t.parse().ok()).unwrap_or(0)
}

/// The revision of an answer.
pub fn revision(header: &Option<Header>) -> Revision {
    header.as_ref().map_or(0, |h| number(&h.revision))
}

impl Kv {
    /// As a row of ours: without the prefix.
    pub fn row(&self, peer: &str, prefix: &str) -> Result<Row, Reason> {
        let bytes = |text: &Option<String>| BASE64_STANDARD.decode(text.as_deref().unwrap_or_default()).ok();
        let key = bytes(&self.key).and_then(|key| String::from_utf8(key).ok());
        let key = key.and_then(|key| key.strip_prefix(prefix).map(str::to_string));
        let value = bytes(&self.value).ok_or_else(|| strange(peer, "a value is no base64"))?;
        let key = key.ok_or_else(|| strange(peer, "a key is not under the prefix that was asked for"))?;
        let lease = Some(LeaseId(number(&self.lease))).filter(|lease| lease.0 > 0);
        Ok(Row { key, value, created: number(&self.create_revision), modified: number(&self.mod_revision), lease })
    }
}

/// `{"key":...}` of a read of one key.
pub fn one(key: &str) -> String {
    format!(r#"{{"key":"{}"}}"#, coded(key.as_bytes()))
}

/// A read of the keys from one up to another; `at` = 0: as it is now.
pub fn range(from: &[u8], to: &[u8], limit: usize, at: Revision) -> String {
    format!(r#"{{"key":"{}","range_end":"{}","limit":"{limit}","revision":"{at}"}}"#, coded(from), coded(to))
}

/// The condition that a key was changed last by this commit.
pub fn unchanged(key: &str, modified: Revision) -> String {
    format!(r#"{{"key":"{}","target":"MOD","result":"EQUAL","mod_revision":"{modified}"}}"#, coded(key.as_bytes()))
}

/// A put within a transaction; lease 0 = none.
pub fn put(key: &str, value: &[u8], lease: u64) -> String {
    format!(r#"{{"request_put":{{"key":"{}","value":"{}","lease":"{lease}"}}}}"#, coded(key.as_bytes()), coded(value))
}

/// A removal within a transaction.
pub fn delete(key: &str) -> String {
    format!(r#"{{"request_delete_range":{{"key":"{}"}}}}"#, coded(key.as_bytes()))
}

/// A read within a transaction; with the value or without.
pub fn look(key: &str, value: bool) -> String {
    format!(r#"{{"request_range":{{"key":"{}","keys_only":{}}}}}"#, coded(key.as_bytes()), !value)
}

/// A transaction.
pub fn txn(compare: &[String], success: &[String], failure: &[String]) -> String {
    let [compare, success, failure] = [compare, success, failure].map(|list| list.join(","));
    format!(r#"{{"compare":[{compare}],"success":[{success}],"failure":[{failure}]}}"#)
}

/// A watch from a revision on.
pub fn watch(from: &[u8], to: &[u8], start: Revision) -> String {
    let (from, to) = (coded(from), coded(to));
    format!(r#"{{"create_request":{{"key":"{from}","range_end":"{to}","start_revision":"{start}","progress_notify":true}}}}"#)
}

/// A name and password.
pub fn login(name: &str, password: &str) -> String {
    #[derive(miniserde::Serialize)]
    struct Login {
        name: String,
        password: String,
    }
    json::to_string(&Login { name: name.into(), password: password.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_etcd_gives_them() {
        let text = br#"{"header":{"cluster_id":"1","member_id":"15985099378392235387","revision":"3","raft_term":"2"},
            "kvs":[{"key":"cC9h","create_revision":"2","mod_revision":"3","version":"2","value":"Mg=="}],"count":"1"}"#;
        let got: Range = read("e", text).unwrap();
        assert_eq!(revision(&got.header), 3);
        let row = got.kvs.unwrap()[0].row("e", "p/").unwrap();
        assert_eq!(row, Row { key: "a".into(), value: b"2".into(), created: 2, modified: 3, lease: None });
        let empty: Range = read("e", br#"{"header":{"revision":"2"}}"#).unwrap();
        assert!(empty.kvs.is_none() && empty.more.is_none());
        let gone: KeptLease = read("e", br#"{"result":{"header":{},"ID":"123"}}"#).unwrap();
        assert_eq!(number(&gone.result.unwrap().ttl), 0);
        let cancelled: Told = read("e", br#"{"result":{"header":{},"canceled":true,"compact_revision":"3"}}"#).unwrap();
        assert_eq!(number(&cancelled.result.unwrap().compact_revision), 3);
    }

    #[test]
    fn strange_answers_have_a_reason() {
        for text in [&b""[..], b"<html>", b"{\"header\":3}", b"\xff", b"[]", b"{\"kvs\":[1]}"] {
            assert_eq!(read::<Range>("https://e:1", text).unwrap_err().code, "store_misconfigured");
        }
        let kv = |key: &str, value: &str| Kv { key: Some(key.into()), value: Some(value.into()), ..Default::default() };
        for (key, value) in [("YQ==", ""), ("cC/+", ""), ("cC9h", "%"), ("%", "")] {
            assert_eq!(kv(key, value).row("e", "p/").unwrap_err().code, "store_misconfigured", "{key} {value}");
        }
    }

    #[test]
    fn requests() {
        assert_eq!(one("a"), r#"{"key":"YQ=="}"#);
        let whole = txn(&[unchanged("a", 7)], &[put("a", b"1", 0), delete("b")], &[look("a", false)]);
        assert!(json::from_str::<json::Value>(&whole).is_ok(), "{whole}");
        assert!(json::from_str::<json::Value>(&login("a\"b", "\\\n")).is_ok());
    }
}
