//! The audit log's rows, their chain, and the two forms in which it leaves the server: lines of JSON, and CSV.
//!
//! Every row holds the hash of the one before it and its own, over all of its fields: a row that was changed, removed or put
//! in does not fit any more. Who can write the store can compute a whole new chain, so the head is kept elsewhere, too.
//! What age removes from the beginning leaves a checkpoint, and a row in the chain that says so.

use miniserde::{Deserialize, Serialize, json};

use crate::core::hex;
use crate::core::reason::Reason;

/// Before every row's fields, so that no hash of another kind fits.
const DOMAIN: &str = "vmetric-audit-v1";
/// The hash before the first row ever.
pub const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Names this form of export.
pub const FORMAT: &str = "vmetric-audit-v1";
/// The action of the row that says what age removed.
pub const PRUNED: &str = "PruneAudit";
/// Columns of the CSV form.
const COLUMNS: [&str; 11] = ["n", "time", "user", "user_ip", "object_type", "object", "action", "description", "utc", "previous", "hash"];

/// One act.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Counts from 1, without a gap.
    pub n: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// Who: `user anna`, `api token 1f..`, `uid 0`.
    pub user: String,
    /// Where the request came from; empty: this machine.
    pub ip: String,
    /// What kind of thing it was about.
    pub object_type: String,
    /// Which one.
    pub object: String,
    /// What was done.
    pub action: String,
    /// With which values, and how it ended.
    pub description: String,
    /// The hash of the row before.
    pub previous: String,
    /// Over everything above.
    pub hash: String,
}

/// First line of an export as JSON.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// [`FORMAT`].
    pub format: String,
    /// When it was made, seconds since 1970.
    pub time: u64,
    /// The newest row, 0 = none.
    pub last: u64,
    /// Its hash: keep it elsewhere, and later `audit verify --head` tells whether this is still the same log.
    pub head: String,
    /// Rows up to this one were removed by age, 0 = none.
    pub removed: u64,
    /// The hash of that row.
    pub removed_hash: String,
    /// Rows were left out on request: single rows can be verified, the chain cannot.
    pub filtered: bool,
}

impl Row {
    /// What its hash has to be. Each field with its length: no two rows are the same text.
    pub fn computed(&self) -> String {
        let (n, time) = (self.n.to_string(), self.time.to_string());
        let fields =
            [DOMAIN, &self.previous, &n, &time, &self.user, &self.ip, &self.object_type, &self.object, &self.action, &self.description];
        let mut text = String::new();
        for field in fields {
            text += &field.len().to_string();
            text.push(':');
            text += field;
        }
        hex::encode(&hex::sha256(text.as_bytes()))
    }

    /// What stands for a removal in the chain.
    pub fn removal(removed: u64, hash: &str) -> String {
        format!("{removed}:{hash}")
    }
}

/// Follows a chain from row to row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The last row's number.
    pub n: u64,
    /// Its hash.
    pub hash: String,
    /// The removal that has to be told of in the chain, until it is found.
    untold: Option<String>,
    kept: Option<String>,
    /// Rows may be missing in between.
    gaps: bool,
}

impl Chain {
    /// From what was removed on; `kept`: a hash that somebody kept and that has to turn up.
    pub fn after(removed: u64, hash: &str, kept: Option<&str>, gaps: bool) -> Chain {
        let hash = if removed == 0 { BEGINNING } else { hash };
        let untold = (removed > 0 && !gaps).then(|| Row::removal(removed, hash));
        let kept = kept.filter(|kept| *kept != hash).map(String::from);
        Chain { n: removed, hash: hash.to_string(), untold, kept, gaps }
    }

