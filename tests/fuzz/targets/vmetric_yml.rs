//! `vmetric.yml`: whatever somebody wrote, each problem names a place in the text, and what is good stays within its limits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmetric::director::config::Config;

fuzz_target!(|bytes: &[u8]| {
    let lines = 1 + bytes.iter().filter(|b| matches!(b, b'\n' | b'\r')).count();
    let parsed = Config::parse(bytes);
    if let Err(problems) = &parsed {
        assert!(!problems.is_empty());
        for problem in problems {
            assert!((1..=lines + 1).contains(&problem.line), "line {} of {lines}", problem.line);
            // One line each, for editors and for a terminal.
            assert!(!problem.to_string().chars().any(char::is_control), "{problem:?}");
        }
    }
    // A newer version's file is taken as far as it is known; one without a problem is taken as it is.
    let known = Config::parse_known(bytes);
    if let Ok(config) = &parsed {
        assert!(known.as_ref() == Some(config));
        let update = config.update.as_ref().map(|update| update.mode());
        assert!(update.is_none_or(|mode| mode == "manual" || mode == "auto"));
    }
});
