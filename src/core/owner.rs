//! Who makes the next move of something that is not over, by the code of its reason.

/// Whose move it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The device's agent: it works, or waits for its own time.
    Agent,
    /// The managing Director: it orders when its limits allow.
    Director,
    /// A person: nothing goes on by itself.
    Operator,
}

impl Owner {
    /// Stable word.
    pub fn word(self) -> &'static str {
        match self {
            Owner::Agent => "agent",
            Owner::Director => "director",
            Owner::Operator => "operator",
        }
    }

    /// The owner of a wait with this code. What is not listed is the agent's: it looks again at the wait's end.
    pub fn of(code: &str) -> Owner {
        match code {
            "first_agent" | "in_flight_limit" | "window_not_open" | "cooldown" | "earlier_rollout" | "earlier_order"
            | "director_stopping" => Owner::Director,
            // What the agent cannot repair: its disk, its clock, its rights, its enrollment, its check.
            "disk_full" | "noexec" | "state_error" | "clock_ahead" | "not_enrolled" | "no_root" | "check_unusable" => Owner::Operator,
            // What stays until a person speaks.
            "needs_authorization"
            | "cancelled_by_person"
            | "approval_pending"
            | "approval_expired"
            | "rollout_halted"
            | "quarantined"
            | "rejected"
            | "silent"
            | "agent_offline" => Owner::Operator,
            // What the release plane has to renew.
            code if code.ends_with("_expired") => Owner::Operator,
            _ => Owner::Agent,
        }
    }
}
