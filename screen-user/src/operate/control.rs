//! The control socket: one request a connection, one answer, both a line of JSON.

use std::{
    fs, io,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};

use super::{
    exit::Failure,
    request::{Answer, Request},
};
use crate::gate::{Gate, Phase};

/// The longest request.
const REQUEST_BYTES: u64 = 64 * 1024;
/// How long what follows a request may take to arrive.
const PAYLOAD_LIMIT: Duration = Duration::from_secs(60);
/// How long a request may take to arrive.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Opens the control socket, replacing one that nobody listens on any more.
///
/// # Errors
/// Another gate listens there, or its folder can't be made or written.
pub fn listen(path: &Path) -> io::Result<StdListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(named)?;
    }
    if path.exists() {
        if StdStream::connect(path).is_ok() {
            return Err(named(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another mxscreen answers on this control socket",
            )));
        }
        fs::remove_file(path).map_err(named)?;
    }
    let listener = StdListener::bind(path).map_err(named)?;
    listener.set_nonblocking(true).map_err(named)?;
    // Whoever may write here may let anybody in.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(named)?;
    Ok(listener)
}

/// Answers requests until the gate closes.
///
/// # Errors
/// The listener can't be handed to the runtime.
pub async fn serve(listener: StdListener, gate: Arc<Gate>, mut phase: watch::Receiver<Phase>) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase == Phase::Closing) => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) => {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move {
                    // A client command that went away needs no answer.
                    let _ = answer(stream, &gate).await;
                });
            }
            Err(error) => {
                gate.log().warn(format!("control socket: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, gate: &Arc<Gate>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(REQUEST_BYTES));
    let read = timeout(REQUEST_LIMIT, reader.read_line(&mut line)).await;
    let _counted = gate.count_request();
    let answer = match read {
        Ok(Ok(_)) => match serde_json::from_str::<Request>(&line) {
            Ok(mut request) => {
                if let Some(payload) = request.payload() {
                    reader.get_mut().set_limit(payload.len() as u64);
                    match timeout(PAYLOAD_LIMIT, reader.read_exact(payload)).await {
                        Ok(read) => read?,
                        Err(_) => return Ok(()),
                    };
                }
                gate.handle(request).await.map_or_else(|failure| Answer::refused(&failure), Answer::Done)
            }
            Err(error) => Answer::refused(&Failure::usage(format!("unknown request: {error}"))),
        },
        Ok(Err(error)) => return Err(error),
        Err(_) => return Ok(()),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    writer.write_all(text.as_bytes()).await
}
