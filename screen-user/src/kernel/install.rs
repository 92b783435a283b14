//! The programs: loaded, attached, pinned. This is the part that takes privileges.

use std::{
    error::Error as _,
    fmt,
    fs::File,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, SockMap},
};
use screen_common::abi::{LISTENER_IPV4, LISTENER_IPV6, ServerKey, map, program};

use super::{
    Family, KernelError,
    backlog::{Backlog, HungServer},
    cgroup,
    former::{Former, KEPT, carry_over},
    host,
    interfaces::{self, Interfaces, LinkChanges, is_gate},
    lock,
    maps::{self, Maps},
    messages::Messages,
    object,
    owners::Owners,
    pins::Pins,
    plan::Plan,
    prefix::address_of,
    recount::{self, Recount},
    relay::FormerRelays,
    sock_diag,
    status::Attached,
    syscall,
};
use crate::config::Layout;

/// The maps that [`super::Kernel`] works with.
const TABLES: [&str; 15] = [
    map::CONFIG,
    map::DENY_CLASS,
    map::CLASSES,
    map::DENY_HOST,
    map::DENY_NET,
    map::ALLOW,
    map::PROXIES,
    map::PASS,
    map::CLIENTS,
    map::REFUSED,
    map::TOTALS,
    map::EVENTS,
    map::RELAY_CLIENTS,
    map::REPLIES,
    map::COOKIE_KEYS,
];

/// What programs are attached to, besides interfaces.
struct Place {
    namespace: File,
    cgroup: File,
}

/// The programs at work in one network namespace.
///
/// Dropping it detaches every program and removes every pin, and the mail server has its port back; unless it is told to leave them.
pub struct Installation {
    // Declared first, so that it is dropped first: programs are detached before their maps go.
    pins: Pins,
    place: Place,
    former: Former,
    pub(super) programs: Mutex<Ebpf>,
    listeners: Mutex<SockMap<MapData>>,
    backlog: Mutex<Backlog>,
    owners: Mutex<Owners>,
    /// Held during a recount: two at a time would both correct the same count.
    recounting: Mutex<()>,
    /// Whether the last look at the mail server's listeners failed.
    blind: AtomicBool,
    messages: Mutex<Option<Messages>>,
    former_relays: Mutex<FormerRelays>,
    interfaces: Mutex<Interfaces>,
    attached: Vec<&'static str>,
    /// Whether sockets can be walked over.
    walks: bool,
    notes: Vec<String>,
}

impl fmt::Debug for Installation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Installation")
            .field("pins", &self.pins)
            .field("interfaces", &self.interfaces)
            .finish_non_exhaustive()
    }
}

