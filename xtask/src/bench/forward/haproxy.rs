//! Debian's HAProxy in TCP mode, at the gate's place before the mail server.

use std::{
    fs::{self, File},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    bench::{
        ground::{self, SERVER},
        postscreen::BACKEND,
        usage,
    },
    process::{self, Guarded},
};

/// How it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tuning {
    /// As it comes.
    Plain,
    /// It may leave bytes in the kernel.
    SpliceAuto,
    /// Its buffers are as large as the gate's.
    LargeBuffers,
}

/// The running proxy.
pub(super) struct Haproxy(Guarded);

impl Haproxy {
    /// Starts it with its files in `folder`, with as many threads as the gate has workers, before whatever listens at [`BACKEND`].
    pub(super) fn start(tuning: Tuning, folder: &Path) -> Result<Self> {
        let config = folder.join("haproxy.cfg");
        fs::write(&config, settings(tuning)).with_context(|| format!("can't write {}", config.display()))?;
        let said = File::create(folder.join("output")).context("can't make a file for HAProxy's output")?;
        let mut command = ground::server(process::find("haproxy").context("HAProxy is missing")?);
        command.arg("-db").arg("-f").arg(&config).stdin(Stdio::null());
        command.stdout(said.try_clone().context("can't share HAProxy's output")?).stderr(said);
        let mut proxy = Self(Guarded(command.spawn().context("can't start HAProxy")?));
        let begin = Instant::now();
        let answers = || ground::as_client(|| Ok(TcpStream::connect_timeout(&SERVER, Duration::from_secs(1)).is_ok()));
        while !answers()? {
            if proxy.0.0.try_wait().context("lost HAProxy")?.is_some() || begin.elapsed() > Duration::from_secs(20) {
                bail!("HAProxy did not start:\n{}", fs::read_to_string(folder.join("output")).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(proxy)
    }

    /// CPU time so far.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        usage::cpu_time(self.0.0.id())
    }
}

fn settings(tuning: Tuning) -> String {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (global, defaults) = match tuning {
        Tuning::Plain => ("", ""),
        Tuning::SpliceAuto => ("", "option splice-auto"),
        Tuning::LargeBuffers => ("tune.bufsize 65536", ""),
    };
    format!(
        "global\n\
         nbthread {threads}\n\
         maxconn 1000\n\
         {global}\n\
         defaults\n\
         mode tcp\n\
         timeout connect 5s\n\
         timeout client 60s\n\
         timeout server 60s\n\
         {defaults}\n\
         frontend mx\n\
         bind {SERVER}\n\
         default_backend servers\n\
         backend servers\n\
         server mail {BACKEND}\n"
    )
}

/// Its name and version, as it gives them.
pub(super) fn version() -> Result<String> {
    let said = process::output(Command::new(process::find("haproxy").context("HAProxy is missing")?).arg("-v"))?;
    Ok(said.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}
