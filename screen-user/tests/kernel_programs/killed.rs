//! A gate that is killed, and the one after it.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _},
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    time::Duration,
};

use screen_user::{
    config::ScreenerDown,
    kernel::{DenyEntry, Expiry, KernelError, ListId, Mode, Plan},
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::place::{HOST, NEIGHBOUR, Pair, Started, plan, privileged};

/// The pin path for [`a_gate_that_is_killed`].
const DOOMED: &str = "MXS_TEST_DOOMED_PIN_PATH";

#[test]
#[ignore = "a process for `a_killed_gate_goes_on_until_the_next_one_takes_over` to kill"]
fn a_gate_that_is_killed() {
    let pin_path = std::env::var_os(DOOMED).expect("the pin path").into();
    let kernel = Started::new(&Plan { pin_path, ..plan() }).unwrap();
    kernel.begin_steering().unwrap();
    let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
    kernel.deny("192.0.2.4/32".parse().unwrap(), entry).unwrap();
    kernel.pass([192, 0, 2, 2].into(), Expiry::NEVER).unwrap();
    println!("ready");
    // Until the pipe to the parent breaks, should it die first.
    io::stdin().read_exact(&mut [0]).unwrap();
}

#[test]
fn a_killed_gate_goes_on_until_the_next_one_takes_over() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let plan = plan();
    let mut doomed = pair.within(HOST, || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::a_gate_that_is_killed", "--ignored", "--nocapture"])
            .env(DOOMED, &plan.pin_path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let output = BufReader::new(doomed.stdout.take().unwrap());
    assert!(output.lines().map_while(Result::ok).any(|line| line.ends_with("ready")), "the gate did not start");
    assert!(matches!(pair.within(HOST, || Started::new(&plan)), Err(KernelError::InUse { .. })));
    doomed.kill().unwrap();
    doomed.wait().unwrap();

    let connect = |client: [u8; 4]| {
        pair.within(NEIGHBOUR, || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SockAddr::from(SocketAddr::from((client, 0))))?;
            let server = SocketAddr::from(([192, 0, 2, 1], 25));
            socket.connect_timeout(&SockAddr::from(server), Duration::from_millis(500)).map(|()| socket)
        })
    };
    let _mail = pair.within(HOST, || TcpListener::bind("192.0.2.1:25").unwrap());
    assert_eq!(connect([192, 0, 2, 4]).unwrap_err().kind(), ErrorKind::TimedOut, "still denied");
    assert!(connect([192, 0, 2, 2]).is_ok(), "still given to the mail server");
    assert_eq!(connect([192, 0, 2, 3]).unwrap_err().kind(), ErrorKind::ConnectionRefused, "no screener");

    let next = pair.within(HOST, || Started::new(&plan).unwrap());
    assert_eq!(next.installation.attached().interfaces[0].mode, Some(Mode::Generic), "the dead gate's XDP made room");
    next.begin_steering().unwrap();
    next.reconfigure(&Plan { on_screener_down: ScreenerDown::Pass, ..plan.clone() }).unwrap();
    assert!(connect([192, 0, 2, 4]).is_ok() && connect([192, 0, 2, 3]).is_ok());
    drop(next);
    assert!(!plan.pin_path.exists());
}
