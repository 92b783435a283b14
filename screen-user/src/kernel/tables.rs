//! The tables that the programs decide by, as the gate fills and reads them.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use aya::maps::{Array, MapData, RingBuf};
use ipnet::IpNet;
use screen_common::{
    abi::{
        ALLOW_ENTRIES, CLASS_ROWS, CLIENT_ENTRIES, DENY_HOST_ENTRIES, DENY_NET_ENTRIES, FIND_ALL, PASS_ENTRIES,
        PROXY_ENTRIES, STEER_NOBODY, STEER_RELEASED, Settings, map,
    },
    address::IpKey,
};

use super::{
    ClientCounters, DenyEntry, Expiry, KernelError, KernelEvents, ListId, Maps, Plan, Reason, RefusedCounters,
    RelayGuard, Status, Table, Total, clock,
    counts::Counts,
    deny::DenyTable,
    host,
    lists::{AllowList, DenyList, PassList, SharedDenyList},
    lock,
    prefix::{self, Prefix, key_of},
    prefixes::Entry,
    proxies::Proxies,
    relay::Relays,
    replies::Replies,
};

/// The tables of the kernel half: what decides, counts and reports. All methods may be called from many threads; each takes a short
/// lock of its own table.
///
/// It needs no capability: descriptors of the maps are all that it has. Dropping it changes nothing in the kernel.
pub struct Kernel {
    config: Mutex<Array<MapData, Settings>>,
    deny: SharedDenyList,
    allow: Mutex<AllowList>,
    proxies: Mutex<Proxies>,
    pass: Mutex<PassList>,
    counts: Mutex<Counts>,
    relays: Relays,
    replies: Mutex<Replies>,
    ring: Mutex<Option<RingBuf<MapData>>>,
    settings: Mutex<Settings>,
    steers: AtomicBool,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Kernel")
    }
}

fn without_steering(settings: Settings) -> Settings {
    Settings { steering: STEER_NOBODY, ..settings }
}

impl Kernel {
    /// The tables of an installation, for the calling thread's network namespace. `finds_servers` is what
    /// [`super::Installation::finds_servers`] says.
    ///
    /// # Errors
    ///
    /// A map is missing or can't be written.
    pub fn open(mut maps: Maps, plan: &Plan, finds_servers: bool) -> Result<Self, KernelError> {
        let settings = plan.settings(host::netns_cookie()?, finds_servers)?;
        let mut config: Array<MapData, Settings> = maps.take(map::CONFIG)?;
        let mut deny = DenyList {
            table: DenyTable::default(),
            texts: BTreeMap::new(),
            rows: maps.take(map::DENY_CLASS)?,
            classes: maps.take(map::CLASSES)?,
            hosts: maps.take(map::DENY_HOST)?,
            nets: maps.take(map::DENY_NET)?,
        };
        deny.raise_wall()?;
        let allow = AllowList::new(maps.take(map::ALLOW)?)?;
        let mut proxies = Proxies::new(maps.take(map::PROXIES)?)?;
        proxies.replace(&plan.proxies)?;
        let pass = PassList::new(maps.take(map::PASS)?);
        let counts = Counts {
            clients: maps.take(map::CLIENTS)?,
            refused: maps.take(map::REFUSED)?,
            totals: maps.take_data(map::TOTALS)?,
            processors: maps.processors(),
        };
        counts.open_totals()?;
        let relays = Relays::new(maps.take(map::RELAY_CLIENTS)?);
        let replies = Replies::new(&mut maps)?;
        let ring = maps.take(map::EVENTS)?;
        config.set(0, without_steering(settings), 0).map_err(KernelError::map(map::CONFIG))?;
        Ok(Self {
            config: Mutex::new(config),
            deny: SharedDenyList::new(deny),
            allow: Mutex::new(allow),
            proxies: Mutex::new(proxies),
            pass: Mutex::new(pass),
            counts: Mutex::new(counts),
            relays,
            replies: Mutex::new(replies),
            ring: Mutex::new(Some(ring)),
            settings: Mutex::new(settings),
            steers: AtomicBool::new(false),
        })
    }

