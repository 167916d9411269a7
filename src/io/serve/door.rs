//! Who may come in: what a peer gets before anybody knows who it is.
//!
//! ```text
//!  accept -> Arriving (TLS and the first request, few at once) -> Stranger (answered, not known) -> known: no limit here
//! ```
//!
//! Arrivals are few at once, so that a fleet that comes back is served one after the other instead of all too late; the
//! rest waits in the kernel's queue. Peers that hold an arrival's place without getting on lose it to others, those of
//! the address with the most first. One address may not fill the server with connections that nobody vouches for.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use smol::Timer;
use smol::lock::{Semaphore, SemaphoreGuardArc};

use super::request::Digest;
use super::{Limits, now};

/// An arrival that takes longer may be ended in favour of another: a handshake and a request over the slowest of links
/// take less.
const SLOW: Duration = Duration::from_secs(2);
/// How often a full house looks for slow arrivals.
const LOOK: Duration = Duration::from_millis(100);

/// The door of one server.
pub(super) struct Door {
    arriving: Arc<Semaphore>,
    per_address: usize,
    strangers_per_address: usize,
    addresses: RefCell<HashMap<IpAddr, Address>>,
    next: Cell<u64>,
}

/// What one address has open that nobody vouches for.
#[derive(Default)]
struct Address {
    strangers: usize,
    /// Oldest first.
    arriving: VecDeque<Arrival>,
}

struct Arrival {
    id: u64,
    since: Instant,
    ended: Rc<Ended>,
}

impl Address {
    /// The oldest arrival that has taken too long and has not been ended yet.
    fn slow(&self, now: Instant) -> Option<&Arrival> {
        self.arriving.iter().take_while(|a| now.duration_since(a.since) > SLOW).find(|a| !a.ended.set.get())
    }
}

impl Arrival {
    fn end(&self) {
        self.ended.set.set(true);
        if let Some(waker) = self.ended.waker.take() {
            waker.wake();
        }
    }
}

