//! Text for people: aligned columns, times in UTC and relative to now.

/// Rows of the same columns.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with its head.
    pub fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|h| h.to_string()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines; each column as wide as its widest cell, the last one as long as it is.
    pub fn text(&self) -> String {
        let width = |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            out += line.join("  ").trim_end();
            out.push('\n');
        }
        out
    }
}

/// `4 s`, `3 min`, `2 h`, `5 d`: one unit, the largest that fits.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago, `never` for 0.
pub fn ago(now: u64, then: u64) -> String {
    match then {
        0 => "never".into(),
        _ => format!("{} ago", span(now.saturating_sub(then))),
    }
}

/// How long until.
pub fn until(now: u64, then: u64) -> String {
    if then > now { format!("{} left", span(then - now)) } else { format!("overdue {}", span(now - then)) }
}

/// `2026-11-22 13:05:09Z`.
pub fn utc(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Civil date from days since 1970-01-01 (Howard Hinnant's algorithm): years begin in March, so that the leap day is last.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34:56Z");
        assert_eq!(utc(1_795_352_400), "2026-11-22 13:00:00Z");
        assert_eq!((ago(100, 0), ago(100, 60)), ("never".to_string(), "40 s ago".to_string()));
        assert_eq!((until(100, 400), until(400, 100)), ("5 min left".to_string(), "overdue 5 min".to_string()));
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["A", "LONG", "C"]);
        table.row(vec!["ééé".into(), "x".into(), "last".into()]);
        assert_eq!(table.text(), "A    LONG  C\nééé  x     last\n");
    }
}
