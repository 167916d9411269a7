//! The activity stream: what happened, with stable codes, kept when the process dies. What a person caused carries who
//! it was: the user id that the kernel noted for the administration socket's other end.
//!
//! | code | when |
//! |---|---|
//! | `director_started`, `director_stopping`, `director_stopped` (`fleet_...` in Fleet) | this server; it does not stop while agents need its word |
//! | `config_changed` | `vmetric.yml` was changed and is in force; which sections, and what waits for the next start |
//! | `config_invalid` | it is not valid; the settings before stay in force |
//! | `open_files_too_low` | the limit of open files is too low for the agents there are |
//! | `events_left_out` | an agent's reports made more events than are kept of one agent; how many were dropped |
//! | `connection_refused` | peers were turned away before they said anything of use; counted, a line per code and 5 minutes |
//! | `api_token_created`, `api_token_revoked` | a token of the REST API and `/metrics` was made, taken back |
//! | `token_created`, `token_revoked` | an enrollment token was made, taken back |
//! | `approval_wanted`, `approval_given`, `approval_denied`, `approval_expired` | a device waits for a person, who decided, or did not within 7 days |
//! | `download_refused` | an agent gets no more bytes today (`limits:` of `vmetric.yml`); once a day and reason |
//! | `enrolled`, `enrolled_again`, `removed` | an agent came, asked again for the same answer, was removed |
//! | `agent_returned` | its credential is of this site, and this (restored) registry did not know it |
//! | `ca_rotated`, `ca_retired` | the site went over to another CA; the former one's key was removed |
//! | `agent_lost` | it was not over yet when `ca retire --force` removed the former key: it has to enroll anew |
//! | `identity_twice`, `identity_replaced` | a second device showed the same identity; a person decided for it |
//! | `enrollment_refused`, `access_refused` | somebody was turned down; once per code and five minutes, with the count |
//! | `rollout_created`, `rollout_halted`, `rollout_done`, `rollout_cancelled` | a roll-out; agent is empty |
//! | `policy_changed`, `policy_refused` | settings were changed (before and after); a node's own file says what cannot be |
//! | `authorization_given`, `authorization_used`, `authorization_revoked`, `authorization_expired` | User Action: a person's word for one version |
//! | `update_triggered` | an order was issued to an agent |
//! | `order_accepted` | the agent has it |
//! | `waiting` | the agent waits, with its reason |
//! | `download_started`, `download_progress` (25, 50, 75), `download_completed` | the artifact on its way |
//! | `signature_verified` | the agent checked hash, build signature and release signature |
//! | `deployment_started` | the switch begins |
//! | `trial_started` | the new version runs and asks for its acknowledgement |
//! | `confirmed` | the new version runs for good; it reported its own file's hash |
//! | `already` | it ran that file before its turn |
//! | `rolled_back` | it went back; the detail says why |
//! | `refused`, `no_artifact` | the order or the release does not fit this agent |
//! | `cancel_issued`, `cancelled` | a person (or a halt) ended the order |
//! | `trial_refused` | a person does not want this trial to win: it goes back |
//! | `expired` | its turn did not come in the roll-out's life |
//! | `quarantined` | a halt keeps a file from its roll-out's agents |
//! | `hash_rejected`, `hash_allowed` | a person (or time) keeps a file from agents, or lifts that |
//! | `silent`, `flapping` | an agent counts as failed: nothing heard, or another version again |
//! | `repair_ordered` | a confirmed version is gone from the device and was ordered again |
//! | `version_changed` | it runs another file without an order |
//! | `local_update` | an operator's command on the device ended (`update --file`, `rollback`) |
//! | `result_foreign` | it ended an order of another Director |
//! | `certificate_renewed`, `certificate_failed` | the server certificate was renewed, or could not be |
//! | `running_withdrawn` | an agent runs a file that its publisher withdrew; it keeps running |
//! | `mirror_imported`, `import_refused` | a person brought a bundle or tree; what was accepted although expired, with dates |
//! | `certificate_replaced` | the operator's files (`--tls-cert`) are new; a failure with them or a near end is `certificate_failed` |
//! | `version_check`, `download`, `signature_verification`, `backup`, `service_stop`, `deployment`, `resource_update`, `service_start` | a step of this Director's own update is over: the event has its begin, end, result and reason |
//! | `confirmed`, `rolled_back`, `refused`, `already`, `cancelled` without an agent | this Director's own update is over |
//! | `fleet_unreachable`, `fleet_refused`, `fleet_back` | Fleet cannot be reached, or turns this Director down: once, and once when it is over |
//! | `settings_received`, `settings_refused` | Fleet's settings are in force, or were none |
//! | `mirror_refreshed`, `mirror_refused` | the release tree was renewed, or a refresh was turned down |

