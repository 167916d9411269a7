//! Instants become windows: from when to when a schedule lets a node change version.

/// How long before its window an order may be issued, so that the file is there when it opens.
pub const FETCH_AHEAD_S: u64 = 3_600;
/// Longest window: a first agent and those after it fit, and a device that was off at night is not updated at noon.
pub const WINDOW_MAX_S: u64 = 3_600;
/// Shortest window: the planner's tick and a poll fit well.
pub const WINDOW_MIN_S: u64 = 30;

/// The first instant strictly after another at which a schedule fires, seconds since 1970; `None` = it never fires again.
pub type Firing<'a> = &'a dyn Fn(u64) -> Option<u64>;

/// When a node may change version.
#[derive(Clone, Copy)]
pub enum Schedule<'a> {
    /// At the instants of a cron line in its zone.
    Cron(Firing<'a>),
    /// At `base` and every so many seconds after it. The base is the setting's own time (the first run is immediate) or,
    /// when an update of the node ended after that, its end and one interval.
    Interval {
        /// Seconds.
        every: u64,
        /// First instant.
        base: u64,
    },
}

/// A time in which a node may change version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First second.
    pub opens: u64,
    /// First second that is too late to begin.
    pub closes: u64,
    /// What has not switched by then is withdrawn: a cron line that fires rarely names a maintenance window. One that fires
    /// every few hours, or an interval, says how often to look, and an update that takes longer goes on.
    pub binding: bool,
}

impl Schedule<'_> {
    /// The window that is open now, else the next one; `None` = there is none any more.
    ///
    /// A window is open for a quarter of the time to the next instant, at least [`WINDOW_MIN_S`], at most
    /// [`WINDOW_MAX_S`]. What opened before `since` does not count: a setting that is made an hour late waits.
    pub fn window(&self, since: u64, now: u64) -> Option<Window> {
        // The latest instant whose window can be open still, else the first one to come.
        let mut opens = self.next(now.saturating_sub(WINDOW_MAX_S).max(since.saturating_sub(1)))?;
        // At most WINDOW_MAX_S / 30 s steps for an interval, one per minute for cron.
        loop {
            let following = self.next(opens);
            let length = following.map_or(WINDOW_MAX_S, |f| ((f - opens) / 4).clamp(WINDOW_MIN_S, WINDOW_MAX_S));
            let closes = opens.saturating_add(length);
            if now < closes {
                let binding = matches!(self, Schedule::Cron(_)) && length == WINDOW_MAX_S;
                return Some(Window { opens, closes, binding });
            }
            opens = following?;
        }
    }

    /// The first instant strictly after `after`.
    pub fn next(&self, after: u64) -> Option<u64> {
        match self {
            // An answer that does not move on would be a loop without end.
            Schedule::Cron(firing) => firing(after).filter(|at| *at > after),
            Schedule::Interval { every, base } if after < *base => Some(*base).filter(|_| *every > 0),
            Schedule::Interval { every, base } => {
                let passed = (after - base).checked_div(*every)?;
                base.checked_add(passed.checked_add(1)?.checked_mul(*every)?)
            }
        }
    }
}
