//! Bytes in bulk, as near to SMTP as is needed: a greeting, one line of the client's, then as much as gets through.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket;

use crate::bench::ground::{self, SERVER};

/// Bytes of one write and at most of one read, at both ends.
const CHUNK: usize = 64 * 1024;

/// Where the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// From the client to the mail server, as mail does.
    Up,
    /// From the mail server to the client.
    Down,
}

/// What stands for the mail server, with a thread for each connection. It listens until it is dropped.
pub(super) struct Sink {
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens at an address where the servers are.
    pub(super) fn open(address: SocketAddr) -> Result<Self> {
        let bind = || TcpListener::bind(address).with_context(|| format!("can't listen at {address}"));
        let listener = Arc::new(ground::as_server(bind)?);
        let accepting = Arc::clone(&listener);
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                // A client that leaves in the middle is the client's failure, and shows there.
                thread::spawn(move || serve(&stream).ok());
            }
        });
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Ends the wait for the next client.
        let _ = socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&*self.listener), socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection of the mail server's.
fn serve(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(b"220 sink\r\n")?;
    let mut line = String::new();
    // The client waits for the answer, so nothing comes behind its line.
    BufReader::with_capacity(64, stream).read_line(&mut line)?;
    stream.write_all(b"354 go on\r\n")?;
    if let Some(span) = line.strip_prefix("TAKE ").and_then(|text| text.trim_end().parse().ok()) {
        give(stream, Duration::from_millis(span))?;
        take(stream).map(drop)
    } else {
        let count = take(stream)?;
        stream.write_all(format!("250 {count}\r\n").as_bytes())
    }
}

/// Moves bytes for about that long over so many connections at once, and gives the number of bytes and the time that it took.
pub(super) fn pump(flow: Flow, connections: usize, span: Duration) -> Result<(u64, Duration)> {
    ground::as_client(|| {
        let begin = Instant::now();
        let counts = thread::scope(|scope| {
            let threads: Vec<_> = (0..connections).map(|_| scope.spawn(|| carry(flow, span))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a client's thread panicked"))?)
                .sum::<Result<u64>>()
        })?;
        Ok((counts, begin.elapsed()))
    })
}

/// One connection of a client's. Returns how many bytes have arrived.
fn carry(flow: Flow, span: Duration) -> Result<u64> {
    let mut stream = TcpStream::connect(SERVER).context("can't connect")?;
    expect(&stream, "220 ")?;
    match flow {
        Flow::Up => {
            stream.write_all(b"GIVE\r\n")?;
            expect(&stream, "354 ")?;
            let given = give(&stream, span)?;
            let answer = expect(&stream, "250 ")?;
            if answer != given.to_string() {
                bail!("{given} bytes were sent, and {answer} arrived");
            }
            Ok(given)
        }
        Flow::Down => {
            write!(stream, "TAKE {}\r\n", span.as_millis())?;
            expect(&stream, "354 ")?;
            let taken = take(&stream)?;
            stream.shutdown(Shutdown::Write)?;
            Ok(taken)
        }
    }
}

/// Reads a line, byte by byte, as bulk may come right behind it.
fn expect(mut stream: &TcpStream, code: &str) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && stream.read(&mut byte).context("no reply")? > 0 {
        line.extend(byte);
    }
    let line = String::from_utf8(line).context("the reply is no text")?;
    let rest = line.strip_prefix(code).with_context(|| format!("{line:?} instead of {code}"))?;
    Ok(rest.trim_end().to_owned())
}

/// Sends for that long, then ends its direction.
fn give(mut stream: &TcpStream, span: Duration) -> io::Result<u64> {
    let chunk = vec![b'.'; CHUNK];
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < span {
        stream.write_all(&chunk)?;
        count += CHUNK as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(count)
}

/// Reads to the end.
fn take(mut stream: &TcpStream) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut taken = 0;
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(taken),
            count => taken += count as u64,
        }
    }
}
