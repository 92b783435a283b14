//! What Prometheus finds at `/metrics`: one file for each subject, all written from the [`Measures`] of one moment. `docs/metrics.md`
//! says what each metric means.

mod backends;
mod dnsbl;
mod family;
mod kernel;
mod learnt;
mod process;
mod redis;
mod server;
mod sessions;

use std::{fmt, io, net::TcpListener, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, prometheus_text},
    registry::Registry,
};
use tokio::sync::{Semaphore, watch};

use self::family::Families;
use crate::gate::{Gate, Measures, Phase};

/// Serves the metrics of `gate` by all `listeners` until it closes, in tasks of the current runtime.
///
/// # Errors
/// A listener can't be handed to the runtime.
pub fn serve(listeners: Vec<TcpListener>, gate: &Arc<Gate>, phase: &watch::Receiver<Phase>) -> io::Result<()> {
    // Measures are taken by one at a time: whoever waits for a busy keeper holds up a thread.
    let turn = Arc::new(Semaphore::new(1));
    for listener in listeners {
        let (gate, turn) = (Arc::clone(gate), Arc::clone(&turn));
        let collect = move || text_of(Arc::clone(&gate), Arc::clone(&turn));
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(server::serve(listener, collect, phase.clone()));
    }
    Ok(())
}

/// The metrics as they are now; `None` where the gate ends.
async fn text_of(gate: Arc<Gate>, turn: Arc<Semaphore>) -> Option<String> {
    let permit = turn.acquire_owned().await.ok()?;
    let taken = tokio::task::spawn_blocking(move || {
        let measures = gate.measures();
        drop(permit);
        text(measures)
    });
    taken.await.ok()?.ok()
}

fn text(measures: Measures) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("mxscreen");
    registry.register_collector(Box::new(Page(measures)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Everything that there is to say. A family is there whether it has samples or not.
#[derive(Debug)]
struct Page(Measures);

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        let Self(measures) = self;
        process::write(&mut families, measures)?;
        sessions::write(&mut families, measures)?;
        backends::write(&mut families, measures)?;
        dnsbl::write(&mut families, &measures.zones)?;
        learnt::write(&mut families, measures)?;
        redis::write(&mut families, measures.redis.as_ref())?;
        kernel::write(&mut families, measures.kernel.as_ref())
    }
}
