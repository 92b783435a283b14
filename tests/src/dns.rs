//! A small DNS server for DNSBL zones and for texts, over UDP and TCP, with delays and TTLs.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::netns::Namespace;

const TYPE_A: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_TXT: u16 = 16;
const NXDOMAIN: u8 = 3;
const SERVFAIL: u8 = 2;

/// A zone that lists clients, or publishes a text.
#[derive(Debug, Clone)]
pub struct Zone {
    name: String,
    listed: HashMap<IpAddr, Vec<Ipv4Addr>>,
    text: Option<String>,
    delay: Duration,
    ttl: u32,
    broken: bool,
}

impl Zone {
    /// A zone that lists nobody but RFC 5782's test point 127.0.0.2, with a TTL of 300 s.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let test_point = (IpAddr::from([127, 0, 0, 2]), vec![Ipv4Addr::new(127, 0, 0, 2)]);
        Self {
            name: name.to_owned(),
            listed: HashMap::from([test_point]),
            text: None,
            delay: Duration::ZERO,
            ttl: 300,
            broken: false,
        }
    }

    /// Lists `client` with the code 127.0.0.`code`.
    #[must_use]
    pub fn list(mut self, client: IpAddr, code: u8) -> Self {
        self.listed.entry(client).or_default().push(Ipv4Addr::new(127, 0, 0, code));
        self
    }

    /// Publishes `text` as the TXT record of its own name.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.text = Some(text.to_owned());
        self
    }

    /// Answers only after this long.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Gives answers this TTL, in seconds, negative ones too.
    #[must_use]
    pub fn ttl(mut self, seconds: u32) -> Self {
        self.ttl = seconds;
        self
    }

    /// Answers nothing but SERVFAIL.
    #[must_use]
    pub fn broken(mut self) -> Self {
        self.broken = true;
        self
    }

    /// The types and data of what `name`, which ends with the zone's, has; none if it is not there.
    fn records(&self, name: &str) -> Option<Vec<(u16, Vec<u8>)>> {
        if name == self.name {
            return Some(self.text.iter().map(|text| (TYPE_TXT, strings(text))).collect());
        }
        let codes = self.listed.get(&client_in(name.strip_suffix(self.name.as_str())?)?)?;
        Some(codes.iter().map(|code| (TYPE_A, code.octets().to_vec())).collect())
    }
}

/// The running server, on 127.0.0.1:53 of its namespace. Dropping it ends it.
#[derive(Debug)]
pub struct DnsServer {
    answerer: Arc<Answerer>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts it in the namespace.
    ///
    /// # Panics
    ///
    /// When port 53 is taken.
    #[must_use]
    pub fn start(namespace: &Namespace, zones: Vec<Zone>) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 53));
        let (udp, tcp) = namespace
            .enter(|| Ok::<_, std::io::Error>((UdpSocket::bind(address)?, TcpListener::bind(address)?)))
            .expect("port 53");
        let poll = Duration::from_millis(50);
        udp.set_read_timeout(Some(poll)).expect("a time limit");
        tcp.set_nonblocking(true).expect("a non-blocking listener");
        let stop = Arc::new(AtomicBool::new(false));
        let answerer = Arc::new(Answerer { zones: Mutex::new(zones), asked: Mutex::default() });
        let over_udp = thread::spawn({
            let (stop, answerer) = (Arc::clone(&stop), Arc::clone(&answerer));
            move || serve_udp(&Arc::new(udp), &stop, &answerer)
        });
        let over_tcp = thread::spawn({
            let (stop, answerer) = (Arc::clone(&stop), Arc::clone(&answerer));
            move || serve_tcp(&tcp, &stop, &answerer)
        });
        Self { answerer, stop, threads: vec![over_udp, over_tcp] }
    }

    /// Answers for these zones from now on, and for no others.
    pub fn serve(&self, zones: Vec<Zone>) {
        *self.answerer.zones.lock().unwrap_or_else(PoisonError::into_inner) = zones;
    }

    /// How often a name that ends in `suffix` was asked for.
    #[must_use]
    pub fn asked(&self, suffix: &str) -> usize {
        let asked = self.answerer.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|name| name.ends_with(suffix)).count()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn serve_udp(socket: &Arc<UdpSocket>, stop: &AtomicBool, answerer: &Arc<Answerer>) {
    let mut buffer = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some((answer, delay)) = answerer.answer(&buffer[..length]) else { continue };
        let socket = Arc::clone(socket);
        // Delays of different questions run side by side.
        thread::spawn(move || {
            thread::sleep(delay);
            // Whoever asked may be gone.
            drop(socket.send_to(&answer, from));
        });
    }
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool, answerer: &Arc<Answerer>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let answerer = Arc::clone(answerer);
        thread::spawn(move || -> std::io::Result<()> {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            loop {
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question)?;
                let Some((answer, delay)) = answerer.answer(&question) else { return Ok(()) };
                thread::sleep(delay);
                let length = u16::try_from(answer.len()).unwrap_or(u16::MAX).to_be_bytes();
                stream.write_all(&[&length, answer.as_slice()].concat())?;
            }
        });
    }
}

#[derive(Debug)]
struct Answerer {
    zones: Mutex<Vec<Zone>>,
    asked: Mutex<Vec<String>>,
}

