//! Wakers for one thread: a [`Bell`] for one who waits, [`Bells`] for many. No locks, no allocation per ring.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Rung once, it stays rung. One waits.
#[derive(Default)]
pub struct Bell {
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Bell {
    /// Wakes the one who waits, or the next one who will.
    pub fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for the ring and takes it, so that the bell can ring again.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.rung.take() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Every ring wakes all who wait at that moment. Whoever waits looks at the cause again, so a ring too many does no harm.
#[derive(Default)]
pub struct Bells {
    rings: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Bells {
    /// Wakes all who wait.
    pub fn ring(&self) {
        self.rings.set(self.rings.get().wrapping_add(1));
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    /// Waits for the next ring after this call.
    pub async fn wait(&self) {
        let heard = self.rings.get();
        poll_fn(|context| {
            if self.rings.get() != heard {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            // Only against the last one: a duplicate costs a needless wake, a full search would cost more with many.
            if !wakers.last().is_some_and(|w| w.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let bell = Bell::default();
        bell.ring();
        smol::block_on(bell.wait());
    }

    #[test]
    fn all_who_wait_are_woken() {
        let executor = smol::LocalExecutor::new();
        let (bells, woken) = (Rc::new(Bells::default()), Rc::new(Cell::new(0)));
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let (bells, woken) = (bells.clone(), woken.clone());
                executor.spawn(async move {
                    bells.wait().await;
                    woken.set(woken.get() + 1);
                })
            })
            .collect();
        smol::block_on(executor.run(async {
            smol::future::yield_now().await;
            while executor.try_tick() {}
            bells.ring();
            for task in tasks {
                task.await;
            }
        }));
        assert_eq!(woken.get(), 5);
    }
}
