//! What a service manager hears of the gate (sd_notify(3)). The package's own story (`cargo xtask package --try`) has a real one.

use std::{fs, os::unix::net::UnixDatagram, time::Duration};

use nix::sys::signal::Signal;
use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    program::write_script,
    wait::{SOON, wait_for},
};

/// The service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    /// Listens, and has the gate started as a service manager would that watches it, with this patience.
    fn of(net: &Net, settings: Settings, patience: Duration) -> (Self, Settings) {
        let path = net.directory().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (settings, program) = settings.copied();
        let real = program.with_extension("real");
        fs::rename(&program, &real).unwrap();
        let script = format!(
            "#!/bin/sh\nexport NOTIFY_SOCKET={} WATCHDOG_USEC={}\nexec {} \"$@\"\n",
            path.display(),
            patience.as_micros(),
            real.display()
        );
        write_script(&program, &script);
        (Self(socket), settings)
    }

    /// The next message with this word; those before it are thrown away.
    #[track_caller]
    fn hears(&self, word: &str) -> String {
        wait_for(&format!("the service manager hears {word}"), SOON, || {
            let mut text = [0; 512];
            let length = self.0.recv(&mut text).ok()?;
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            text.lines().any(|line| line == word).then_some(text)
        })
    }
}

#[test]
fn a_service_manager_hears_of_start_reload_life_and_stop() {
    let Some(net) = Net::new() else { return };
    let (manager, settings) = Manager::of(&net, Settings::in_place(&net), Duration::from_secs(2));
    let gate = Gate::start(&net, settings);
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");

    gate.signal(Signal::SIGHUP);
    assert!(manager.hears("RELOADING=1").contains("\nMONOTONIC_USEC="));
    manager.hears("READY=1");
    gate.tell(&["reload"]);
    manager.hears("RELOADING=1");
    manager.hears("READY=1");

    // It is not kept waiting by what can't be read either.
    fs::write(gate.settings().directory().join("mxscreen.toml"), "no.such.key = 1\n").unwrap();
    gate.signal(Signal::SIGHUP);
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    gate.wait_log("not reloaded: ");

    gate.tell(&["stop"]);
    manager.hears("STOPPING=1");
    gate.wait_end();
}

#[test]
fn each_version_has_the_whole_of_the_service_managers_patience() {
    let Some(net) = Net::new() else { return };
    // So much that no answer of the screener's is heard of meanwhile.
    let (manager, settings) = Manager::of(&net, Settings::in_place(&net), Duration::from_secs(3600));
    let gate = Gate::start(&net, settings);
    let begun = || {
        manager.hears("WATCHDOG=1");
        manager.hears("WATCHDOG=1");
        manager.hears("READY=1");
    };
    begun();
    gate.tell(&["upgrade"]);
    begun();
}
