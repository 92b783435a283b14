//! Reload: a new configuration and new tables, all or nothing, without touching a session.

use std::sync::{Arc, PoisonError};

use super::{Gate, changes::Read, unix_now};
use crate::{
    config::{self, Config},
    keeper::Reread,
    net::tls::TlsServer,
    operate::exit::Failure,
};

impl Gate {
    /// Reloads, and logs how that went.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub(super) fn reload_and_log(self: &Arc<Self>) -> Result<Vec<String>, Failure> {
        let reloaded = self.reload();
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner).note(reloaded.is_ok(), unix_now());
        match &reloaded {
            Ok(said) => said.iter().for_each(|line| self.log.info(line.as_str())),
            Err(failure) => failure.message.lines().for_each(|line| self.log.warn(format!("not reloaded: {line}"))),
        }
        // A keeper that is gone waits for nothing.
        let _ = self.keeper.reloaded();
        reloaded
    }

    /// Reads the configuration and all files that it names again, and reopens the log. Returns what there is to say of it, and what has
    /// changed.
    ///
    /// # Errors
    /// Something is wrong with them, or only a restart can change it: the running configuration stays as it is.
    fn reload(self: &Arc<Self>) -> Result<Vec<String>, Failure> {
        let old = self.config.load_full();
        let Reread { host, log } = self.keeper.reload()?;
        if log.is_some() {
            self.log.replace(&old.log, log).map_err(|error| Failure::of_system(&error))?;
        }
        let host = host?;
        let loaded = config::load(&host, &self.source.path, &self.source.overrides).map_err(Failure::usage)?;
        let remarks = loaded.remarks();
        let mut new = loaded.config;
        let tls = TlsServer::for_config(&new.tls, &host).map_err(Failure::usage)?;
        let read = Read::of(loaded.settings, &new, &host.facts(), &self.source.path);
        let changes = {
            let in_force = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            refuse_fixed(&old, &new, &read.settings.changes(&in_force.settings))?;
            read.changes(&in_force)
        };
        let spf = Self::spf_of(&new)?;
        self.set_dnsbl(&new)?;
        // From here on nothing can fail, and it is in force whatever the keeper says. The keeper goes by it first: sessions ask for mail servers
        // that only the new one names.
        let log = self.keeper.adopt().unwrap_or_else(|failure| {
            self.log.warn(failure.message);
            None
        });
        if new.log != old.log
            && let Err(error) = self.log.replace(&new.log, log)
        {
            self.log.warn(format!("the log stays where it was: {error}"));
        }
        self.hand_on_domains(&mut new);
        self.tls.store(tls.map(Arc::new));
        {
            let mut screen = self.screen();
            screen.set_policy(new.policy.clone());
            screen.keep_found(new.journal.max_size > 0);
        }
        self.journal.limit(new.journal);
        self.pool.configure(&new.forward);
        self.config.store(Arc::new(new));
        self.offer_tls();
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&remarks);
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = read;
        self.feed_everything();
        self.directory.look_anew();
        self.follow_domains(spf);
        let nothing = changes.is_empty().then(|| "nothing has changed".to_owned());
        Ok(remarks.into_iter().chain(changes).chain(nothing).chain(["reloaded".to_owned()]).collect())
    }
}

/// What a running gate can't change.
struct Fixed {
    /// The keys, or their sections.
    keys: &'static [&'static str],
    because: &'static str,
    differs: fn(&Config, &Config) -> bool,
}

const FIXED: [Fixed; 11] = [
    Fixed {
        keys: &["ports"],
        because: "sockets and tables are made for them",
        differs: |old, new| old.ports != new.ports,
    },
    Fixed { keys: &["layout"], because: "it says who owns the port", differs: |old, new| old.layout != new.layout },
    Fixed {
        keys: &["listen"],
        because: "sockets are opened at the start",
        differs: |old, new| old.listen != new.listen,
    },
    Fixed {
        keys: &["metrics.listen"],
        because: "sockets are opened at the start",
        differs: |old, new| old.metrics_listen != new.metrics_listen,
    },
    Fixed {
        keys: &["cache.backend", "cache.retention", "cache.redis"],
        because: "the store is opened at the start",
        differs: |old, new| old.cache != new.cache,
    },
    Fixed {
        keys: &["kernel.mode", "kernel.xdp", "kernel.debug", "kernel.pin_path"],
        because: "programs are loaded, attached and pinned at the start",
        differs: |old, new| {
            let of = |config: &Config| {
                let kernel = &config.kernel;
                (kernel.enabled, kernel.xdp, kernel.debug, kernel.pin_path.clone())
            };
            of(old) != of(new)
        },
    },
    Fixed {
        keys: &["forward.steer"],
        because: "programs that steer are attached at the start",
        differs: |old, new| old.kernel.steer != new.kernel.steer,
    },
    Fixed {
        keys: &["limits.client_prefix"],
        because: "the kernel has counted by it",
        differs: |old, new| old.kernel.enabled && old.policy.limits.client_prefix != new.policy.limits.client_prefix,
    },
    Fixed {
        keys: &["state.directory"],
        because: "the cache file is there",
        differs: |old, new| old.state_directory != new.state_directory,
    },
    Fixed {
        keys: &["control.socket"],
        because: "it is opened at the start",
        differs: |old, new| old.control_socket != new.control_socket,
    },
    Fixed {
        keys: &["user"],
        because: "the screener has become that account",
        differs: |old, new| old.user != new.user,
    },
];

