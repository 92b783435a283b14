//! Waits for a PROXY header and takes exactly its bytes from the socket: what follows it is the client's.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::proxy::{MOST_V2, Parsed, Reason, parse, unfinished};
use crate::screen::escape;

/// Reads the header. `None`: the proxy speaks for itself, and the connection's own addresses count.
///
/// # Errors
/// There was no usable header in time; the text is the log line of spec 1.4.
pub(super) async fn read(stream: &mut TcpStream, limit: Duration) -> Result<Option<(SocketAddr, SocketAddr)>, String> {
    let mut bytes = Vec::new();
    match timeout(limit, fill(stream, &mut bytes)).await {
        Ok(Ok(source)) => Ok(source),
        Ok(Err(Failure::Header(Reason::Eof))) => Err(format!("haproxy read: {}", Reason::Eof)),
        Ok(Err(Failure::Header(reason))) => Err(format!("haproxy read: {reason}: {}", escape(&bytes))),
        Ok(Err(Failure::Read(error))) => Err(format!("haproxy read: {error}")),
        Err(_) => Err(format!("haproxy read: {}", Reason::TimeLimit)),
    }
}

enum Failure {
    Header(Reason),
    Read(io::Error),
}

async fn fill(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<Option<(SocketAddr, SocketAddr)>, Failure> {
    let mut space = [0; MOST_V2];
    loop {
        let seen = stream.peek(&mut space).await.map_err(Failure::Read)?;
        if seen == 0 {
            return Err(Failure::Header(unfinished(bytes)));
        }
        let before = bytes.len();
        bytes.extend_from_slice(space.get(..seen).unwrap_or_default());
        // All of an unfinished header is header: it can be taken, and the next look waits for what comes after it.
        let (take, result) = match parse(bytes) {
            Parsed::NeedMore => (seen, None),
            Parsed::Header { consumed, source } => (consumed.saturating_sub(before), Some(source)),
            Parsed::Bad(reason) => return Err(Failure::Header(reason)),
        };
        let taken = space.get_mut(..take).unwrap_or_default();
        stream.read_exact(taken).await.map_err(Failure::Read)?;
        if let Some(source) = result {
            return Ok(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (left, right) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async { listener.accept().await });
        (left.unwrap(), right.unwrap().0)
    }

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_header_in_pieces_is_taken_to_its_last_byte() {
        let (mut proxy, mut gate) = pair().await;
        let reading = tokio::spawn(async move { (read(&mut gate, LIMIT).await, gate) });
        for piece in ["PROX", "Y TCP4 192.0.2.1 198.51.100.2 4000", "0 25\r", "\nEHLO early\r\n"] {
            proxy.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let (source, mut gate) = reading.await.unwrap();
        assert_eq!(source.unwrap(), Some(("192.0.2.1:40000".parse().unwrap(), "198.51.100.2:25".parse().unwrap())));
        let mut rest = [0; 12];
        gate.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"EHLO early\r\n");
    }

    #[tokio::test]
    async fn what_is_no_header_is_shown_escaped() {
        let (mut proxy, mut gate) = pair().await;
        proxy.write_all(b"EHLO \x01 this is no header\r\n").await.unwrap();
        let problem = read(&mut gate, LIMIT).await.unwrap_err();
        assert!(problem.starts_with("haproxy read: unrecognized protocol header: EHLO \\001 this"), "{problem}");
    }

    #[tokio::test]
    async fn an_early_end_is_told_from_silence() {
        let (proxy, mut gate) = pair().await;
        drop(proxy);
        assert_eq!(read(&mut gate, LIMIT).await.unwrap_err(), "haproxy read: EOF");
        let (_proxy, mut gate) = pair().await;
        assert_eq!(read(&mut gate, Duration::from_millis(1)).await.unwrap_err(), "haproxy read: time limit exceeded");
    }
}