    /// The same, for rows that begin later: an export of the newest ones. What was before the first one is taken on trust.
    pub fn begin_at(&self, first: &Row) -> Option<Chain> {
        (first.n > 1).then(|| Chain { n: first.n - 1, hash: first.previous.clone(), ..self.clone() })
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// `audit_broken`: which row is the first that does not fit, and how.
    pub fn take(&mut self, row: &Row) -> Result<(), Reason> {
        let next = self.n.saturating_add(1);
        let gap = self.gaps && row.n > next;
        if row.n != next && !gap {
            let why = match row.n > next {
                true => format!("rows {next} to {} are missing (or the export was filtered)", row.n - 1),
                false => format!("row {} stands where {next} has to be", row.n),
            };
            return Err(broken(row.n, &why));
        }
        if row.previous != self.hash && !gap {
            return Err(broken(row.n, &format!("it does not follow row {}: one of the two was changed or replaced", self.n)));
        }
        if row.computed() != row.hash {
            return Err(broken(row.n, "its content was changed: its hash is another one"));
        }
        if row.action == PRUNED && self.untold.as_ref() == Some(&row.object) {
            self.untold = None;
        }
        if self.kept.as_ref() == Some(&row.hash) {
            self.kept = None;
        }
        (self.n, self.hash) = (row.n, row.hash.clone());
        Ok(())
    }

    /// There are no more rows.
    ///
    /// # Errors
    /// `audit_broken`.
    pub fn end(&self) -> Result<(), Reason> {
        if self.untold.is_some() {
            return Err(broken(self.n, "no row tells of the removal of the rows before the first one: they were cut off"));
        }
        match &self.kept {
            Some(kept) => Err(broken(self.n, &format!("no row has the kept hash {kept}: the log was cut, replaced or restored"))),
            None => Ok(()),
        }
    }
}

fn broken(n: u64, why: &str) -> Reason {
    Reason::new("audit_broken", format!("the audit log is broken at row {n}: {why}"))
}

/// The CSV form's first line.
pub fn csv_head() -> String {
    COLUMNS.join(",") + "\r\n"
}

/// A row as CSV. A cell that a spreadsheet would take for a formula begins with `'`; so does one that begins with `'` itself,
/// and the way back is always the same.
pub fn csv(row: &Row, utc: &str) -> String {
    let cell = |text: &str| {
        let guard = if text.starts_with(['=', '+', '-', '@', '\'', '\t', '\r', '|', '%']) { "'" } else { "" };
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    };
    let (n, time) = (row.n.to_string(), row.time.to_string());
    let texts = [&row.user, &row.ip, &row.object_type, &row.object, &row.action, &row.description];
    let texts: Vec<String> = texts.into_iter().map(|text| cell(text)).collect();
    format!("{n},{time},{},{},{},{}\r\n", texts.join(","), cell(utc), row.previous, row.hash)
}

/// Reads an export in either form.
///
/// # Errors
/// `export_invalid`: which line is none of such an export.
pub fn read(text: &str) -> Result<(Option<Head>, Vec<Row>), Reason> {
    if text.starts_with('{') { lines(text) } else { cells(text) }
}

fn invalid(line: usize, why: &str) -> Reason {
    Reason::new("export_invalid", format!("line {line} is none of an export of the audit log: {why}"))
}

fn lines(text: &str) -> Result<(Option<Head>, Vec<Row>), Reason> {
    let (mut head, mut rows) = (None, Vec::new());
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        if at == 0 {
            let first: Head = json::from_str(line).map_err(|_| invalid(1, "it has to be the export's head"))?;
            if first.format != FORMAT {
                return Err(invalid(1, &format!("the format has to be {FORMAT}")));
            }
            head = Some(first);
        } else {
            rows.push(json::from_str(line).map_err(|_| invalid(at + 1, "it is no row"))?);
        }
    }
    Ok((head, rows))
}

fn cells(text: &str) -> Result<(Option<Head>, Vec<Row>), Reason> {
    let mut records = text.split_inclusive('\n').enumerate();
    let first = records.next().map(|(_, line)| line.trim_end());
    if first.map(|line| line.trim_start_matches('\u{feff}')) != Some(csv_head().trim_end()) {
        return Err(invalid(1, "the first line has to name the columns"));
    }
    let rows = records.map(|(at, line)| record(line).ok_or_else(|| invalid(at + 1, "it is no row"))).collect::<Result<_, _>>()?;
    Ok((None, rows))
}

/// One line: no cell holds a line end, because no field has control characters.
fn record(line: &str) -> Option<Row> {
    let mut cells = Vec::new();
    let mut rest = line.trim_end_matches(['\r', '\n']);
    loop {
        let (cell, left) = match rest.strip_prefix('"') {
            None => rest.split_once(',').map_or((rest.to_string(), None), |(cell, left)| (cell.to_string(), Some(left))),
            Some(quoted) => {
                let (cell, left) = quoted_cell(quoted)?;
                (cell.strip_prefix('\'').map_or(cell.clone(), String::from), left)
            }
        };
        cells.push(cell);
        match left {
            Some(left) => rest = left,
            None => break,
        }
    }
    let [n, time, user, ip, object_type, object, action, description, _utc, previous, hash] = <[String; 11]>::try_from(cells).ok()?;
    let (n, time) = (n.parse().ok()?, time.parse().ok()?);
    Some(Row { n, time, user, ip, object_type, object, action, description, previous, hash })
}

