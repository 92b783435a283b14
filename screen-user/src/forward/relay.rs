//! Bytes between a client and its mail server, both ways, until both have said their last.
//!
//! An idle pair holds no buffer: bytes pass through one buffer a thread, and only what the other side can't take at once is kept,
//! up to 64 KiB a direction. While something is kept, nothing more is read: that is the back-pressure.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// Most bytes moved at once, and most bytes kept for a direction that is stuck.
const CHUNK: usize = 64 * 1024;
/// Chunks moved in one turn before other sessions get theirs.
const CHUNKS_PER_TURN: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// What a relay has moved so far; read by `status` while it runs.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes from clients to mail servers.
    pub from_clients: AtomicU64,
    /// Bytes from mail servers to clients.
    pub from_servers: AtomicU64,
}

/// What is to be sent before anything that a relay reads.
#[derive(Debug, Default)]
pub struct Unsent {
    /// To the client.
    pub to_client: Vec<u8>,
    /// To the mail server.
    pub to_server: Vec<u8>,
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Both sides closed in order.
    Orderly,
    /// A side was reset or failed; the other side was reset too.
    Reset,
    /// Nothing moved for the idle limit.
    Idle,
}

/// One end of a relay.
pub trait Side: AsyncRead + AsyncWrite + Unpin {
    /// Makes the close that follows a reset, where there is such a thing.
    fn reset(&self);
}

impl Side for TcpStream {
    fn reset(&self) {
        // A socket that is gone already needs no reset.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Side for TlsStream<TcpStream> {
    fn reset(&self) {
        self.get_ref().0.reset();
    }
}

/// Relays until both directions have ended, one fails, or nothing moves for `idle`.
///
/// A half-close passes through: the other direction goes on. A reset passes through as a reset.
pub async fn relay(
    mut client: impl Side,
    mut server: impl Side,
    unsent: Unsent,
    traffic: &Traffic,
    idle: Duration,
) -> Ending {
    let mut up = Direction::after(unsent.to_server);
    let mut down = Direction::after(unsent.to_client);
    loop {
        let moved_before = (up.moved, down.moved);
        let step = tokio::time::timeout(
            idle,
            std::future::poll_fn(|cx| {
                let up_state = up.poll(cx, &mut client, &mut server, &traffic.from_clients)?;
                let down_state = down.poll(cx, &mut server, &mut client, &traffic.from_servers)?;
                if (up_state, down_state) == (Progress::Ended, Progress::Ended) {
                    Poll::Ready(Ok::<bool, io::Error>(true))
                } else if (up.moved, down.moved) == moved_before {
                    Poll::Pending
                } else {
                    // Back to the loop, which starts the idle limit anew; tokio's budget sees to it that others get their turn.
                    Poll::Ready(Ok(false))
                }
            }),
        )
        .await;
        match step {
            Ok(Ok(true)) => return Ending::Orderly,
            Ok(Ok(false)) => {}
            Ok(Err(_)) => {
                client.reset();
                server.reset();
                return Ending::Reset;
            }
            Err(_) => return Ending::Idle,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Waits for a socket.
    Waiting,
    /// Has moved its share of this turn.
    TurnOver,
    /// The end of input has been passed on.
    Ended,
}

#[derive(Debug, Default)]
struct Direction {
    kept: Vec<u8>,
    moved: u64,
    /// Something was written that may still wait in the layer below, as inside TLS.
    unflushed: bool,
    /// The end of input has come.
    ending: bool,
    ended: bool,
}

impl Direction {
    fn after(kept: Vec<u8>) -> Self {
        Self { unflushed: !kept.is_empty(), kept, ..Self::default() }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Side,
        to: &mut impl Side,
        total: &AtomicU64,
    ) -> Result<Progress, io::Error> {
        for _ in 0..CHUNKS_PER_TURN {
            if self.ended {
                return Ok(Progress::Ended);
            }
            match self.poll_step(cx, from, to) {
                Poll::Ready(result) => {
                    let count = result? as u64;
                    self.moved += count;
                    total.fetch_add(count, Ordering::Relaxed);
                }
                Poll::Pending => {
                    self.flush(cx, to)?;
                    return Ok(Progress::Waiting);
                }
            }
        }
        Ok(Progress::TurnOver)
    }

    /// Sends what was kept, then moves one chunk, or passes the end of input on.
    fn poll_step(&mut self, cx: &mut Context<'_>, from: &mut impl Side, to: &mut impl Side) -> Poll<io::Result<usize>> {
        ready!(self.poll_kept(cx, to))?;
        if !self.ending {
            let count = ready!(SCRATCH.with_borrow_mut(|buffer| self.poll_move(cx, from, to, buffer)))?;
            self.ending = count == 0;
            return Poll::Ready(Ok(count));
        }
        // The reader may have gone already, which the other direction finds out.
        let _ = ready!(Pin::new(to).poll_shutdown(cx));
        self.ended = true;
        Poll::Ready(Ok(0))
    }

    /// Reads once and writes what the other side takes at once; the rest is kept. Zero is the end of input.
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Side,
        to: &mut impl Side,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut input = ReadBuf::new(buffer);
        match ready!(Pin::new(from).poll_read(cx, &mut input)) {
            Ok(()) => {}
            // A peer that leaves TLS without a word ends it as a bare socket would; SMTP itself tells a whole message from a cut one.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
            Err(error) => return Poll::Ready(Err(error)),
        }
        let count = input.filled().len();
        let mut rest = input.filled();
        while !rest.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(written) => rest = rest.get(some(written)?..).unwrap_or_default(),
                Poll::Pending => break,
            }
            self.unflushed = true;
        }
        self.kept.extend_from_slice(rest);
        Poll::Ready(Ok(count))
    }