impl Answerer {
    /// The answer to one query (RFC 1035 section 4), and how late it is to come; none to what is no query.
    fn answer(&self, query: &[u8]) -> Option<(Vec<u8>, Duration)> {
        let (name, end) = question(query)?;
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
        let asked = query.get(12..end + 4)?;
        let zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let zone = zones.iter().find(|zone| name == zone.name || name.ends_with(&format!(".{}", zone.name)));
        let known = zone.and_then(|zone| zone.records(&name));
        let response_code = match (zone, &known) {
            (None, _) => SERVFAIL,
            (Some(zone), _) if zone.broken => SERVFAIL,
            (Some(_), None) => NXDOMAIN,
            (Some(_), Some(_)) => 0,
        };
        let answers: Vec<_> = known.into_iter().flatten().filter(|(of, _)| *of == kind && response_code == 0).collect();
        let authority = u16::from(response_code != SERVFAIL && answers.is_empty());
        let mut packet = query.get(..2)?.to_vec();
        // A response, recursion desired and available.
        packet.extend([0x81, 0x80 | response_code]);
        for count in [1, u16::try_from(answers.len()).ok()?, authority, 0] {
            packet.extend(count.to_be_bytes());
        }
        packet.extend(asked);
        let ttl = zone.map_or(0, |zone| zone.ttl);
        for (kind, data) in answers {
            // The name is the question's, 12 bytes into the packet.
            packet.extend([0xc0, 12]);
            record(&mut packet, kind, ttl, &data);
        }
        if let Some(zone) = zone.filter(|_| authority == 1) {
            packet.extend(labels(&zone.name));
            record(&mut packet, TYPE_SOA, ttl, &soa(ttl));
        }
        Some((packet, zone.map_or(Duration::ZERO, |zone| zone.delay)))
    }
}

/// The name asked for, in lower case, and where its type stands.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

/// The client that a reversed address means (RFC 5782 sections 2.1 and 2.4).
fn client_in(prefix: &str) -> Option<IpAddr> {
    let parts: Vec<&str> = prefix.trim_end_matches('.').rsplit('.').collect();
    match parts.len() {
        4 => parts.join(".").parse().ok(),
        32 => {
            let groups: Vec<String> = parts.chunks(4).map(<[&str]>::concat).collect();
            groups.join(":").parse().ok()
        }
        _ => None,
    }
}

fn record(packet: &mut Vec<u8>, kind: u16, ttl: u32, data: &[u8]) {
    packet.extend(kind.to_be_bytes());
    packet.extend(1_u16.to_be_bytes());
    packet.extend(ttl.to_be_bytes());
    packet.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    packet.extend(data);
}

/// SOA data: the root as server and mailbox, then serial, refresh, retry, expire and minimum.
fn soa(minimum: u32) -> Vec<u8> {
    let numbers = [1, 3600, 600, 86400, minimum].map(u32::to_be_bytes).concat();
    [&[0, 0], numbers.as_slice()].concat()
}

/// TXT data: strings of at most 255 bytes, each behind its length.
fn strings(text: &str) -> Vec<u8> {
    let parts = text.as_bytes().chunks(255);
    parts.flat_map(|part| [&[u8::try_from(part.len()).unwrap_or(0)], part].concat()).collect()
}

fn labels(name: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for label in name.split('.') {
        encoded.push(u8::try_from(label.len()).unwrap_or(0));
        encoded.extend(label.as_bytes());
    }
    encoded.push(0);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str) -> Vec<u8> {
        [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &labels(name), &[0, 1, 0, 1]].concat()
    }

    fn answerer(zone: Zone) -> Answerer {
        Answerer { zones: Mutex::new(vec![zone]), asked: Mutex::default() }
    }

    #[test]
    fn a_listed_client_gets_its_code_and_ttl() {
        let answerer = answerer(Zone::new("bl.test").list("198.18.0.9".parse().unwrap(), 4).ttl(77));
        let (packet, _) = answerer.answer(&query("9.0.18.198.bl.test")).unwrap();
        assert_eq!(packet[..8], [7, 7, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(packet[packet.len() - 10..], [0, 0, 0, 77, 0, 4, 127, 0, 0, 4]);
    }

    #[test]
    fn an_unlisted_client_gets_nxdomain_with_a_soa() {
        let (packet, _) = answerer(Zone::new("bl.test")).answer(&query("1.0.0.127.bl.test")).unwrap();
        assert_eq!(packet[2..10], [0x81, 0x83, 0, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn a_text_is_there_for_whoever_asks_for_texts() {
        let answerer = answerer(Zone::new("d.test").text("v=spf1 -all"));
        let mut asked = query("d.test");
        let (nothing, _) = answerer.answer(&asked).unwrap();
        assert_eq!(nothing[2..10], [0x81, 0x80, 0, 1, 0, 0, 0, 1]);
        let kind = asked.len() - 3;
        asked[kind] = 16;
        let (packet, _) = answerer.answer(&asked).unwrap();
        assert!(packet.ends_with(b"\x0bv=spf1 -all"));
    }

    #[test]
    fn ipv6_clients_are_asked_for_by_nibbles() {
        let nibbles = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.1.0.0.2";
        assert_eq!(client_in(&format!("{nibbles}.")), Some("2001:2::9".parse().unwrap()));
    }
}