    /// Takes over the settings of `plan` that need no new programs: ports, limit, prefixes, proxies, dry run, what happens while no
    /// screener listens. Interfaces, layout and pin path stay as they are.
    ///
    /// # Errors
    ///
    /// A plan that can't be carried out, and nothing was changed; or a map that can't be written.
    pub fn reconfigure(&self, plan: &Plan) -> Result<(), KernelError> {
        let mut current = lock(&self.settings);
        let settings = plan.settings(current.netns_cookie, current.find_servers == FIND_ALL)?;
        lock(&self.proxies).replace(&plan.proxies)?;
        *current = settings;
        self.write(settings)
    }

    /// From now on strangers meet the screener's listeners (layout in-place). Until then everybody meets the mail server: call it when
    /// the lists are fed and the listeners registered, or clients are refused, or screened, who should not be.
    ///
    /// # Errors
    ///
    /// A map could not be written.
    pub fn begin_steering(&self) -> Result<(), KernelError> {
        self.steers.store(true, Ordering::Release);
        self.write(*lock(&self.settings))
    }

    /// From now on nobody meets the screener any more: in place everybody who is not turned away meets the mail server, as it is without a
    /// gate. To be called before the screener's listeners are closed, or strangers are refused in between.
    ///
    /// # Errors
    ///
    /// The map could not be written.
    pub fn release(&self) -> Result<(), KernelError> {
        let mut settings = lock(&self.settings);
        if settings.steering != STEER_NOBODY && settings.steer_port == 0 {
            settings.steering = STEER_RELEASED;
        }
        self.write(*settings)
    }

    fn write(&self, settings: Settings) -> Result<(), KernelError> {
        let settings = if self.steers.load(Ordering::Acquire) { settings } else { without_steering(settings) };
        lock(&self.config).set(0, settings, 0).map_err(KernelError::map(map::CONFIG))
    }

    /// Denies `net`, in place of what the same list said of it. Every list speaks for itself; an address is denied while any entry
    /// of any list that holds it has not expired, and no allow entry holds it.
    ///
    /// # Errors
    ///
    /// [`KernelError::Full`], and nothing was changed; or a map could not be written.
    pub fn deny(&self, net: IpNet, entry: DenyEntry) -> Result<(), KernelError> {
        let entry = Entry { list: entry.list, expires: entry.expires };
        self.deny.change(|table, changes| table.insert(net.into(), entry, changes))
    }

    /// Takes back what `list` said of exactly `net`; returns whether it said anything.
    ///
    /// # Errors
    ///
    /// A map could not be written.
    pub fn undeny(&self, net: IpNet, list: ListId) -> Result<bool, KernelError> {
        self.deny.change(|table, changes| Ok(table.remove(net.into(), list, changes)))
    }

    /// Makes `nets` all that `list` denies. Only differences are written; where a prefix is named twice, the last one counts.
    ///
    /// # Errors
    ///
    /// [`KernelError::Full`], and nothing was changed; or a map could not be written.
    pub fn replace_denied(
        &self,
        list: ListId,
        nets: impl IntoIterator<Item = (IpNet, Expiry)>,
    ) -> Result<(), KernelError> {
        let wanted = by_prefix(nets);
        self.deny.change(|table, changes| table.replace(list, &wanted, changes))
    }

    /// Clients denied by `list` are told `text` behind the code 521: one line of printable ASCII, 82 characters at most, that begins with
    /// an enhanced status code (RFC 3463). At most 14 lists have a text.
    ///
    /// # Errors
    ///
    /// [`KernelError::Full`]; no such text can be sent; or a map could not be written.
    pub fn set_reply(&self, list: ListId, text: &str) -> Result<(), KernelError> {
        let mut replies = lock(&self.replies);
        let number = replies.set(list, text)?;
        self.deny.set_text(list, Some(number))
    }

    /// Clients denied by `list` are told what everybody is told.
    ///
    /// # Errors
    ///
    /// A map could not be written.
    pub fn unset_reply(&self, list: ListId) -> Result<(), KernelError> {
        let mut replies = lock(&self.replies);
        self.deny.set_text(list, None)?;
        replies.unset(list);
        Ok(())
    }