    /// Writes what was kept; ready when nothing is left, and then the memory is given back.
    fn poll_kept(&mut self, cx: &mut Context<'_>, to: &mut impl Side) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let written = some(ready!(Pin::new(&mut *to).poll_write(cx, &self.kept)))?;
            self.kept.drain(..written);
            self.unflushed = true;
        }
        self.kept = Vec::new();
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, cx: &mut Context<'_>, to: &mut impl Side) -> io::Result<()> {
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(to).poll_flush(cx)
        {
            self.unflushed = false;
            return flushed;
        }
        Ok(())
    }
}

/// How much was written, which is never nothing.
fn some(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;

    struct Pair {
        client: TcpStream,
        server: TcpStream,
        traffic: Arc<Traffic>,
        relay: JoinHandle<Ending>,
    }

    async fn socket_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (left, right) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async { listener.accept().await });
        (left.unwrap(), right.unwrap().0)
    }

    async fn pair(idle: Duration) -> Pair {
        let (client, gate_client) = socket_pair().await;
        let (gate_server, server) = socket_pair().await;
        let traffic = Arc::new(Traffic::default());
        let counters = Arc::clone(&traffic);
        let relay =
            tokio::spawn(async move { relay(gate_client, gate_server, Unsent::default(), &counters, idle).await });
        Pair { client, server, traffic, relay }
    }

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn half_close_passes_and_the_other_direction_goes_on() {
        let mut pair = pair(LONG).await;
        pair.client.write_all(b"QUIT\r\n").await.unwrap();
        pair.client.shutdown().await.unwrap();
        let mut seen = Vec::new();
        pair.server.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"QUIT\r\n");
        pair.server.write_all(b"221 2.0.0 Bye\r\n").await.unwrap();
        pair.server.shutdown().await.unwrap();
        let mut answer = Vec::new();
        pair.client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"221 2.0.0 Bye\r\n");
        assert_eq!(pair.relay.await.unwrap(), Ending::Orderly);
        assert_eq!(pair.traffic.from_clients.load(Ordering::Relaxed), 6);
        assert_eq!(pair.traffic.from_servers.load(Ordering::Relaxed), 15);
    }

    #[tokio::test]
    async fn half_close_by_the_server_passes_too() {
        let mut pair = pair(LONG).await;
        pair.server.shutdown().await.unwrap();
        assert_eq!(pair.client.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        pair.client.write_all(b"late").await.unwrap();
        pair.client.shutdown().await.unwrap();
        let mut seen = Vec::new();
        pair.server.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"late");
        assert_eq!(pair.relay.await.unwrap(), Ending::Orderly);
    }

    #[tokio::test]
    async fn a_reset_passes_as_a_reset() {
        let mut pair = pair(LONG).await;
        pair.client.reset();
        drop(pair.client);
        assert_eq!(pair.server.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(pair.relay.await.unwrap(), Ending::Reset);
    }

    #[tokio::test]
    async fn megabytes_arrive_unchanged_while_the_reader_is_slow() {
        let mut pair = pair(LONG).await;
        let sent: Vec<u8> = (0..8_000_003u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            pair.client.write_all(&copy).await.unwrap();
            pair.client.shutdown().await.unwrap();
            pair.client
        });
        let mut seen = Vec::new();
        let mut buffer = [0; 1999];
        loop {
            let count = pair.server.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            seen.extend_from_slice(&buffer[..count]);
            tokio::task::yield_now().await;
        }
        assert!(seen == sent, "the bytes changed on their way");
        pair.server.shutdown().await.unwrap();
        writer.await.unwrap();
        assert_eq!(pair.relay.await.unwrap(), Ending::Orderly);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_pair_ends() {
        let pair = pair(Duration::from_secs(3)).await;
        assert_eq!(pair.relay.await.unwrap(), Ending::Idle);
    }
}
