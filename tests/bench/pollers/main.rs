//! Ten thousand agents in one thread: each holds a long poll over TLS 1.3, answers each order with a report, and parks again.
//!
//! A yard-stick of `tests/bench/scale`, which starts it and talks to it over a Unix socket: one line asks, one line of JSON
//! answers (`control`). The agents speak the real protocol with the agent's own back-off (`core::backoff`); what they leave
//! out is the update itself.

mod agent;
mod conn;
mod control;
mod fleet;
mod peer;

use std::rc::Rc;

use smol::LocalExecutor;
use smol::net::unix::UnixStream;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [socket] = words.as_slice() else {
        eprintln!("usage: pollers CONTROL-SOCKET; tests/bench/scale starts this program");
        std::process::exit(2);
    };
    let executor = Rc::new(LocalExecutor::new());
    let work = async {
        let stream = UnixStream::connect(socket).await.map_err(|e| format!("{socket}: {e}"))?;
        control::obey(stream, executor.clone()).await
    };
    if let Err(error) = smol::block_on(executor.run(work)) {
        eprintln!("pollers: {error}");
        std::process::exit(1);
    }
}