/// Looks whether a running gate can go from `old` to `new`; `changes` are the keys that differ, with what there is to say of them.
fn refuse_fixed(old: &Config, new: &Config, changes: &[(&'static str, String)]) -> Result<(), Failure> {
    let is_of = |key: &str, section: &&str| {
        key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut said = Vec::new();
    for fixed in FIXED.iter().filter(|fixed| (fixed.differs)(old, new)) {
        let of_key = changes.iter().filter(|(key, _)| fixed.keys.iter().any(|section| is_of(key, section)));
        let mut changed: Vec<&str> = of_key.map(|(_, change)| change.as_str()).collect();
        let keys = fixed.keys.join(" or ");
        // A default that has changed, or a file.
        if changed.is_empty() {
            changed.push(&keys);
        }
        said.extend(changed.into_iter().map(|change| format!("{change} ({})", fixed.because)));
    }
    if said.is_empty() {
        return Ok(());
    }
    said.insert(0, "nothing was reloaded, as this needs a restart or mxscreen upgrade:".to_owned());
    Err(Failure::usage(said.join("\n")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Loaded, load_text};

    fn load(text: &str) -> Loaded {
        load_text(text, Path::new("/etc/mxscreen/mxscreen.toml"), &[]).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn refused(text: &str) -> Option<String> {
        let (old, new) =
            (load("hostname = \"mx.example.test\""), load(&format!("hostname = \"mx.example.test\"\n{text}")));
        refuse_fixed(&old.config, &new.config, &new.settings.changes(&old.settings))
            .err()
            .map(|failure| failure.message)
    }

    #[test]
    fn what_needs_a_restart_is_named_with_both_values() {
        for (text, change) in [
            ("ports = [25, 587]", "ports: [25] -> [25, 587]"),
            ("layout = \"front\"\nforward.to = [\"127.0.0.1:26\"]", "layout: \"in-place\" -> \"front\""),
            ("listen = [\"127.0.0.1:2527\"]", "listen: none -> [\"127.0.0.1:2527\"]"),
            ("cache.backend = \"memory\"", "cache.backend: \"embedded\" -> \"memory\""),
            ("cache.redis.host = \"one\"", "cache.redis.host: none -> \"one\""),
            ("kernel.xdp = \"generic\"", "kernel.xdp: \"auto\" -> \"generic\""),
            ("kernel.debug = true", "kernel.debug: false -> true"),
            ("forward.steer = \"off\"", "forward.steer: \"auto\" -> \"off\""),
            ("limits.client_prefix.ipv4 = 24", "limits.client_prefix.ipv4: 32 -> 24"),
            ("state.directory = \"/srv\"", "state.directory: \"/var/lib/mxscreen\" -> \"/srv\""),
            ("control.socket = \"/run/c\"", "control.socket: \"/run/mxscreen/control.sock\" -> \"/run/c\""),
            ("user = \"nobody\"", "user: \"mxscreen\" -> \"nobody\""),
        ] {
            let said = refused(text).unwrap_or_else(|| panic!("{text} was taken"));
            assert!(said.lines().skip(1).any(|line| line.starts_with(change)), "{text}: {said}");
        }
    }

    #[test]
    fn all_else_is_taken() {
        for text in [
            "kernel.interfaces = [\"eth1\"]",
            "kernel.deny_reply = \"drop\"\nkernel.limit_reply = \"drop\"",
            "kernel.on_screener_down = \"pass\"",
            "kernel.remember_failures = \"1m\"\nkernel.repeat_limit = \"1h\"",
            "limits.client_connections = 5",
            "log.target = \"syslog\"\nlog.name = \"postfix/postscreen\"",
            "dry_run = true",
            "tls.sessions = 5",
        ] {
            assert_eq!(refused(text), None, "{text}");
        }
    }

    #[test]
    fn the_documentation_names_what_needs_a_restart() {
        let page = include_str!("../../../docs/operating.md");
        let keys = |keys: &[&str]| keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let table: String =
            FIXED.iter().map(|fixed| format!("| {} | {} |\n", keys(fixed.keys), fixed.because)).collect();
        let head = "| needs a restart | because |\n| --- | --- |\n";
        assert!(page.contains(&format!("{head}{table}\n")), "docs/operating.md should have:\n{head}{table}");
    }
}