impl Installation {
    /// Loads the programs for the calling thread's network namespace. Nothing is attached yet, and what a gate that is gone left under the
    /// same pin path works on: first [`super::Kernel::open`] the tables and fill them, then [`Installation::activate`].
    ///
    /// # Errors
    ///
    /// [`KernelError::exit_code`] tells kinds apart; nothing has changed then.
    pub fn start(plan: &Plan) -> Result<Self, KernelError> {
        host::require_kernel()?;
        host::check_privileges()?;
        let netns_cookie = host::netns_cookie()?;
        // A plan that can't be carried out is an error before anything is touched.
        plan.settings(netns_cookie, true)?;
        let place = Place { namespace: host::network_namespace()?, cgroup: cgroup::root()? };
        let mounted = host::require_bpf_fs(&plan.pin_path)?;
        let pins = Pins::take(&plan.pin_path)?;
        let fresh = object::make_maps(plan.debug, None)?;
        let former = Former::find(&pins, netns_cookie, &fresh);
        let mut ebpf = if former == Former::Fits { object::make_maps(plan.debug, Some(&pins))? } else { fresh };
        // Until the new programs are in their places the old ones are not to be touched, whatever happens.
        pins.leave(former != Former::Nothing);
        object::load(&mut ebpf)?;
        let walk = object::load_walk(&mut ebpf);
        carry_over(&pins, former, &mut ebpf)?;
        let listeners = Maps::of(&ebpf, &[map::LISTENERS])?.take(map::LISTENERS)?;
        let backlog = Backlog::new(Maps::of(&ebpf, &[map::HUNG])?.take(map::HUNG)?);
        let former_relays = FormerRelays::of(Maps::of(&ebpf, &[map::RELAY_CLIENTS])?.take(map::RELAY_CLIENTS)?);
        let messages = if plan.debug { Some(Messages::of(&mut ebpf)?) } else { None };
        let interfaces = Interfaces::new(plan, Maps::of(&ebpf, &[map::MUTE])?.take(map::MUTE)?);
        let mut attached =
            vec![program::COUNT, program::PEERNAME4, program::PEERNAME6, program::SOCKNAME4, program::SOCKNAME6];
        if plan.layout == Layout::InPlace || plan.steer_to.is_some() {
            attached.push(program::STEER);
        }
        Ok(Self {
            pins,
            place,
            former,
            programs: Mutex::new(ebpf),
            listeners: Mutex::new(listeners),
            backlog: Mutex::new(backlog),
            owners: Mutex::new(Owners::new(plan)),
            recounting: Mutex::new(()),
            blind: AtomicBool::new(false),
            messages: Mutex::new(messages),
            former_relays: Mutex::new(former_relays),
            walks: walk.is_ok(),
            notes: mounted.into_iter().chain(walk.err().map(|error| no_walk(&error))).collect(),
            interfaces: Mutex::new(interfaces),
            attached,
        })
    }

    /// Puts the programs in their places: they begin to decide, by the tables as they are. Where a gate that is gone left its own, each is
    /// replaced at once, so that no packet and no connection goes undecided or uncounted in between.
    ///
    /// # Errors
    ///
    /// A program can't be attached or a map can't be pinned. What a former gate left stays at work as far as it was not replaced.
    pub fn activate(&self) -> Result<(), KernelError> {
        let mut ebpf = lock(&self.programs);
        let ebpf = &mut *ebpf;
        if self.former == Former::Nothing {
            self.pins.clear();
        }
        self.pins.prepare()?;
        object::attach_to_cgroup(ebpf, &self.pins, &self.place.cgroup)?;
        if self.attached.contains(&program::STEER) {
            object::attach_steer(ebpf, &self.pins, &self.place.namespace)?;
        } else {
            self.pins.release(|link| link == program::STEER);
        }
        lock(&self.interfaces).start(ebpf, &self.pins)?;
        for name in map::PINNED {
            if self.former == Former::Fits && KEPT.contains(&name) {
                continue;
            }
            let map = ebpf.map(name).and_then(maps::data);
            let map = map.ok_or_else(|| KernelError::Plan(format!("the object has no map {name}")))?;
            self.pins.put_map(map, name)?;
        }
        self.pins.leave(false);
        Ok(())
    }

    /// From now on programs, maps and pins stay when this is dropped: the denied stay denied, the known good reach the mail server, and a
    /// later gate with the same pin path takes over.
    pub fn leave(&self) {
        self.pins.leave(true);
    }