use super::records::Event;

/// Oldest kept event, days.
pub const KEPT_DAYS: u64 = 90;
/// Most bytes of kept events: 90 days of a busy site stay far below; a hostile agent cannot fill the disk.
pub const KEPT_BYTES: usize = 64 << 20;
/// Events that the memory keeps for followers.
pub const RECENT: usize = 1_000;

/// How long, and how much, is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Age of the oldest event, seconds.
    pub age_s: u64,
    /// Bytes of all events.
    pub bytes: usize,
}

impl Keep {
    /// What is configured, and the defaults.
    pub fn of(age_s: Option<u64>, bytes: Option<u64>) -> Keep {
        let default = Keep::default();
        Keep { age_s: age_s.unwrap_or(default.age_s), bytes: bytes.and_then(|b| b.try_into().ok()).unwrap_or(default.bytes) }
    }
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { age_s: KEPT_DAYS * 86_400, bytes: KEPT_BYTES }
    }
}

/// Which old events go: how many of the oldest must be removed, given each one's time and size in the order of age.
pub fn expired(events: &[(u64, usize)], keep: Keep, now: u64) -> usize {
    let oldest = now.saturating_sub(keep.age_s);
    let by_age = events.iter().take_while(|(time, _)| *time < oldest).count();
    let mut bytes = 0;
    let kept = events.iter().rev().take_while(|(_, size)| {
        bytes += size;
        bytes <= keep.bytes
    });
    by_age.max(events.len() - kept.count())
}

/// The key of an event in its table.
pub fn key(seq: u64) -> String {
    format!("{seq:020}")
}

/// Sequence and time of an event's row, read from its beginning as this Director writes it; `None`: parse it all.
pub fn seq_and_time(row: &str) -> Option<(u64, u64)> {
    let (seq, rest) = row.strip_prefix("{\"seq\":")?.split_once(',')?;
    let (time, _) = rest.strip_prefix("\"time\":")?.split_once(',')?;
    Some((seq.parse().ok()?, time.parse().ok()?))
}

/// The log line of an event.
pub fn line(event: &Event) -> String {
    let mut out = event.code.clone();
    if !event.agent.is_empty() {
        out = format!("{}: {out}", event.agent);
    }
    if !event.version.is_empty() {
        out = format!("{out} {}", event.version);
    }
    if let (Some(step), Some(result)) = (&event.step, &event.result) {
        out = format!("{out}: {step} {result}");
    }
    if event.detail.is_empty() { out } else { format!("{out}: {}", event.detail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_understood_by_its_beginning() {
        let event = Event { seq: 7, time: 1_795_352_400, agent: "a".into(), ..Default::default() };
        assert_eq!(seq_and_time(&miniserde::json::to_string(&event)), Some((7, 1_795_352_400)));
        for other in ["", "{}", "{\"time\":1,\"seq\":2,}", "{\"seq\":-1,\"time\":2,"] {
            assert_eq!(seq_and_time(other), None, "{other}");
        }
    }

    #[test]
    fn age_and_size_limit_the_stream() {
        let day = 86_400;
        let now = 1_000 * day;
        let keep = Keep::default();
        let expired = |events: &[(u64, usize)], now| expired(events, keep, now);
        assert_eq!(expired(&[], now), 0);
        assert_eq!(expired(&[(now - 91 * day, 1), (now - 89 * day, 1)], now), 1);
        let half = KEPT_BYTES / 2;
        assert_eq!(expired(&[(now, half), (now, half), (now, half)], now), 1);
        assert_eq!(expired(&[(now, KEPT_BYTES + 1)], now), 1);
        let short = Keep::of(Some(day), Some(10));
        assert_eq!(super::expired(&[(now - 2 * day, 1), (now, 6), (now, 6)], short, now), 2);
        assert_eq!(Keep::of(None, None), keep);
    }
}