/// Up to the closing quote, and what follows the comma behind it.
fn quoted_cell(text: &str) -> Option<(String, Option<&str>)> {
    let (mut out, mut rest) = (String::new(), text);
    loop {
        let (part, after) = rest.split_once('"')?;
        out += part;
        match after.strip_prefix('"') {
            Some(more) => {
                out.push('"');
                rest = more;
            }
            None if after.is_empty() => return Some((out, None)),
            None => return Some((out, Some(after.strip_prefix(',')?))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(rows: u64) -> Vec<Row> {
        let mut previous = BEGINNING.to_string();
        let row = |n: u64| {
            let description = ["=1+1", "plain, \"quoted\"", "'kept", "", "\u{e9}"][n as usize % 5].to_string();
            let mut row = Row { n, time: 1_795_352_400 + n, user: "user anna".into(), description, ..Default::default() };
            row.previous = std::mem::take(&mut previous);
            row.hash = row.computed();
            previous = row.hash.clone();
            row
        };
        (1..=rows).map(row).collect()
    }

    fn verdict(rows: &[Row], kept: Option<&str>) -> Result<(), String> {
        let mut chain = Chain::after(0, "", kept, false);
        rows.iter().try_for_each(|row| chain.take(row)).and_then(|()| chain.end()).map_err(|r| r.detail.clone())
    }

    type Change = (&'static str, fn(&mut Row));

    #[test]
    fn every_change_is_found_at_its_row() {
        let good = log(20);
        assert_eq!(verdict(&good, None), Ok(()));
        assert_eq!(verdict(&good, Some(&good[10].hash)), Ok(()));
        let changes: [Change; 8] = [
            ("time", |r| r.time += 1),
            ("user", |r| r.user.push('x')),
            ("ip", |r| r.ip.push('x')),
            ("object_type", |r| r.object_type.push('x')),
            ("object", |r| r.object.push('x')),
            ("action", |r| r.action.push('x')),
            ("description", |r| r.description.push('x')),
            ("hash", |r| r.hash = BEGINNING.into()),
        ];
        for at in [0, 7, 19] {
            for (what, change) in &changes {
                let mut rows = good.clone();
                change(&mut rows[at]);
                let said = verdict(&rows, None).unwrap_err();
                assert!(said.contains(&format!("at row {}:", at + 1)), "{what}: {said}");
            }
        }
        // Text that moves from one field to the next is another row.
        let mut moved = good.clone();
        (moved[3].user, moved[3].ip) = ("user ann".into(), "a".into());
        assert!(verdict(&moved, None).unwrap_err().contains("row 4"));
    }

    #[test]
    fn rows_that_are_missing_or_in_another_order_are_found() {
        let good = log(9);
        let mut cut = good.clone();
        cut.remove(4);
        assert!(verdict(&cut, None).unwrap_err().contains("rows 5 to 5 are missing"));
        let mut swapped = good.clone();
        swapped.swap(2, 3);
        assert!(verdict(&swapped, None).unwrap_err().contains("row 4"));
        assert!(verdict(&good[1..], None).unwrap_err().contains("rows 1 to 1"));
        // Cut at the end, or begun anew by somebody who computes hashes: only the kept head tells.
        assert_eq!(verdict(&good[..5], None), Ok(()));
        assert!(verdict(&good[..5], Some(&good[8].hash)).unwrap_err().contains("kept hash"));
        let mut again = log(9);
        again[8].user = "somebody else".into();
        again[8].hash = again[8].computed();
        assert_eq!(verdict(&again, None), Ok(()));
        assert!(verdict(&again, Some(&good[8].hash)).unwrap_err().contains("kept hash"));
    }

    #[test]
    fn a_removal_by_age_has_its_row() {
        let mut rows = log(9);
        let (removed, hash) = (4, rows[3].hash.clone());
        let chain = |rows: &[Row]| {
            let mut chain = Chain::after(removed, &hash, None, false);
            rows.iter().try_for_each(|row| chain.take(row)).and_then(|()| chain.end())
        };
        assert!(chain(&rows[4..]).unwrap_err().detail.contains("cut off"));
        rows[8].action = PRUNED.into();
        rows[8].object = Row::removal(removed, &hash);
        rows[8].hash = rows[8].computed();
        assert!(chain(&rows[4..]).is_ok());
    }

    #[test]
    fn both_forms_bring_back_what_was_written() {
        let rows = log(12);
        let csv_text = csv_head() + &rows.iter().map(|row| csv(row, "2026")).collect::<String>();
        assert!(csv_text.contains("\"'=1+1\"") && csv_text.contains("\"''kept\"") && csv_text.contains("\"plain, \"\"quoted\"\"\""));
        assert_eq!(read(&csv_text).unwrap(), (None, rows.clone()));
        let head = Head { format: FORMAT.into(), last: 12, ..Default::default() };
        let lines: Vec<String> = rows.iter().map(json::to_string).collect();
        let json_text = format!("{}\n{}\n", json::to_string(&head), lines.join("\n"));
        assert_eq!(read(&json_text).unwrap(), (Some(head), rows));
    }

    #[test]
    fn no_export_is_taken_that_is_none() {
        for text in ["", "x", "{}", "{\"format\":\"other\"}", "[1]", "{", "n,time\r\n1,2\r\n"] {
            assert_eq!(read(text).unwrap_err().code, "export_invalid", "{text}");
        }
        for line in ["\"", "1,2", "1,2,\"a\"b,c", "x,2,\"\",\"\",\"\",\"\",\"\",\"\",\"\",a,b", "\"\"\"", ",,,,,,,,,,,,"] {
            assert_eq!(read(&(csv_head() + line)).unwrap_err().code, "export_invalid", "{line}");
        }
    }
}
