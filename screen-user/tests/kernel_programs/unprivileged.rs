//! The tables of a gate in the hands of a process without any capability, and out of everybody else's.

use std::{
    fs::{self, Permissions},
    io,
    net::IpAddr,
    os::{
        fd::AsFd as _,
        unix::fs::{PermissionsExt as _, chown},
    },
    process::{Command, Stdio},
};

use aya::maps::MapData;
use screen_user::kernel::{DenyEntry, Expiry, Kernel, ListId, Maps, Plan, Processors, Reason, missing_capabilities};

use super::{
    frames::Frame,
    place::{Started, alone, plan},
};

/// The pin path for [`a_process_without_capabilities`].
const PIN_PATH: &str = "MXS_TEST_UNPRIVILEGED_PIN_PATH";
/// A table that is not pinned: it is handed over as standard input.
const HANDED: &str = "cookie_keys";

#[test]
#[ignore = "a process for `who_holds_the_tables_needs_no_privilege` to start"]
fn a_process_without_capabilities() {
    assert_eq!(missing_capabilities().unwrap(), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
    let pin_path = std::env::var_os(PIN_PATH).expect("the pin path");
    let plan = Plan { pin_path: pin_path.into(), ..plan() };
    let mut maps = Maps::new(Processors::count().unwrap());
    maps.insert(HANDED.to_owned(), io::stdin().as_fd().try_clone_to_owned().unwrap());
    for pin in plan.pin_path.join("maps").read_dir().unwrap() {
        let pin = pin.unwrap();
        let map = MapData::from_pin(pin.path()).unwrap();
        maps.insert(pin.file_name().into_string().unwrap(), map.fd().as_fd().try_clone_to_owned().unwrap());
    }
    let kernel = Kernel::open(maps, &plan, true).unwrap();
    let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
    kernel.set_reply(ListId::OPERATOR, "5.7.1 go away").unwrap();
    for net in ["192.0.2.66/32", "198.51.100.0/24", "2001:db8:bad::/48"] {
        kernel.deny(net.parse().unwrap(), entry).unwrap();
    }
    kernel.allow("198.51.100.7/32".parse().unwrap(), ListId::OPERATOR, Expiry::NEVER).unwrap();
    kernel.pass([192, 0, 2, 9].into(), Expiry::NEVER).unwrap();
    kernel.rotate_keys().unwrap();
    kernel.begin_steering().unwrap();
    kernel.sweep().unwrap();
    let denied = kernel.totals().unwrap().into_iter().find(|(reason, _)| *reason == Reason::Denied).unwrap().1;
    assert_eq!(denied.packets, 1, "it reads what is counted");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let event = runtime.block_on(async { kernel.events().unwrap().unwrap().next().await });
    assert_eq!((event.reason, event.client.ip()), (Reason::Denied, IpAddr::from([203, 0, 113, 1])));
}

#[test]
fn who_holds_the_tables_needs_no_privilege() {
    alone(|| {
        let plan = plan();
        let gate = Started::new(&plan).unwrap();
        let passes = |source: &str| gate.installation.try_frame(&Frame::syn(source).bytes()).unwrap();
        gate.deny("203.0.113.1/32".parse().unwrap(), DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR })
            .unwrap();
        assert!(!passes("203.0.113.1"));
        let maps = gate.installation.maps().unwrap();
        let (_, handed) = maps.iter().find(|(name, _)| *name == HANDED).unwrap();
        let child = Command::new("setpriv")
            .args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "unprivileged::a_process_without_capabilities", "--ignored", "--nocapture"])
            .env(PIN_PATH, &plan.pin_path)
            .stdin(Stdio::from(handed.try_clone_to_owned().unwrap()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{said}");
        for denied in ["192.0.2.66", "198.51.100.8", "2001:db8:bad::1"] {
            assert!(!passes(denied), "{denied}");
        }
        assert!(passes("198.51.100.7"), "allowed");
    });
}

#[test]
fn nobody_else_gets_at_the_pins() {
    alone(|| {
        let plan = plan();
        fs::create_dir(&plan.pin_path).unwrap();
        chown(&plan.pin_path, Some(65_534), None).unwrap();
        let error = Started::new(&plan).err().expect("a directory of somebody else's");
        assert!(error.to_string().contains("was made by user 65534") && error.exit_code() == 69, "{error}");

        // A former version left it open.
        chown(&plan.pin_path, Some(0), None).unwrap();
        fs::set_permissions(&plan.pin_path, Permissions::from_mode(0o755)).unwrap();
        let _gate = Started::new(&plan).unwrap();
        assert_eq!(fs::metadata(&plan.pin_path).unwrap().permissions().mode() & 0o777, 0o700);
    });
}
