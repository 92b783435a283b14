//! The gate under measurement, attached to the host's interface.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ipnet::{IpNet, Ipv4Net};
use screen_user::{
    config::{ClientPrefix, KernelReply, Layout, ScreenerDown, Steer, XdpMode},
    kernel::{DenyEntry, Expiry, Installation, Kernel, ListId, Plan},
};

use crate::{
    ground::{HOST, PINS},
    rivals::UPDATED,
    sources::{Kind, prefix},
    traffic::{Frame, RUNS},
};

/// An installation and its tables.
pub(crate) struct Gate {
    // Dropped first: what is attached goes before the tables.
    pub(crate) installation: Installation,
    pub(crate) kernel: Kernel,
}

impl Gate {
    /// Loads it; `attached`: and puts it on the host's interface and the cgroup hooks in their places.
    pub(crate) fn start(reply: KernelReply, limit: u32, attached: bool) -> Result<Self> {
        let plan = Plan {
            ports: vec![25],
            interfaces: vec![HOST.to_owned()],
            xdp: XdpMode::Native,
            layout: Layout::InPlace,
            steer: Steer::Auto,
            steer_to: None,
            steer_uid: 0,
            on_screener_down: ScreenerDown::Pass,
            limit,
            client_prefix: ClientPrefix { ipv4: 32, ipv6: 64 },
            proxies: Vec::new(),
            deny_reply: reply,
            limit_reply: KernelReply::Drop,
            dry_run: false,
            pin_path: Path::new(PINS).join("gate"),
            event_rate: Plan::EVENT_RATE,
            debug: false,
        };
        let installation = Installation::start(&plan).context("can't load the gate")?;
        let kernel = Kernel::open(installation.maps()?, &plan, installation.finds_servers())?;
        kernel.rotate_keys()?;
        if attached {
            installation.activate().context("can't attach the gate")?;
        }
        Ok(Self { installation, kernel })
    }

    /// What it needs for a frame, in nanoseconds, without a network.
    pub(crate) fn time(&self, frame: Frame) -> Result<f64> {
        Ok(self.installation.time_frame(&frame.bytes(), RUNS)?.as_nanos() as f64)
    }

    /// Denies `numbers` of a kind and nothing else; returns how long that took.
    pub(crate) fn deny(&self, kind: Kind, numbers: std::ops::Range<u32>) -> Result<Duration> {
        let nets: Vec<(IpNet, Expiry)> = numbers.map(|number| net(kind, number)).collect::<Result<_>>()?;
        let begin = Instant::now();
        self.kernel.replace_denied(list(kind), nets)?;
        Ok(begin.elapsed())
    }

    /// Replaces one in [`UPDATED`] entry by entry, and back again by giving the whole list; returns how long each took.
    pub(crate) fn update(&self, kind: Kind, count: u32) -> Result<(Duration, Duration)> {
        let changed = count / UPDATED;
        let begin = Instant::now();
        for number in 0..changed {
            let ((old, _), (new, expires)) = (net(kind, number)?, net(kind, count + number)?);
            self.kernel.undeny(old, list(kind))?;
            self.kernel.deny(new, DenyEntry { expires, list: list(kind) })?;
        }
        Ok((begin.elapsed(), self.deny(kind, 0..count)?))
    }
}

fn list(kind: Kind) -> ListId {
    ListId(ListId::IMPORTED.0 + kind as u32)
}

fn net(kind: Kind, number: u32) -> Result<(IpNet, Expiry)> {
    let (network, bits) = prefix(kind, number);
    Ok((Ipv4Net::new(network.into(), bits as u8)?.into(), Expiry::NEVER))
}
