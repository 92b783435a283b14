//! A connection to a mail server, over TCP or by a Unix socket.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};

use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::relay::Side;

/// A connection to a mail server.
#[derive(Debug)]
pub enum Stream {
    /// To an address.
    Tcp(TcpStream),
    /// To a path.
    Unix(UnixStream),
}

impl Stream {
    /// Waits for bytes and looks at them; they stay in the socket. Zero is the end of input.
    pub(super) async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(buffer).await,
            Self::Unix(stream) => {
                let look = || Ok(recv(stream, &mut *buffer, RecvFlags::PEEK)?.0);
                stream.async_io(Interest::READABLE, look).await
            }
        }
    }

    /// The address of this host that the mail server sees, where nothing shows it another one.
    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => Some(stream.local_addr().ok()?.ip()),
            Self::Unix(_) => None,
        }
    }
}

impl Side for Stream {
    fn reset(&self) {
        match self {
            Self::Tcp(stream) => stream.reset(),
            // There is no such thing; the close that follows ends it.
            Self::Unix(_) => {}
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn looked_at_and_read(mut stream: Stream, mut server: impl AsyncWrite + Unpin) {
        server.write_all(b"220 server\r\n").await.unwrap();
        let mut bytes = [0; 12];
        assert_eq!(stream.peek(&mut bytes[..3]).await.unwrap(), 3);
        assert_eq!(&bytes[..3], b"220");
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"220 server\r\n", "nothing was taken by the look");
        drop(server);
        assert_eq!(stream.peek(&mut bytes).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_look_takes_nothing() {
        let (stream, server) = UnixStream::pair().unwrap();
        looked_at_and_read(Stream::Unix(stream), server).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        looked_at_and_read(Stream::Tcp(stream), server).await;
    }
}