    /// Makes a new key for cookies. To be called about every minute; a key that stays is no failure, only easier to guess.
    ///
    /// # Errors
    ///
    /// The map could not be written, or the kernel has no random numbers.
    pub fn rotate_keys(&self) -> Result<(), KernelError> {
        lock(&self.replies).rotate()
    }

    /// What `list` denies.
    #[must_use]
    pub fn denied(&self, list: ListId) -> Vec<(IpNet, Expiry)> {
        self.deny.lock().table.list(list).map(|(prefix, entry)| (prefix.into(), entry.expires)).collect()
    }

    /// Allows `net`: an allow entry beats any deny entry, and its clients go to the mail server unscreened.
    ///
    /// # Errors
    ///
    /// [`KernelError::Full`], and nothing was changed; or the map could not be written.
    pub fn allow(&self, net: IpNet, list: ListId, until: Expiry) -> Result<(), KernelError> {
        lock(&self.allow).insert(net.into(), Entry { list, expires: until })
    }

    /// Takes back what `list` said of exactly `net`; returns whether it said anything.
    ///
    /// # Errors
    ///
    /// The map could not be written.
    pub fn disallow(&self, net: IpNet, list: ListId) -> Result<bool, KernelError> {
        lock(&self.allow).remove(net.into(), list)
    }

    /// Makes `nets` all that `list` allows.
    ///
    /// # Errors
    ///
    /// [`KernelError::Full`], and nothing was changed; or the map could not be written.
    pub fn replace_allowed(
        &self,
        list: ListId,
        nets: impl IntoIterator<Item = (IpNet, Expiry)>,
    ) -> Result<(), KernelError> {
        lock(&self.allow).replace(list, &by_prefix(nets))
    }

    /// What `list` allows.
    #[must_use]
    pub fn allowed(&self, list: ListId) -> Vec<(IpNet, Expiry)> {
        lock(&self.allow).list(list).map(|(prefix, entry)| (prefix.into(), entry.expires)).collect()
    }

    /// The client (prefix) of `address` passed the tests: until then it goes to the mail server unscreened, unless it is denied.
    /// Where the table is full, the pass that expires soonest makes room.
    ///
    /// # Errors
    ///
    /// The map could not be written.
    pub fn pass(&self, address: IpAddr, until: Expiry) -> Result<(), KernelError> {
        lock(&self.pass).insert(self.client_key(address), until)
    }

    /// As [`Kernel::pass`], of many clients at once.
    ///
    /// # Errors
    ///
    /// The map could not be written; some of them may have their pass.
    pub fn pass_all(&self, passes: impl IntoIterator<Item = (IpAddr, Expiry)>) -> Result<(), KernelError> {
        let passes: Vec<_> = passes.into_iter().map(|(address, until)| (self.client_key(address), until)).collect();
        lock(&self.pass).insert_all(&passes)
    }

    /// Takes back the pass of the client of `address`; returns whether it had one.
    ///
    /// # Errors
    ///
    /// The map could not be written.
    pub fn unpass(&self, address: IpAddr) -> Result<bool, KernelError> {
        lock(&self.pass).remove(self.client_key(address))
    }

    /// The clients that have a pass, by the first address of their prefix.
    #[must_use]
    pub fn passed(&self) -> Vec<(IpAddr, Expiry)> {
        lock(&self.pass).iter().map(|(client, until)| (prefix::address_of(&client), until)).collect()
    }

