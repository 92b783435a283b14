//! A box between the edge and its client host that loses, repeats and swaps segments, by a script: the same ones each time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crate::{
    net::Net,
    netns::{Namespace, run},
    wait::{SOON, wait_for},
    wire::{Segment, Wire},
};

/// What becomes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Forward,
    /// It gets lost.
    Lose,
    /// It goes on twice.
    Repeat,
    /// It goes on behind the next segment of its direction.
    Overtaken,
}

/// Decides about each segment.
type Script = Box<dyn FnMut(&Segment) -> Fate + Send>;

/// The box. Dropping it cuts the wire.
#[derive(Debug)]
pub struct Middlebox {
    seen: Arc<Mutex<Vec<(Segment, Fate)>>>,
    stop: Arc<AtomicBool>,
    ways: Vec<JoinHandle<()>>,
    // Goes when the threads have.
    _namespace: Namespace,
}

impl Middlebox {
    /// Puts the box between the edge and the client host, before either is in use. `script` is asked about each TCP segment; what is
    /// none goes on.
    ///
    /// # Panics
    ///
    /// When `ip` or `ethtool` refuse.
    #[must_use]
    pub fn between(net: &Net, script: impl FnMut(&Segment) -> Fate + Send + 'static) -> Self {
        Self::tagging(net, &[], script)
    }

    /// As [`Middlebox::between`]; between the box and the edge, TCP segments have VLAN tags of these EtherTypes.
    ///
    /// # Panics
    ///
    /// When `ip` or `ethtool` refuse.
    #[must_use]
    pub fn tagging(net: &Net, tags: &[u16], script: impl FnMut(&Segment) -> Fate + Send + 'static) -> Self {
        let namespace = Namespace::new(format!("{}-box", net.id()));
        // It has nothing to say of its own.
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1");
        net.client().rewire(&net.edge, &namespace);
        for (end, interface) in [(&net.edge, "mx0"), (&net.client().namespace, "c0")] {
            whole(end, interface);
        }
        for interface in [TO_EDGE, TO_CLIENT] {
            namespace.ip(&format!("link set {interface} up"));
            whole(&namespace, interface);
        }
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let (seen, stop) = (Arc::default(), Arc::default());
        // Both directions share them: a value alone does not hear what it sends.
        let [edge, client] = [TO_EDGE, TO_CLIENT].map(|interface| Arc::new(Wire::open(&namespace, interface)));
        let ways = [(&client, &edge, tags), (&edge, &client, &[])]
            .into_iter()
            .map(|(from, to, tags)| {
                let way = Way {
                    from: Arc::clone(from),
                    to: Arc::clone(to),
                    tags: tags.iter().flat_map(|tag| [tag.to_be_bytes(), VLAN]).flatten().collect(),
                    script: Arc::clone(&script),
                    seen: Arc::clone(&seen),
                    stop: Arc::clone(&stop),
                };
                std::thread::spawn(move || way.carry())
            })
            .collect();
        Self { seen, stop, ways, _namespace: namespace }
    }

    /// Every segment that has come, and what became of it.
    #[must_use]
    pub fn seen(&self) -> Vec<(Segment, Fate)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a segment that `wanted` knows.
    ///
    /// # Panics
    ///
    /// When none comes.
    #[track_caller]
    pub fn wait_segment(&self, what: &str, wanted: impl Fn(&Segment) -> bool) {
        wait_for(what, SOON, || self.seen().iter().any(|(segment, _)| wanted(segment)).then_some(()));
    }
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for way in self.ways.drain(..) {
            drop(way.join());
        }
        if std::thread::panicking() {
            for (segment, fate) in self.seen() {
                eprintln!("{fate:?}: {segment:?}");
            }
        }
    }
}

/// The box's interfaces, by where they lead.
pub(crate) const TO_EDGE: &str = "edge0";
/// The other one.
pub(crate) const TO_CLIENT: &str = "client0";

/// The number in each tag.
const VLAN: [u8; 2] = [0, 5];

/// Has an interface send single segments with their checksums: the box hands frames on as they are.
fn whole(namespace: &Namespace, interface: &str) {
    let enter = format!("--net=/run/netns/{}", namespace.name());
    run("nsenter", [enter.as_str(), "ethtool", "-K", interface, "tx", "off", "gso", "off", "tso", "off", "gro", "off"]);
}

/// One direction.
struct Way {
    from: Arc<Wire>,
    to: Arc<Wire>,
    /// What is put before the EtherType of a segment's frame.
    tags: Vec<u8>,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<(Segment, Fate)>>>,
    stop: Arc<AtomicBool>,
}

impl Way {
    fn carry(self) {
        let mut overtaken = None;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(mut frame) = self.from.receive() else { continue };
            while matches!(frame[12..], [0x81, 0, _, _, ..] | [0x88, 0xa8, _, _, ..]) {
                frame.drain(12..16);
            }
            let Some(segment) = Segment::read(&frame) else {
                self.to.send(&frame);
                continue;
            };
            frame.splice(12..12, self.tags.iter().copied());
            let fate = self.script.lock().unwrap_or_else(PoisonError::into_inner)(&segment);
            match fate {
                Fate::Forward => self.to.send(&frame),
                Fate::Lose | Fate::Overtaken => {}
                Fate::Repeat => [&frame, &frame].into_iter().for_each(|frame| self.to.send(frame)),
            }
            let late = if fate == Fate::Overtaken { overtaken.replace(frame) } else { overtaken.take() };
            late.iter().for_each(|frame| self.to.send(frame));
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((segment, fate));
        }
    }
}