    /// The maps that [`super::Kernel::open`] takes.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn maps(&self) -> Result<Maps, KernelError> {
        Maps::of(&lock(&self.programs), &TABLES)
    }

    /// Strangers of `family` are given to this listening socket from now on, until it is closed. A dual-stack socket may be
    /// registered for both.
    ///
    /// # Errors
    ///
    /// The kernel takes TCP sockets that listen, in the network namespace of the gate.
    pub fn register_listener(&self, socket: BorrowedFd<'_>, family: Family) -> Result<(), KernelError> {
        let index = match family {
            Family::Ipv4 => LISTENER_IPV4,
            Family::Ipv6 => LISTENER_IPV6,
        };
        lock(&self.listeners).set(index, &socket.as_raw_fd(), 0).map_err(KernelError::map(map::LISTENERS))
    }

    /// Strangers are given to nobody any more, by whichever programs are at work, this installation's or a former one's: they get what
    /// `kernel.on_screener_down` says.
    ///
    /// # Errors
    ///
    /// The map could not be written.
    pub fn unregister_listeners(&self) -> Result<(), KernelError> {
        // What is pinned is what decides.
        let pinned = MapData::from_pin(self.pins.map(map::LISTENERS)).and_then(Map::from_map_data);
        let mut listeners: SockMap<MapData> =
            pinned.and_then(TryInto::try_into).map_err(KernelError::map(map::LISTENERS))?;
        [LISTENER_IPV4, LISTENER_IPV6].iter().try_for_each(|index| match listeners.clear_index(index) {
            // Of a socket map, an empty place is EINVAL: nobody was registered for this family, or nobody is any more.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            cleared => cleared.map_err(KernelError::map(map::LISTENERS)),
        })
    }

    /// Gives the port back: when this returns no packet is dropped any more and every new connection meets whoever listens on the
    /// port. What shows the true clients of relayed connections stays until the end. To be called before the screener's listeners
    /// are closed, or strangers are refused in between.
    pub fn release_port(&self) {
        let mut interfaces = lock(&self.interfaces);
        interfaces.release();
        self.pins.release(|link| link == program::STEER || is_gate(link));
    }

    /// Makes the gate follow the host's interfaces: to be called when [`LinkChanges`] tells of a change, in the network namespace
    /// of the start. Returns what has changed, in words.
    ///
    /// # Errors
    ///
    /// The interfaces can't be listed, or a link can't be pinned.
    pub fn refresh_interfaces(&self) -> Result<Vec<String>, KernelError> {
        let mut programs = lock(&self.programs);
        lock(&self.interfaces).refresh(&mut programs, &self.pins)
    }

    /// Goes by which interfaces `plan` names and whether the gate replies, and attaches and takes off accordingly, as
    /// [`Installation::refresh_interfaces`] does. All else of the plan that a gate at work can change is
    /// [`super::Kernel::reconfigure`]'s.
    ///
    /// # Errors
    ///
    /// As [`Installation::refresh_interfaces`].
    pub fn reconfigure(&self, plan: &Plan) -> Result<Vec<String>, KernelError> {
        lock(&self.interfaces).reconfigure(plan);
        self.refresh_interfaces()
    }

    /// Looks whether all these interfaces are there, in the network namespace of the start.
    ///
    /// # Errors
    ///
    /// [`KernelError::Missing`]: one is not. Or the interfaces can't be listed.
    pub fn require_interfaces(&self, named: &[String]) -> Result<(), KernelError> {
        interfaces::require(named)
    }

    /// Tells when interfaces have changed, from now on. Must be called within a tokio runtime, in the network namespace of the start.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub fn link_changes(&self) -> Result<LinkChanges, KernelError> {
        LinkChanges::new()
    }

    /// Whether the mail server's listeners are known, those too that were there before; [`super::Kernel::open`] is to be told.
    #[must_use]
    pub fn finds_servers(&self) -> bool {
        self.walks
    }

    /// Looks at all sockets of the calling thread's network namespace, which is to be that of the start: the mail server's listeners
    /// that are not known yet are registered, connections that are not counted yet are counted. Once [`super::Kernel::open`] has written what
    /// the programs decide by, and then now and then: of several listeners with one address (`SO_REUSEPORT`) only four are known at a time.
    ///
    /// # Errors
    ///
    /// The kernel has no such walk.
    pub fn look_at_sockets(&self) -> Result<(), KernelError> {
        if self.walks { object::walk(&mut lock(&self.programs)).map(drop) } else { Ok(()) }
    }

    /// Whether the programs will not know the connections that a former gate's screener begins to relay from now on: its tables have another
    /// layout.
    #[must_use]
    pub fn replaces_relays(&self) -> bool {
        self.former == Former::Differs
    }

    /// Forgets the relayed connections of a former gate that have ended, in the network namespace of the start; to be called once, when the
    /// programs are at work.
    ///
    /// # Errors
    ///
    /// The kernel does not tell of its sockets.
    pub fn forget_former_relays(&self) -> Result<(), KernelError> {
        lock(&self.former_relays).forget_ended()
    }

    /// Holds the counts of connections against the kernel's own table of sockets, and puts right what is wrong and stays so: see
    /// [`Recount`]. Takes about a quarter of a second; to be called in the network namespace of the start.
    ///
    /// # Errors
    ///
    /// The kernel has no walk over sockets, or a map can't be read or written.
    pub fn recount(&self) -> Result<Recount, KernelError> {
        if !self.walks {
            return Err(KernelError::Missing {
                what: "this kernel takes no program that walks over sockets".to_owned(),
                remedy: "the notices of `mxscreen status` say why".to_owned(),
            });
        }
        let _alone = lock(&self.recounting);
        recount::recount(&self.programs)
    }

    /// Looks at the mail server's listeners, in the network namespace of the start: known-good clients of one whose accept queue stays full
    /// for three seconds meet the screener, until half of it is free again. To be called every second or so; what was found of queues is
    /// forgotten 30 seconds after the last look. Returns what has changed, in words.
    ///
    /// # Errors
    ///
    /// The kernel does not tell of its sockets, or a map can't be read or written. Told once, not at every look.
    pub fn look_at_servers(&self) -> Result<Vec<String>, KernelError> {
        let looked = self.try_look_at_servers();
        let was_blind = self.blind.swap(looked.is_err(), Ordering::Relaxed);
        if was_blind && looked.is_err() { Ok(Vec::new()) } else { looked }
    }

    fn try_look_at_servers(&self) -> Result<Vec<String>, KernelError> {
        let servers = self.server_sockets()?;
        let listeners =
            sock_diag::listeners().map_err(|error| KernelError::system("look at listening sockets", error))?;
        let mut said = lock(&self.backlog).look(&servers, &listeners)?;
        // Where not all are known, whoever owns the port is not asked for.
        if self.walks && self.attached.contains(&program::STEER) {
            said.extend(lock(&self.owners).look(&listeners));
        }
        Ok(said)
    }

    /// The mail server's listeners that known-good clients are given to; one that hangs is among them.
    ///
    /// # Errors
    ///
    /// The map could not be read.
    pub fn servers(&self) -> Result<Vec<SocketAddr>, KernelError> {
        let mut found: Vec<SocketAddr> = self
            .server_sockets()?
            .into_iter()
            .map(|(key, _)| SocketAddr::new(address_of(&key.address), key.port as u16))
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Those of them that take nobody, as of the last look.
    #[must_use]
    pub fn hung_servers(&self) -> Vec<HungServer> {
        lock(&self.backlog).hung()
    }

    /// The steered listeners and their cookies.
    fn server_sockets(&self) -> Result<Vec<(ServerKey, u64)>, KernelError> {
        let programs = lock(&self.programs);
        let map = programs.map(map::SERVERS).and_then(maps::data);
        let map = map.ok_or_else(|| KernelError::Plan(format!("the object has no map {}", map::SERVERS)))?;
        syscall::sockets(map.fd().as_fd())
            .map_err(|error| KernelError::system(format!("read the map {}", map::SERVERS), error))
    }

    /// What is attached, and where.
    #[must_use]
    pub fn attached(&self) -> Attached {
        let interfaces = lock(&self.interfaces);
        let notes = self.notes.iter().cloned().chain(interfaces.notes()).chain(lock(&self.owners).notes()).collect();
        Attached {
            interfaces: interfaces.list(),
            programs: self.attached.iter().map(|name| (*name).to_owned()).collect(),
            notes,
        }
    }

    /// The programs' debug messages, for the one who passes them on; `None` if they were not asked for.
    #[must_use]
    pub fn messages(&self) -> Option<Messages> {
        lock(&self.messages).take()
    }
}

/// What is missing where sockets can't be walked over.
fn no_walk(error: &KernelError) -> String {
    let first = format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
    format!(
        "sockets that are there already are not looked at ({}): connections older than the gate are not counted, and known-good clients \
         are refused while the mail server is down",
        first.lines().next().unwrap_or_default()
    )
}
