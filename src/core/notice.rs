//! What webhooks are told, where they may point, and when a failed delivery is tried again.

use super::reason::Reason;

/// Longest address, bytes.
pub const URL_MAX: usize = 512;
/// Pauses after the first failures, seconds; the last one goes on until [`LIFE_S`].
const PAUSES_S: [u64; 5] = [10, 60, 300, 1_800, 3_600];
/// A notice that could not be delivered for so long is given up: it is no news any more.
pub const LIFE_S: u64 = 86_400;
/// Metadata that expires within this time is told of: a working week to find the signer.
pub const EXPIRES_SOON_S: u64 = 5 * 86_400;
/// The same for a timestamp, which is renewed daily: half of its usual life.
pub const TIMESTAMP_SOON_S: u64 = 12 * 3_600;
/// A site that says nothing for so long is told of: a reboot and a short outage pass unnoticed.
pub const SILENT_S: u64 = 900;

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A version is there that was not before.
    UpdateAvailable,
    /// An update did not come to a good end.
    UpdateFailed,
    /// A new version was taken back.
    RolledBack,
    /// Too many failures: a roll-out stopped.
    RolloutHalted,
    /// Signed metadata is about to expire.
    MetadataExpires,
    /// A Director says nothing any more.
    SiteSilent,
    /// A person tries whether it works.
    Test,
}

impl Kind {
    /// Each that can be chosen.
    pub const ALL: [Kind; 6] =
        [Kind::UpdateAvailable, Kind::UpdateFailed, Kind::RolledBack, Kind::RolloutHalted, Kind::MetadataExpires, Kind::SiteSilent];

    /// Stable word.
    pub fn word(self) -> &'static str {
        match self {
            Kind::UpdateAvailable => "update_available",
            Kind::UpdateFailed => "update_failed",
            Kind::RolledBack => "rolled_back",
            Kind::RolloutHalted => "rollout_halted",
            Kind::MetadataExpires => "metadata_expires",
            Kind::SiteSilent => "site_silent",
            Kind::Test => "test",
        }
    }

    /// What an event of the activity is, if it is worth a notice.
    pub fn of(code: &str) -> Option<Kind> {
        match code {
            "rolled_back" => Some(Kind::RolledBack),
            "silent" | "flapping" | "refused" | "no_artifact" => Some(Kind::UpdateFailed),
            "rollout_halted" => Some(Kind::RolloutHalted),
            _ => None,
        }
    }
}

/// The kinds of these words; none = all.
///
/// # Errors
/// `kinds_invalid`: which word, and what there is.
pub fn kinds(words: &[String]) -> Result<Vec<String>, Reason> {
    let all: Vec<&str> = Kind::ALL.iter().map(|k| k.word()).collect();
    if let Some(word) = words.iter().find(|word| !all.contains(&word.as_str())) {
        let shown: String = word.chars().take(40).collect();
        return Err(Reason::new("kinds_invalid", format!("events: '{shown}' is not known; there are: {}", all.join(", "))));
    }
    let mut kinds = words.to_vec();
    kinds.sort();
    kinds.dedup();
    Ok(kinds)
}

/// Where a webhook points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// `Host` of a request.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }
}

/// Reads an address: `https` only, since a notice says what runs where; no user in it, since credentials do not belong into
/// addresses; printable ASCII only, so that nothing in it can end a line of the request.
///
/// # Errors
/// `url_invalid`.
pub fn target(url: &str) -> Result<Target, Reason> {
    let bad = |why: &str| Reason::new("url_invalid", format!("url: {why}; expected https://HOST[:PORT]/PATH"));
    if url.len() > URL_MAX {
        return Err(bad(&format!("longer than {URL_MAX} bytes")));
    }
    if !url.bytes().all(|b| b.is_ascii_graphic()) || url.contains(['#', '\\', '"', '<', '>']) {
        return Err(bad("has blanks, a fragment, or characters that belong into no address"));
    }
    let rest = url.strip_prefix("https://").ok_or_else(|| bad("is not https: a notice names versions and sites"))?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    if authority.contains('@') {
        return Err(bad("names a user: credentials do not belong into addresses"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':'))).ok_or_else(|| bad("has an open bracket"))?,
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(bad("has no host"));
    }
    let port = port.map_or(Ok(443), |p| p.parse().ok().filter(|p| *p > 0).ok_or_else(|| bad("has no port from 1 to 65535")))?;
    let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
    Ok(Target { host: host.to_ascii_lowercase(), port, path })
}

/// How long to wait after so many failures, seconds.
pub fn pause_s(failures: u64) -> u64 {
    let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(PAUSES_S.len() - 1);
    PAUSES_S[index]
}

/// When to try again after so many failures; `None` = not any more.
pub fn retry_at(created_at: u64, failures: u32, now: u64) -> Option<u64> {
    let at = now.saturating_add(pause_s(failures.into()));
    (at < created_at.saturating_add(LIFE_S)).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let good = |url: &str| target(url).map(|t| (t.authority(), t.path)).unwrap();
        assert_eq!(good("https://Hooks.example.org/services/T0/B0?x=1"), ("hooks.example.org".into(), "/services/T0/B0?x=1".into()));
        assert_eq!(good("https://10.0.0.7:8065"), ("10.0.0.7:8065".into(), "/".into()));
        assert_eq!(good("https://[2001:db8::1]:8443?a"), ("[2001:db8::1]:8443".into(), "/?a".into()));
        for bad in [
            "http://a/",
            "https://",
            "https:///x",
            "https://u:p@a/",
            "https://a:0/",
            "https://a:65536/",
            "https://a b/",
            "https://a/\r\nX: y",
            "https://a/#f",
            "https://[::1/",
            "ftp://a",
            "a",
            "",
            &format!("https://{}", "a".repeat(URL_MAX)),
        ] {
            assert_eq!(target(bad).unwrap_err().code, "url_invalid", "{bad}");
        }
    }

    #[test]
    fn a_failure_is_tried_again_for_a_day_and_then_not_any_more() {
        let (mut now, mut failures, mut times) = (1_000, 0, Vec::new());
        loop {
            failures += 1;
            match retry_at(1_000, failures, now) {
                None => break,
                Some(at) => {
                    times.push(at - now);
                    now = at;
                }
            }
        }
        assert_eq!(&times[..6], [10, 60, 300, 1_800, 3_600, 3_600]);
        assert!(times.len() < 40 && now < 1_000 + LIFE_S);
    }

    #[test]
    fn kinds_have_words_of_their_own() {
        let words: std::collections::BTreeSet<&str> = Kind::ALL.iter().map(|k| k.word()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
        assert_eq!(kinds(&["silent".into()]).unwrap_err().code, "kinds_invalid");
        assert_eq!(kinds(&["rolled_back".into(), "rolled_back".into()]).unwrap(), ["rolled_back"]);
    }
}
