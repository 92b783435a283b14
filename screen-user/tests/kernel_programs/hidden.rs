//! A gate that is started by `ip netns exec`, which hides `/sys/fs/bpf` and the cgroup mounts.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, ErrorKind, Write as _},
    net::{SocketAddr, TcpListener},
    os::fd::AsFd as _,
    process::{Command, Stdio},
    time::Duration,
};

use screen_user::kernel::{DenyEntry, Expiry, Family, ListId, Plan};
use socket2::{Domain, SockAddr, Socket, Type};

use super::place::{HOST, NEIGHBOUR, Pair, Started, plan, privileged};

/// The pin path for [`a_gate_that_sees_no_mounts`].
const HIDDEN: &str = "MXS_TEST_HIDDEN_PIN_PATH";

#[test]
#[ignore = "a process for `a_gate_works_and_stops_under_ip_netns_exec` to start"]
fn a_gate_that_sees_no_mounts() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(" - cgroup2 ") && !mounts.contains(" - bpf "), "nothing is hidden");
    let plan = Plan { pin_path: std::env::var_os(HIDDEN).expect("the pin path").into(), ..plan() };
    let kernel = Started::new(&plan).unwrap();
    let screener = TcpListener::bind("127.0.0.1:2526").unwrap();
    kernel.installation.register_listener(screener.as_fd(), Family::Ipv4).unwrap();
    kernel.begin_steering().unwrap();
    let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
    kernel.deny("192.0.2.4/32".parse().unwrap(), entry).unwrap();
    kernel.pass([192, 0, 2, 2].into(), Expiry::NEVER).unwrap();
    assert!(plan.pin_path.join("links/count").exists());
    assert!(kernel.installation.attached().notes.iter().any(|note| note.contains("ip netns exec")));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(" - cgroup2 "), "the hierarchy is still mounted nowhere");
    println!("ready");
    for line in io::stdin().lines() {
        assert_eq!(line.unwrap(), "count");
        println!("active {}", kernel.counters([192, 0, 2, 2].into()).unwrap().unwrap().active);
    }
    kernel.installation.release_port();
    drop(screener);
    drop(kernel);
    assert!(!plan.pin_path.exists());
}

#[test]
fn a_gate_works_and_stops_under_ip_netns_exec() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let plan = plan();
    let mail = pair.within(HOST, || TcpListener::bind("192.0.2.1:25").unwrap());
    let test = std::env::current_exe().unwrap();
    let mut gate = Command::new("ip")
        .args(["netns", "exec", pair.name(HOST), test.to_str().unwrap()])
        .args(["--exact", "hidden::a_gate_that_sees_no_mounts", "--ignored", "--nocapture"])
        .env(HIDDEN, &plan.pin_path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(gate.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(output.any(|line| line.ends_with("ready")), "the gate did not start");
    assert!(!plan.pin_path.exists(), "its pins are its own");

    let connect = |client: [u8; 4], server: SocketAddr| {
        pair.within(NEIGHBOUR, || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SockAddr::from(SocketAddr::from((client, 0))))?;
            socket.connect_timeout(&SockAddr::from(server), Duration::from_millis(500)).map(|()| socket)
        })
    };
    let server = SocketAddr::from(([192, 0, 2, 1], 25));
    assert_eq!(connect([192, 0, 2, 4], server).unwrap_err().kind(), ErrorKind::TimedOut, "denied");
    let known = connect([192, 0, 2, 2], server).unwrap();
    let (end, peer) = mail.accept().unwrap();
    assert_eq!(peer, known.local_addr().unwrap().as_socket().unwrap());
    let stranger = connect([192, 0, 2, 3], server).unwrap();
    gate.stdin.as_ref().unwrap().write_all(b"count\n").unwrap();
    assert_eq!(output.next().as_deref(), Some("active 1"), "counted, although the cgroups are hidden");

    drop(gate.stdin.take());
    assert!(gate.wait().unwrap().success(), "it leaves nothing behind where it was");
    let after = [connect([192, 0, 2, 4], server).unwrap(), connect([192, 0, 2, 3], server).unwrap()];
    for client in &after {
        assert_eq!(mail.accept().unwrap().1, client.local_addr().unwrap().as_socket().unwrap());
    }
    assert!(!plan.pin_path.exists());
    drop((end, stranger));
}
