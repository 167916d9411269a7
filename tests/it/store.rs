//! The store trait's one suite over its implementations, and what is particular to each.

mod cluster;
mod etcd;
mod figures;
mod fleets;
mod redb;
mod shared;
mod suite;
mod tools;

use std::rc::Rc;

use smol::LocalExecutor;
use vmetric::fleet::store::Store;

/// Opens the store once more, as another Fleet does where several can.
type Open<'a> = &'a dyn Fn() -> Rc<dyn Store>;

/// Runs a test on one thread, as Fleet does.
fn on_one_thread<T>(test: impl AsyncFnOnce(Rc<LocalExecutor<'static>>) -> T) -> T {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.clone().run(test(executor)))
}
