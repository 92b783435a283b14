//! What a relayed connection's true address costs the mail server: `getpeername` with and without the hook.

use std::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use screen_user::config::KernelReply;

use crate::{gate::Gate, table::Table};

/// Calls of one measurement.
const CALLS: u32 = 500_000;

/// Measures it on a connection within the host.
pub(crate) fn measure(table: &mut Table) -> Result<()> {
    let case = "a call of getpeername";
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let relay = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    table.add(case, "without the hook", call(&server)?, "ns");
    let gate = Gate::start(KernelReply::Drop, 50, true)?;
    table.add(case, "with it, any connection", call(&server)?, "ns");
    let client = "198.51.100.7:40001".parse()?;
    let guard = gate.kernel.relay_begin(relay.local_addr()?, client, "192.0.2.1:25".parse()?)?;
    if server.peer_addr()? != client {
        bail!("the hook shows {} and not the client", server.peer_addr()?);
    }
    table.add(case, "with it, a relayed connection", call(&server)?, "ns");
    drop(guard);
    Ok(())
}

fn call(server: &TcpStream) -> Result<f64> {
    let begin = Instant::now();
    for _ in 0..CALLS {
        server.peer_addr().context("the connection is gone")?;
    }
    Ok(begin.elapsed().as_nanos() as f64 / f64::from(CALLS))
}