/// Tells an arrival that its place is taken away.
#[derive(Default)]
struct Ended {
    set: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Why an address gets no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany(pub &'static str);

impl Door {
    pub fn new(limits: &Limits) -> Rc<Door> {
        Rc::new(Door {
            arriving: Arc::new(Semaphore::new(limits.arriving)),
            per_address: (limits.arriving / 4).max(1),
            strangers_per_address: limits.strangers_per_address,
            addresses: RefCell::default(),
            next: Cell::new(0),
        })
    }

    /// Waits for a place for one more arrival; who has stood in the door for too long makes room.
    pub async fn place(&self) -> SemaphoreGuardArc {
        loop {
            if let Some(place) = self.arriving.try_acquire_arc() {
                return place;
            }
            self.end_slowest(now());
            let free = async { Some(self.arriving.acquire_arc().await) };
            let look = async {
                Timer::after(LOOK).await;
                None
            };
            if let Some(place) = smol::future::or(free, look).await {
                return place;
            }
        }
    }

    /// Ends the oldest arrival of the address that has the most of them, if it is slow.
    fn end_slowest(&self, now: Instant) {
        let addresses = self.addresses.borrow();
        let slow = addresses.values().filter_map(|a| a.slow(now).map(|first| (a.arriving.len(), first)));
        if let Some((_, first)) = slow.max_by_key(|(length, _)| *length) {
            first.end();
        }
    }

    /// Lets a connection in, or says why its address has too many.
    pub fn enter(self: &Rc<Door>, address: IpAddr, place: SemaphoreGuardArc, now: Instant) -> Result<Rc<Guest>, TooMany> {
        let address = address.to_canonical();
        let mut addresses = self.addresses.borrow_mut();
        let seen = addresses.entry(address).or_default();
        if seen.strangers >= self.strangers_per_address {
            return Err(TooMany("too_many_strangers"));
        }
        // Its own oldest makes room: behind one address there may be others who do get on.
        if seen.arriving.len() >= self.per_address
            && let Some(first) = seen.slow(now)
        {
            first.end();
        }
        let id = self.next.get();
        self.next.set(id + 1);
        seen.strangers += 1;
        let ended = Rc::new(Ended::default());
        seen.arriving.push_back(Arrival { id, since: now, ended: ended.clone() });
        let state = RefCell::new(State { place: Some(place), ended: Some(ended), stranger: true, known_by: None });
        Ok(Rc::new(Guest { door: self.clone(), address, id, state }))
    }
}

/// One connection, as the door sees it.
pub(super) struct Guest {
    door: Rc<Door>,
    address: IpAddr,
    id: u64,
    state: RefCell<State>,
}

struct State {
    place: Option<SemaphoreGuardArc>,
    ended: Option<Rc<Ended>>,
    stranger: bool,
    known_by: Option<Digest>,
}

impl Guest {
    /// The first request is complete.
    pub fn arrived(&self) {
        let mut state = self.state.borrow_mut();
        if state.ended.take().is_some() {
            let mut addresses = self.door.addresses.borrow_mut();
            if let Some(address) = addresses.get_mut(&self.address)
                && let Some(at) = address.arriving.iter().position(|a| a.id == self.id)
            {
                address.arriving.remove(at);
            }
        }
        state.place = None;
    }

    /// The application knows this peer.
    pub fn known(&self, digest: Digest) {
        self.arrived();
        self.no_stranger();
        self.state.borrow_mut().known_by = Some(digest);
    }

    fn no_stranger(&self) {
        if std::mem::take(&mut self.state.borrow_mut().stranger) {
            let mut addresses = self.door.addresses.borrow_mut();
            if let Some(address) = addresses.get_mut(&self.address) {
                address.strangers -= 1;
                if address.strangers == 0 {
                    addresses.remove(&self.address);
                }
            }
        }
    }

    /// By what [`Guest::known`] was said, once it was.
    pub fn known_by(&self) -> Option<Digest> {
        self.state.borrow().known_by
    }

    /// Waits until the place is taken away; for ever, once it has arrived.
    pub async fn ended(&self) {
        let ended = self.state.borrow().ended.clone();
        poll_fn(|cx| match &ended {
            Some(ended) if ended.set.get() => Poll::Ready(()),
            Some(ended) => {
                *ended.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Pending,
        })
        .await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.arrived();
        self.no_stranger();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Rc<Door> {
        Door::new(&Limits { arriving: 8, strangers_per_address: 5, ..Limits::default() })
    }

    fn enter(door: &Rc<Door>, last: u8, now: Instant) -> Result<Rc<Guest>, TooMany> {
        let place = smol::block_on(door.place());
        door.enter(IpAddr::from([10, 0, 0, last]), place, now)
    }

    #[test]
    fn one_address_gets_its_share_and_gives_it_back() {
        let (door, begin) = (door(), now());
        let guests: Vec<_> = (0..5).map(|_| enter(&door, 1, begin).unwrap()).collect();
        assert_eq!(enter(&door, 1, begin).err(), Some(TooMany("too_many_strangers")));
        assert!(enter(&door, 2, begin).is_ok());
        guests[0].known([0; 16]);
        let another = enter(&door, 1, begin).unwrap();
        assert_eq!(enter(&door, 1, begin).err(), Some(TooMany("too_many_strangers")));
        drop((guests, another));
        assert!(door.addresses.borrow().is_empty(), "nothing is kept of who has left");
    }

    #[test]
    fn who_does_not_get_on_makes_room() {
        let (door, begin) = (door(), now());
        let guests: Vec<_> = (0..2).map(|_| enter(&door, 1, begin).unwrap()).collect();
        assert!(enter(&door, 1, begin).is_ok(), "a fleet behind one address comes back at once");
        let ended = |g: &Rc<Guest>| g.state.borrow().ended.as_ref().is_some_and(|e| e.set.get());
        let later = begin + 2 * SLOW;
        let next = enter(&door, 1, later).unwrap();
        assert!(ended(&guests[0]) && !ended(&guests[1]) && !ended(&next));
        guests[1].arrived();
        assert!(enter(&door, 1, later).is_ok());
        assert!(!ended(&next));
    }

    #[test]
    fn the_slowest_of_the_greediest_makes_room() {
        let (door, begin) = (door(), now().checked_sub(2 * SLOW).unwrap_or_else(now));
        let enter = |last| {
            let place = door.arriving.try_acquire_arc().unwrap();
            door.enter(IpAddr::from([10, 0, 0, last]), place, begin).unwrap()
        };
        let lonely: Vec<_> = (2..6).map(enter).collect();
        let greedy: Vec<_> = (0..4).map(|_| enter(1)).collect();
        door.end_slowest(begin);
        assert!(greedy.iter().chain(&lonely).all(|g| !g.state.borrow().ended.as_ref().unwrap().set.get()), "nobody is slow yet");
        door.end_slowest(begin + 2 * SLOW);
        smol::block_on(greedy[0].ended());
        let ended = |g: &Rc<Guest>| g.state.borrow().ended.as_ref().is_some_and(|e| e.set.get());
        assert!(!ended(&greedy[1]) && !lonely.iter().any(ended));
    }
}
