//! A system user in the files of an image, where no `useradd` of that system can run.

use crate::core::reason::Reason;

/// Numbers that distributions give to system users.
const NUMBERS: std::ops::RangeInclusive<u32> = 100..=999;
/// Longest name, as `useradd` has it.
const NAME_MAX: usize = 32;

/// A name that every system takes.
///
/// # Errors
/// `user_name`.
pub fn check_name(name: &str) -> Result<(), Reason> {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    match first && plain && name.len() <= NAME_MAX {
        true => Ok(()),
        false => Err(Reason::new("user_name", format!("--user {name:?}: expected small letters, digits, - and _, {NAME_MAX} at most"))),
    }
}

/// User and group number of a name in `/etc/passwd`.
pub fn find(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = passwd.lines().map(|line| line.split(':')).find_map(|mut f| (f.next() == Some(name)).then_some(f))?;
    let (_, user, group) = (fields.next()?, fields.next()?, fields.next()?);
    Some((user.parse().ok()?, group.parse().ok()?))
}

/// `/etc/passwd` and `/etc/group` with that user, and its number. The highest number that neither file uses.
///
/// # Errors
/// `user_numbers`: all are taken.
pub fn add(passwd: &str, group: &str, name: &str) -> Result<(String, String, u32), Reason> {
    let numbers = |text: &str| text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect::<Vec<u32>>();
    let (users, groups) = (numbers(passwd), numbers(group));
    let free = NUMBERS.rev().find(|n| !users.contains(n) && !groups.contains(n));
    let number = free.ok_or_else(|| Reason::new("user_numbers", "no number from 100 to 999 is free in etc/passwd and etc/group"))?;
    let line = |text: &str, line: String| {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        format!("{text}{gap}{line}\n")
    };
    // `*`: no password ever matches, without a line in etc/shadow.
    let passwd = line(passwd, format!("{name}:*:{number}:{number}::/:/usr/sbin/nologin"));
    Ok((passwd, line(group, format!("{name}:*:{number}:")), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_a_number_of_its_own() {
        let passwd = "root:x:0:0:root:/:/bin/sh\nsystemd-network:x:998:998::/:/sbin/nologin";
        let (passwd, group, number) = add(passwd, "root:x:0:\nfloppy:x:999:\n", "vmetric-agent").unwrap();
        assert_eq!(number, 997);
        assert_eq!((find(&passwd, "vmetric-agent"), find(&passwd, "vmetric")), (Some((997, 997)), None));
        assert_eq!((passwd.lines().count(), group.lines().count()), (3, 3));
        let full: String = NUMBERS.map(|n| format!("u{n}:x:{n}:{n}::/:/\n")).collect();
        assert_eq!(add(&full, "", "x").unwrap_err().code, "user_numbers");
    }

    #[test]
    fn a_name_is_no_line_of_a_file() {
        for bad in ["", "a:0:0", "Root", "a\nb", "-r", "1a", "a b", &"x".repeat(33)] {
            assert_eq!(check_name(bad).unwrap_err().code, "user_name", "{bad:?}");
        }
        assert!(check_name("vmetric-agent").is_ok() && check_name("_vmetric").is_ok());
    }
}
