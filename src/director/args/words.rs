//! Words and options, taken one after the other; what is left at the end was not understood.

use crate::director::enroll::TTL_NEVER_S;

/// Arguments that have not been understood yet.
pub struct Words {
    pub(crate) args: Vec<String>,
}

impl Words {
    /// Whether one of the words that are no options is such a one; none is taken.
    pub fn any_word(&self, is: impl Fn(&str) -> bool) -> bool {
        self.args.iter().any(|word| !word.starts_with('-') && is(word))
    }

    /// Takes an option without a value.
    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.args.iter().position(|a| a == name);
        found.map(|at| self.args.remove(at)).is_some()
    }

    /// Takes every `--name VALUE` and `--name=VALUE`.
    pub fn options(&mut self, name: &str) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        while let Some(at) = self.args.iter().position(|a| a == name || a.strip_prefix(name).is_some_and(|r| r.starts_with('='))) {
            let arg = self.args.remove(at);
            match arg.split_once('=') {
                Some((_, value)) => out.push(value.to_string()),
                None if at < self.args.len() && !self.args[at].starts_with("--") => out.push(self.args.remove(at)),
                None => return Err(format!("{name} needs a value")),
            }
        }
        Ok(out)
    }

    /// Takes an option that may be given once.
    pub fn option(&mut self, name: &str) -> Result<Option<String>, String> {
        let mut all = self.options(name)?;
        if all.len() > 1 {
            return Err(format!("{name} is given {} times", all.len()));
        }
        Ok(all.pop())
    }

    /// Takes an option that may be given several times.
    pub fn list(&mut self, name: &str) -> Result<Option<Vec<String>>, String> {
        Ok(Some(self.options(name)?).filter(|l| !l.is_empty()))
    }

    /// Takes a whole number.
    pub fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        let parse = |t: String| t.parse().map_err(|_| format!("{name} {t}: expected a whole number"));
        self.option(name)?.map(parse).transpose()
    }

    /// Takes a duration.
    pub fn duration(&mut self, name: &str) -> Result<Option<u64>, String> {
        let parse = |t: String| seconds(&t).ok_or_else(|| format!("{name} {t}: expected a duration, such as 90s, 5m, 1h, 7d"));
        self.option(name)?.map(parse).transpose()
    }

    /// A duration, or `never`.
    pub fn life(&mut self, name: &str) -> Result<Option<u64>, String> {
        let never = [format!("{name}=never"), "never".into()];
        if let Some(at) = self.args.iter().position(|a| *a == never[0]) {
            self.args.remove(at);
            return Ok(Some(TTL_NEVER_S));
        }
        if let Some(at) = self.args.windows(2).position(|w| w[0] == name && w[1] == never[1]) {
            self.args.drain(at..at + 2);
            return Ok(Some(TTL_NEVER_S));
        }
        self.duration(name)
    }

    /// Takes an option that is on or off.
    pub fn switch(&mut self, name: &str) -> Result<Option<bool>, String> {
        let parse = |text: String| match text.as_str() {
            "on" => Ok(true),
            "off" => Ok(false),
            other => Err(format!("{name} {other}: expected on or off")),
        };
        self.option(name)?.map(parse).transpose()
    }

    /// Takes what is to be done with a kind of thing.
    pub fn act(&mut self, kind: &str, acts: &[&str]) -> Result<String, String> {
        let act = self.word()?.filter(|act| acts.contains(&act.as_str()));
        act.ok_or_else(|| format!("expected `{kind} {}`", acts.join(&format!("`, `{kind} "))))
    }

    /// Takes the name of a thing that is there.
    pub fn named(&mut self, kind: &str, act: &str) -> Result<String, String> {
        self.word()?.ok_or_else(|| format!("{kind} {act} needs the {kind}'s ID or name"))
    }

    /// Takes the next word that is no option.
    pub fn word(&mut self) -> Result<Option<String>, String> {
        match self.args.iter().position(|a| !a.starts_with('-')) {
            Some(0) => Ok(Some(self.args.remove(0))),
            Some(_) => Err(format!("unexpected '{}' before the command", self.args[0])),
            None => Ok(None),
        }
    }

    /// Takes the next word, if it is this one.
    pub fn begins(&mut self, word: &str) -> bool {
        let found = self.args.first().is_some_and(|arg| arg == word);
        if found {
            self.args.remove(0);
        }
        found
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), String> {
        match self.args.first() {
            Some(arg) => Err(format!("unexpected '{arg}'; --help lists commands and options")),
            None => Ok(()),
        }
    }
}

/// `90s`, `5m`, `1h`, `7d`; a bare number is seconds.
pub fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().next_back()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3_600),
        (at, 'd') => (&text[..at], 86_400),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
