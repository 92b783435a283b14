//! The orderly end of a connection that nobody takes over.

use std::{future::poll_fn, io, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use super::io::{Connection, Transport};

/// How long the last reply may take to leave.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// How long unread input is still taken after the last reply: closing with input unread makes a reset, which can overtake the reply.
const LINGER_LIMIT: Duration = Duration::from_secs(2);
/// Most bytes taken that way.
const LINGER_BYTES: usize = 64 * 1024;

/// Sends what is left, says that nothing more comes, and takes unread input for a moment.
pub(super) async fn close(mut connection: Connection) {
    let flushed = timeout(FLUSH_LIMIT, poll_fn(|cx| connection.poll_send(cx))).await;
    if !matches!(flushed, Ok(Ok(()))) {
        return;
    }
    let lingering = async {
        match connection.transport {
            Transport::Plain(mut stream) => {
                stream.shutdown().await?;
                take_rest(&stream).await
            }
            Transport::Tls(mut stream) => {
                stream.shutdown().await?;
                take_rest(stream.get_mut().0).await
            }
            Transport::Gone => Ok(()),
        }
    };
    // Whatever goes wrong now, the connection is over.
    let _ = timeout(LINGER_LIMIT, lingering).await;
}

async fn take_rest(stream: &TcpStream) -> io::Result<()> {
    let mut taken = 0;
    while taken < LINGER_BYTES {
        stream.readable().await?;
        // The buffer does not outlive this look, so that a client that lingers, or is relayed, holds none.
        match stream.try_read(&mut [0; 2048]) {
            Ok(0) => break,
            Ok(count) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
