//! Passwords at rest: argon2id, each with its own salt and with the parameters it was made with.

use std::cell::Cell;

use argon2::{Algorithm, Argon2, Params, Version};
use miniserde::{Deserialize, Serialize};
use smol::lock::Semaphore;

use crate::core::hex;
use crate::core::reason::Reason;
use crate::io::random;

/// Memory, KiB: with two passes OWASP's recommendation for argon2id. About 30 ms, which a person does not notice, and
/// a thousand times the price of a plain hash for whoever has stolen the file.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over it.
const PASSES: u32 = 2;
/// One lane: more would be more threads for us, and as many for whoever guesses.
const LANES: u32 = 1;
/// Bytes of the result, and of a salt.
const LENGTH: usize = 32;
const SALT: usize = 16;
/// At once: logins must not take the machine from the agents' server, and 2 x 19 MiB is all the memory they get.
const AT_ONCE: usize = 2;
/// Who waits for one of those places: two seconds of work.
const WAITING_MAX: usize = 64;

/// What is kept of a password.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Hashed {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// Hexadecimal.
    pub salt: String,
    /// Hexadecimal.
    pub hash: String,
}

impl Hashed {
    /// A new one, with a salt of its own.
    ///
    /// # Errors
    /// `login_busy`: no memory for it.
    pub fn new(password: &[u8]) -> Result<Hashed, Reason> {
        let salt = hex::encode(&random::bytes::<SALT>());
        let mut made = Hashed { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, salt, hash: String::new() };
        made.hash = made.derive(password)?;
        Ok(made)
    }

    /// One that no password fits: what is compared for a name that there is not, so that it takes as long.
    pub fn nobody() -> Hashed {
        Hashed { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, salt: "00".repeat(SALT), hash: String::new() }
    }

    /// Whether this is the password.
    ///
    /// # Errors
    /// `login_busy`.
    pub fn fits(&self, password: &[u8]) -> Result<bool, Reason> {
        Ok(crate::director::api_tokens::same(&self.derive(password)?, &self.hash))
    }

    fn derive(&self, password: &[u8]) -> Result<String, Reason> {
        let failed = |e: argon2::Error| Reason::new("login_busy", format!("the password could not be compared: {e}; try again"));
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(LENGTH)).map_err(failed)?;
        let mut out = [0; LENGTH];
        let salt = hex::decode::<SALT>(&self.salt).unwrap_or_default();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(password, &salt, &mut out).map_err(failed)?;
        Ok(hex::encode(&out))
    }
}

/// The places where passwords are worked on, off the server's one thread.
pub struct Bench {
    places: Semaphore,
    waiting: Cell<usize>,
}

impl Default for Bench {
    fn default() -> Bench {
        Bench { places: Semaphore::new(AT_ONCE), waiting: Cell::new(0) }
    }
}

struct Waiting<'a>(&'a Cell<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Bench {
    /// Does one piece of such work.
    ///
    /// # Errors
    /// `login_busy`: too many wait already; and those of the work.
    pub async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, Reason> + Send + 'static) -> Result<T, Reason> {
        if self.waiting.get() >= WAITING_MAX {
            return Err(Reason::new("login_busy", format!("{WAITING_MAX} logins wait already; try again in a few seconds")));
        }
        self.waiting.set(self.waiting.get() + 1);
        let waiting = Waiting(&self.waiting);
        let place = self.places.acquire().await;
        let done = smol::unblock(work).await;
        drop((place, waiting));
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_only_itself() {
        let kept = Hashed::new(b"correct horse battery").unwrap();
        assert!(kept.fits(b"correct horse battery").unwrap() && !kept.fits(b"correct horse batterY").unwrap());
        let again = Hashed::new(b"correct horse battery").unwrap();
        assert!(kept.salt != again.salt && kept.hash != again.hash && kept.hash.len() == 2 * LENGTH);
        for password in ["", "x"] {
            assert!(!Hashed::nobody().fits(password.as_bytes()).unwrap());
        }
    }

    #[test]
    fn only_so_many_wait() {
        let bench = Bench::default();
        let held: Vec<_> = (0..AT_ONCE).filter_map(|_| bench.places.try_acquire()).collect();
        bench.waiting.set(WAITING_MAX);
        let refused = smol::block_on(bench.work(|| Ok(()))).unwrap_err();
        assert_eq!((held.len(), refused.code.as_ref()), (AT_ONCE, "login_busy"));
        bench.waiting.set(0);
        drop(held);
        smol::block_on(bench.work(|| Ok(()))).unwrap();
        assert_eq!(bench.waiting.get(), 0);
    }
}