    /// A connection from `relay`, an address and port that the caller has bound, is about to be made for `client`, who meant
    /// `server`: it is steered to the mail server, is not counted, and its other end sees `client`. Call it before connecting, and
    /// drop the guard after closing.
    ///
    /// # Errors
    ///
    /// The map could not be written, or is full (65,536 connections).
    pub fn relay_begin(
        &self,
        relay: SocketAddr,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Result<RelayGuard, KernelError> {
        self.relays.begin(relay, client, server)
    }

    /// The counters of the client (prefix) of `address`, if the kernel knows it.
    ///
    /// # Errors
    ///
    /// The map could not be read.
    pub fn counters(&self, address: IpAddr) -> Result<Option<ClientCounters>, KernelError> {
        let client = self.client_key(address);
        lock(&self.counts).client(&client)
    }

    /// How often `address` was turned away, if the kernel remembers.
    ///
    /// # Errors
    ///
    /// The map could not be read.
    pub fn refused(&self, address: IpAddr) -> Result<Option<RefusedCounters>, KernelError> {
        lock(&self.counts).refused(&key_of(address))
    }

    /// The counters of every reason, over all processors.
    ///
    /// # Errors
    ///
    /// The map could not be read.
    pub fn totals(&self) -> Result<Vec<(Reason, Total)>, KernelError> {
        let counts = lock(&self.counts);
        Reason::ALL.into_iter().map(|reason| Ok((reason, counts.total(reason)?))).collect()
    }

    /// Every client that the kernel knows, by the first address of its prefix.
    #[must_use]
    pub fn clients(&self) -> Vec<(IpAddr, ClientCounters)> {
        lock(&self.counts).clients()
    }

    /// Removes what has expired from the lists, and clients that are long gone. To be called about every minute; nothing that has
    /// expired has any effect until then either. Returns how many entries went.
    ///
    /// # Errors
    ///
    /// A map could not be read or written.
    pub fn sweep(&self) -> Result<usize, KernelError> {
        let now = Expiry::from_nanos(clock::now_ns());
        let denied = self.deny.change(|table, changes| Ok(table.sweep(now, changes)))?;
        let allowed = lock(&self.allow).sweep(now)?;
        let passed = lock(&self.pass).sweep(now)?;
        let clients = lock(&self.counts).sweep()?;
        Ok(denied + allowed + passed + clients)
    }

    /// The events, for the one who logs them; `None` if somebody has them already. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The runtime can't watch the ring.
    pub fn events(&self) -> Result<Option<KernelEvents>, KernelError> {
        lock(&self.ring).take().map(KernelEvents::new).transpose()
    }

    /// What the tables hold at the moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let (denied, hosts, nets) = {
            let deny = self.deny.lock();
            let (hosts, nets) = deny.table.fill();
            (deny.table.len(), hosts, nets)
        };
        let clients = lock(&self.counts).clients.keys().count();
        let (proxies, everybody) = {
            let proxies = lock(&self.proxies);
            (proxies.len(), proxies.note())
        };
        let no_room = self.no_room();
        let table = |name, entries, capacity| {
            let no_room = no_room.iter().find(|(table, _)| *table == name).map_or(0, |(_, entries)| *entries);
            Table { name, entries, capacity, no_room }
        };
        Status {
            tables: vec![
                // Prefixes that are classes take no room of their own: the array always holds every /24.
                table(map::DENY_CLASS, denied.saturating_sub(hosts + nets), CLASS_ROWS * 256),
                table(map::DENY_HOST, hosts, DENY_HOST_ENTRIES),
                table(map::DENY_NET, nets, DENY_NET_ENTRIES),
                table(map::ALLOW, lock(&self.allow).len(), ALLOW_ENTRIES),
                table(map::PROXIES, proxies, PROXY_ENTRIES),
                table(map::PASS, lock(&self.pass).len(), PASS_ENTRIES),
                table(map::CLIENTS, clients, CLIENT_ENTRIES),
            ],
            notes: everybody.into_iter().collect(),
        }
    }

    /// Of each table that was full since the gate began: how many entries it had no room for.
    #[must_use]
    pub fn no_room(&self) -> Vec<(&'static str, u64)> {
        let (hosts, nets) = self.deny.lock().table.no_room();
        let uncounted = lock(&self.counts).total(Reason::ClientsFull).map_or(0, |total| total.packets);
        let tables = [
            (map::DENY_HOST, hosts),
            (map::DENY_NET, nets),
            (map::ALLOW, lock(&self.allow).no_room()),
            (map::PASS, lock(&self.pass).displaced()),
            (map::CLIENTS, uncounted),
        ];
        tables.into_iter().filter(|(_, entries)| *entries > 0).collect()
    }

    fn client_key(&self, address: IpAddr) -> IpKey {
        lock(&self.settings).client(&key_of(address))
    }
}

fn by_prefix(nets: impl IntoIterator<Item = (IpNet, Expiry)>) -> BTreeMap<Prefix, Expiry> {
    nets.into_iter().map(|(net, expires)| (net.into(), expires)).collect()
}
