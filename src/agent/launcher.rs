//! Which image starts. Everything a device needs to always run something, and nothing else: no network, no TLS.
//!
//! The service manager starts the factory image, which comes here. Each turn decides with [`next_boot`], makes that
//! decision durable BEFORE anything starts, checks the slot's file and starts it. Whatever is wrong (marks, file, hash,
//! signature, exec with any error) the next turn knows it and falls through: the other slot, then the factory image,
//! which is this very program and can always go on.

use crate::core::hex::Sha256;
use crate::core::reason::Reason;
use crate::core::slots::{Boot, Image, Marks, Seen, Slot, next_boot};

/// What the launcher sees and does. The real one is [`super::host::Host`].
pub trait Site {
    /// The marks in force; rebuilt if both copies are lost. Never fails.
    fn load(&mut self) -> Marks;
    /// Hash of the factory image, that is of this program's own file.
    fn factory(&mut self) -> Sha256;
    /// Id of this boot.
    fn boot_id(&mut self) -> String;
    /// Makes the marks durable.
    fn save(&mut self, marks: &Marks) -> Result<(), Reason>;
    /// Is the slot's file the one that the marks speak of, with its build signature?
    fn check(&mut self, slot: Slot, sha256: &Sha256) -> Result<(), Reason>;
    /// Starts a slot's file; the error says why it does not start. Where a program takes this one's place it does not
    /// return otherwise; where it runs as a child, `Ok` means that it ran and has ended.
    fn start(&mut self, slot: Slot) -> Result<(), Reason>;
    /// Says what happens, for the log.
    fn tell(&mut self, what: &str);
}

/// Turns at most: each takes one slot out of the game, and there are two.
const TURNS_MAX: usize = 4;

/// Starts the right slot and does not return, or returns `None` when it has ended; or returns the marks because the
/// factory image is to run, that is the caller goes on.
pub fn launch(site: &mut dyn Site) -> Option<Marks> {
    let mut marks = site.load();
    let mut seen = Seen { factory: site.factory(), boot_id: site.boot_id(), ..Seen::default() };
    for _ in 0..TURNS_MAX {
        let Boot { image, marks: counted } = next_boot(&marks, &seen);
        let saved = site.save(&counted);
        marks = counted;
        let Image::Slot(slot) = image else { return Some(marks) };
        // A trial whose start cannot be counted would have no end: it must not start. A confirmed one may.
        let on_trial = marks.slot(slot).condition == crate::core::slots::Condition::Trial;
        let reason = match saved {
            Err(reason) if on_trial => {
                Reason::new("start_not_counted", format!("the trial's start could not be made durable: {}", reason.detail))
            }
            _ => match site.check(slot, &marks.slot(slot).sha256) {
                Ok(()) => match site.start(slot) {
                    Ok(()) => return None,
                    Err(reason) => reason,
                },
                Err(reason) => reason,
            },
        };
        site.tell(&format!("slot {} does not start: {reason}", slot.name()));
        seen.broken[slot as usize] = Some(reason);
    }
    Some(marks)
}
