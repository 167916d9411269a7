//! What has to reach the disk together with the first change of an act, in one transaction: the row of an audit log. After a
//! crash there is neither an act without its row nor a row without its act.

use std::future::{Future, poll_fn};
use std::mem::take;
use std::pin::pin;

use super::store::{Rider, Store};

/// While one act runs: its rider is the store's. Given back however the poll ends, a panic included, or the next change of
/// somebody else would take it along.
struct Aboard<'a> {
    store: &'a Store,
    before: Option<Rider>,
}

impl Drop for Aboard<'_> {
    fn drop(&mut self) {
        self.store.swap_rider(take(&mut self.before));
    }
}

/// Runs an act. `rider` is called with the first change that it queues and queues into the same batch; the answer says
/// whether it was.
pub async fn together<T>(store: &Store, rider: Rider, act: impl Future<Output = T>) -> (T, bool) {
    let (mut act, mut rider) = (pin!(act), Some(rider));
    let out = poll_fn(|context| {
        // Between two polls other tasks write; that is not this act's doing.
        let _aboard = Aboard { store, before: store.swap_rider(rider.take()) };
        let polled = act.as_mut().poll(context);
        rider = store.swap_rider(None);
        polled
    });
    let out = out.await;
    (out, rider.is_none())
}
