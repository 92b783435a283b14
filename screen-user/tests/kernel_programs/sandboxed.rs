//! What a process in the sandbox can't do any more, and what it still can.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

use aya::maps::{MapData, lpm_trie::LpmTrie};
use caps::CapSet;
use screen_user::{
    kernel::{DenyEntry, Expiry, Installation, ListId, Reason},
    sandbox,
};

use super::{
    place::{HOST, Pair, Started, plan, privileged},
    site::PATIENCE,
};

/// Everything of the sandbox counts for one thread and its children, so that a test needs no process of its own.
#[test]
fn files_programs_and_new_maps_are_out_of_reach_and_the_maps_it_has_are_not() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let plan = plan();
    let started = pair.within(HOST, || Started::new(&plan).unwrap());
    let kernel = &started.kernel;
    let pinned = plan.pin_path.join("maps/clients");
    let own = tempfile::NamedTempFile::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut before, name) = (own.reopen().unwrap(), own.path());
    thread::scope(|scope| {
        let confined = scope.spawn(|| {
            sandbox::enter().unwrap();
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient, CapSet::Bounding] {
                assert_eq!(caps::read(None, set).unwrap().len(), 0, "{set:?}");
            }
            assert!(nix::sys::prctl::get_no_new_privs().unwrap());

            // Files: none is opened, made, removed or executed, its own one neither; what is open stays so.
            let refused = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            };
            refused(File::open("/etc/passwd").map(drop));
            refused(File::open(name).map(drop));
            refused(File::create("/tmp/mxs-sandboxed").map(drop));
            refused(fs::remove_file(name));
            refused(fs::rename(name, "/tmp/mxs-sandboxed"));
            refused(fs::create_dir("/tmp/mxs-sandboxed"));
            refused(Command::new("/bin/true").status().map(drop));
            before.write_all(b"still").unwrap();

            // The kernel half: nothing is made, loaded or fetched.
            assert!(LpmTrie::<MapData, u32, u32>::create(1, 0).is_err(), "a map was made");
            assert!(MapData::from_pin(&pinned).is_err(), "a pin was opened");
            assert!(Installation::start(&plan).is_err(), "programs were loaded");

            // The tables: written and read as ever.
            let net = "192.0.2.4/32".parse().unwrap();
            kernel.deny(net, DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR }).unwrap();
            assert_eq!(kernel.denied(ListId::OPERATOR), [(net, Expiry::NEVER)]);
            let many = (0..10_000u32)
                .map(|number| (ipnet::IpNet::from(std::net::IpAddr::from(number.to_be_bytes())), Expiry::NEVER));
            kernel.replace_denied(ListId::IMPORTED, many).unwrap();
            kernel.pass([192, 0, 2, 2].into(), Expiry::NEVER).unwrap();
            kernel.rotate_keys().unwrap();
            kernel.sweep().unwrap();
            assert!(kernel.totals().unwrap().iter().any(|(reason, _)| *reason == Reason::Denied));

            // Sockets: a client's, not a server's.
            TcpStream::connect_timeout(&listener.local_addr().unwrap(), PATIENCE).unwrap();
            listener.accept().unwrap();
            refused(TcpListener::bind("127.0.0.1:0").map(drop));
        });
        confined.join().unwrap();
    });
    // Another thread has lost nothing.
    assert_eq!(fs::read(name).unwrap(), b"still");
}
