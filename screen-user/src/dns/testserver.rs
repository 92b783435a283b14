//! A small DNS server on loopback, UDP and TCP on one port, that answers as a test tells it to.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, CNAME, SOA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

/// What a name has.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// These addresses with their TTLs, behind an alias if there is one.
    Addresses(Vec<(Ipv4Addr, u32)>, Option<&'static str>),
    /// These records with one TTL, to whoever asks for their type; NOERROR and a SOA record of the same TTL to others.
    Records(Vec<RData>, u32),
    /// Nothing: a response code, and the TTL and the minimum of the SOA record if there is one.
    Nothing(ResponseCode, Option<(u32, u32)>),
    /// No response at all.
    Silence,
    /// These bytes after the query's number.
    Bytes(Vec<u8>),
    /// The TC flag over UDP, another answer over TCP.
    Truncated(Box<Answer>),
    /// No response until [`TestServer::release`], then another answer.
    Held(Box<Answer>),
    /// Another answer after a while.
    Delayed(Duration, Box<Answer>),
}

/// Addresses with one TTL.
pub(super) fn listed(ttl: u32, codes: &[[u8; 4]]) -> Answer {
    Answer::Addresses(codes.iter().map(|code| (Ipv4Addr::from(*code), ttl)).collect(), None)
}

/// NXDOMAIN with a SOA record of this TTL, whose minimum is another one.
pub(super) fn not_listed(ttl: u32) -> Answer {
    Answer::Nothing(ResponseCode::NXDomain, Some((ttl, ttl + 7_000)))
}

#[derive(Debug)]
struct Book {
    /// By name, without the dot at the end: the answers to the first, second, ... query; the last one is repeated.
    answers: HashMap<String, Vec<Answer>>,
    /// Every query: its name, and whether it came over TCP.
    asked: Vec<(String, bool)>,
    /// Says how many.
    counter: watch::Sender<usize>,
}

/// The server; it goes when it is dropped.
#[derive(Debug)]
pub(super) struct TestServer {
    /// Where it listens.
    pub(super) address: SocketAddr,
    book: Arc<Mutex<Book>>,
    released: watch::Sender<bool>,
    total: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl TestServer {
    /// A server that answers NXDOMAIN, with a SOA record of 300 s, to everything.
    pub(super) async fn start() -> Self {
        let udp = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        let (counter, total) = watch::channel(0);
        let book = Arc::new(Mutex::new(Book { answers: HashMap::new(), asked: Vec::new(), counter }));
        let (released, hold) = watch::channel(false);
        let mut tasks = JoinSet::new();

        let (pages, holding) = (book.clone(), hold.clone());
        tasks.spawn(async move {
            let mut replies = JoinSet::new();
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = udp.recv_from(&mut buffer).await.unwrap();
                let (query, socket, pages, mut hold) =
                    (buffer[..length].to_vec(), udp.clone(), pages.clone(), holding.clone());
                replies.spawn(async move {
                    if let Some(reply) = reply(&query, &pages, &mut hold, false).await {
                        socket.send_to(&reply, peer).await.unwrap();
                    }
                });
            }
        });

        let pages = book.clone();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let (pages, mut hold) = (pages.clone(), hold.clone());
                streams.spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; length.into()];
                        stream.read_exact(&mut query).await.unwrap();
                        if let Some(reply) = reply(&query, &pages, &mut hold, true).await {
                            stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                            stream.write_all(&reply).await.unwrap();
                        }
                    }
                });
            }
        });
        Self { address, book, released, total, _tasks: tasks }
    }

    /// What `name` has from now on.
    pub(super) fn set(&self, name: &str, answers: impl IntoIterator<Item = Answer>) {
        self.book.lock().unwrap().answers.insert(name.to_owned(), answers.into_iter().collect());
    }

    /// Lets the held answers go, those that are asked for later too.
    pub(super) fn release(&self) {
        self.released.send_replace(true);
    }

    /// The queries so far: names, and whether over TCP.
    pub(super) fn asked(&self) -> Vec<(String, bool)> {
        self.book.lock().unwrap().asked.clone()
    }

    /// How often `name` was asked for.
    pub(super) fn count(&self, name: &str) -> usize {
        self.book.lock().unwrap().asked.iter().filter(|(asked, _)| asked == name).count()
    }

    /// Waits until `name` was asked for `count` times.
    pub(super) async fn until(&self, name: &str, count: usize) {
        let mut total = self.total.clone();
        timeout(Duration::from_secs(60), total.wait_for(|_| self.count(name) >= count)).await.unwrap().unwrap();
    }
}

async fn reply(query: &[u8], book: &Mutex<Book>, hold: &mut watch::Receiver<bool>, tcp: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    let question = query.queries[0].clone();
    let name = question.name().to_ascii().trim_end_matches('.').to_owned();
    let mut answer = {
        let mut book = book.lock().unwrap();
        book.asked.push((name.clone(), tcp));
        book.counter.send_replace(book.asked.len());
        match book.answers.get_mut(&name) {
            None => not_listed(300),
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
        }
    };

    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.add_query(question.clone());
    loop {
        match answer {
            Answer::Silence => return None,
            Answer::Bytes(bytes) => return Some([query.metadata.id.to_be_bytes().as_slice(), &bytes].concat()),
            Answer::Held(then) => {
                hold.wait_for(|released| *released).await.ok()?;
                answer = *then;
            }
            Answer::Delayed(wait, then) => {
                sleep(wait).await;
                answer = *then;
            }
            Answer::Truncated(then) => {
                if !tcp {
                    message.metadata.truncation = true;
                    break;
                }
                answer = *then;
            }
            Answer::Addresses(addresses, alias) => {
                let mut owner = question.name().clone();
                if let Some(alias) = alias {
                    let target = Name::from_ascii(alias).unwrap();
                    message.add_answer(Record::from_rdata(owner, 5, RData::CNAME(CNAME(target.clone()))));
                    owner = target;
                }
                for (address, ttl) in addresses {
                    message.add_answer(Record::from_rdata(owner.clone(), ttl, RData::A(A(address))));
                }
                break;
            }
            Answer::Records(records, ttl) => {
                let mut of_type =
                    records.into_iter().filter(|data| data.record_type() == question.query_type()).peekable();
                if of_type.peek().is_none() {
                    answer = Answer::Nothing(ResponseCode::NoError, Some((ttl, ttl)));
                    continue;
                }
                for data in of_type {
                    message.add_answer(Record::from_rdata(question.name().clone(), ttl, data));
                }
                break;
            }
            Answer::Nothing(code, soa) => {
                message.metadata.response_code = code;
                if let Some((ttl, minimum)) = soa {
                    let zone = Name::from_ascii("zone.test.").unwrap();
                    let soa = SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86400, minimum);
                    message.add_authority(Record::from_rdata(zone, ttl, RData::SOA(soa)));
                }
                break;
            }
        }
    }
    Some(message.to_vec().unwrap())
}
