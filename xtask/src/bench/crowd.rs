//! Many clients at once, each with an address of its own, played by one thread.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::Range,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use super::ground::{SERVER, client_address};

/// Clients that have not got what they wait for so long after the last one began are lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// Clients of one crowd at a time, so that neither side runs out of descriptors.
const MOST_PRESENT: usize = 16_000;

/// How a crowd behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// The number of its first client, which decides the addresses.
    pub(super) first: u32,
    /// Most clients.
    pub(super) clients: u32,
    /// No client begins after this time.
    pub(super) span: Duration,
    /// Clients at a time that have not been admitted yet: no byte of the server's has reached them.
    pub(super) in_flight: usize,
    /// The pause before each client.
    pub(super) pause: Duration,
    /// How far each client goes.
    pub(super) until: Until,
}

/// How far a client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// To the first bytes; it then stays, and waits for its greeting.
    Admitted,
    /// To the end of the greeting; it then says QUIT and goes when that is answered.
    Greeted,
}

/// What became of a crowd. While it exists, clients that are to stay do.
#[derive(Debug)]
pub(super) struct Crowd {
    clients: Vec<Client>,
    /// From the first connect to the last admission.
    pub(super) admission: Duration,
    /// From the connect to the first byte, one a client.
    pub(super) admitted: Vec<Duration>,
    /// From the connect to the last line of the greeting, one a client.
    pub(super) greeted: Vec<Duration>,
    /// From the first client's connect to the last line of each client's greeting.
    greeted_at: Vec<Duration>,
    /// Clients whose connection ended or failed before that, that were refused, or that nobody ever answered.
    pub(super) lost: usize,
}

#[derive(Debug)]
struct Client {
    stream: Option<TcpStream>,
    began: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Admitted,
    Leaving,
    Gone,
}

/// What one reading of a client's input brought.
enum Heard {
    Nothing,
    Teaser,
    Greeting,
    End,
}

impl Crowd {
    /// Plays a crowd to its end. Must run where the clients are.
    ///
    /// # Errors
    /// When a socket can't be had.
    pub(super) fn play(manner: Manner) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("no epoll")?;
        let mut crowd = Self {
            clients: Vec::new(),
            admission: Duration::ZERO,
            admitted: Vec::new(),
            greeted: Vec::new(),
            greeted_at: Vec::new(),
            lost: 0,
        };
        let begin = Instant::now();
        let (mut in_flight, mut present) = (0, 0);
        let mut next = begin;
        let mut events = [EpollEvent::empty(); 256];
        loop {
            while in_flight < manner.in_flight
                && present < MOST_PRESENT
                && manner.wants_more(crowd.clients.len(), begin)
                && next <= Instant::now()
            {
                crowd.come(&epoll, manner.first)?;
                in_flight += 1;
                present += 1;
                next = Instant::now() + manner.pause;
            }
            let more = manner.wants_more(crowd.clients.len(), begin);
            if !more && in_flight == 0 && (present == 0 || manner.until == Until::Admitted) {
                return Ok(crowd);
            }
            if crowd.clients.last().is_some_and(|last| last.began.elapsed() > PATIENCE) {
                crowd.lost += present;
                return Ok(crowd);
            }
            let timeout = if more && in_flight < manner.in_flight && present < MOST_PRESENT {
                u16::try_from(next.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(1)
            } else {
                100
            };
            let count = epoll.wait(&mut events, EpollTimeout::from(timeout)).context("epoll_wait failed")?;
            for event in events.iter().take(count) {
                let Some(client) = usize::try_from(event.data()).ok().and_then(|index| crowd.clients.get_mut(index))
                else {
                    continue;
                };
                let before = client.state;
                let heard = client.listen();
                if before == State::Connecting && client.state != State::Connecting {
                    in_flight -= 1;
                }
                if before == State::Connecting && client.state == State::Admitted {
                    crowd.admission = begin.elapsed();
                    crowd.admitted.push(client.began.elapsed());
                }
                match heard {
                    Heard::Greeting if manner.until == Until::Greeted => {
                        crowd.greeted.push(client.began.elapsed());
                        crowd.greeted_at.push(begin.elapsed());
                        client.quit();
                    }
                    Heard::End if before == State::Leaving => {}
                    Heard::End => crowd.lost += 1,
                    Heard::Nothing | Heard::Teaser | Heard::Greeting => {}
                }
                if client.state == State::Gone {
                    present -= 1;
                }
            }
        }
    }

    /// Clients that were greeted in this span of time, counted from the first client's connect.
    pub(super) fn greeted_within(&self, span: Range<Duration>) -> usize {
        self.greeted_at.iter().filter(|at| span.contains(at)).count()
    }

    /// One more client begins to connect.
    fn come(&mut self, epoll: &Epoll, first: u32) -> Result<()> {
        let index = u32::try_from(self.clients.len()).context("too many clients")?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP)).context("no socket")?;
        socket.bind(&SocketAddr::from((client_address(first + index), 0)).into()).context("no address")?;
        let began = Instant::now();
        match socket.connect(&SERVER.into()) {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
            Ok(()) => {}
            Err(error) => return Err(error).context("can't connect"),
        }
        let stream = TcpStream::from(socket);
        epoll
            .add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, u64::from(index)))
            .context("no room in epoll")?;
        self.clients.push(Client { stream: Some(stream), began, state: State::Connecting });
        Ok(())
    }
}

impl Manner {
    fn wants_more(&self, so_far: usize, begin: Instant) -> bool {
        so_far < self.clients as usize && begin.elapsed() < self.span
    }
}

impl Client {
    /// Takes what has come.
    fn listen(&mut self) -> Heard {
        let Some(stream) = &mut self.stream else { return Heard::Nothing };
        let mut buffer = [0; 512];
        let text = match stream.read(&mut buffer) {
            Ok(count) if count > 0 => buffer.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
            Ok(_) | Err(_) => return self.go(),
        };
        if self.state == State::Leaving {
            self.go();
            return Heard::Nothing;
        }
        self.state = State::Admitted;
        let mut lines = text.split(|&byte| byte == b'\n');
        if lines.any(|line| line.starts_with(b"220 ")) {
            Heard::Greeting
        } else if text.starts_with(b"220-") {
            Heard::Teaser
        } else {
            self.go()
        }
    }

    fn quit(&mut self) {
        self.state = State::Leaving;
        if let Some(stream) = &mut self.stream
            && stream.write_all(b"QUIT\r\n").is_err()
        {
            self.go();
        }
    }

    fn go(&mut self) -> Heard {
        self.stream = None;
        self.state = State::Gone;
        Heard::End
    }
}
