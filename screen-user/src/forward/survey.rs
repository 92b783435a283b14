//! What a mail server announces, asked by a short visit.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::{
    config::{Backend, Config, Forward},
    screen::{Extensions, escape},
};

use super::talk::{Talk, TalkError};

/// How long a visit may take, once the mail server has greeted.
const LIMIT: Duration = Duration::from_secs(30);

/// Where to ask: for each mail server that takes clients the addresses that it may have.
#[must_use]
pub fn places(config: &Config) -> Vec<Vec<Backend>> {
    let Forward { weights, .. } = &config.forward;
    let to = config.forward.relayed_to();
    let takes_clients = to.iter().enumerate().filter(|(index, _)| weights.get(*index) != Some(&0));
    takes_clients
        .map(|(_, backend)| match backend {
            Backend::At(_) | Backend::Socket(_) => vec![backend.clone()],
            Backend::Local => {
                let port = config.ports.first().copied().unwrap_or(25);
                let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
                addresses.map(|address| Backend::At(SocketAddr::new(address, port))).to_vec()
            }
        })
        .collect()
}

/// Visits a mail server as the host `name`. The greeting is still to be read.
///
/// # Errors
/// What the mail server did instead of answering, as the end of a sentence.
pub async fn extensions(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), name: &str) -> Result<Extensions, String> {
    match timeout(LIMIT, visit(Talk::new(stream), name)).await {
        Ok(Ok(Ok(extensions))) => Ok(extensions),
        Ok(Ok(Err(refusal))) => Err(format!("said \"{}\"", escape(refusal.trim_ascii_end()))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("did not answer EHLO within {} s", LIMIT.as_secs())),
    }
}

/// The inner error is a refusal, as it came.
async fn visit(
    mut talk: Talk<'_, impl AsyncRead + AsyncWrite + Unpin>,
    name: &str,
) -> Result<Result<Extensions, Vec<u8>>, TalkError> {
    let greeting = talk.reply().await?;
    if greeting.code != 220 {
        return Ok(Err(greeting.bytes));
    }
    talk.say(format!("EHLO {name}").as_bytes()).await?;
    let welcome = talk.reply().await?;
    // Whoever does not know EHLO announces nothing.
    let extensions = if welcome.code == 250 { Extensions::of_reply(&welcome.bytes) } else { Extensions::NONE };
    // What was asked for is there; it may as well just close.
    if talk.say(b"QUIT").await.is_ok() {
        let _ = talk.reply().await;
    }
    Ok(Ok(extensions))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    use super::*;

    async fn of(said: &str) -> Result<Extensions, String> {
        let (mut near, far) = tokio::io::duplex(4096);
        let server = async move {
            let mut far = BufReader::new(far);
            for reply in said.split('|') {
                far.write_all(reply.as_bytes()).await.unwrap();
                far.read_line(&mut String::new()).await.unwrap();
            }
        };
        let visit = async {
            let found = extensions(&mut near, "mx.example.test").await;
            drop(near);
            found
        };
        tokio::join!(visit, server).0
    }

    #[tokio::test]
    async fn what_is_announced_is_found() {
        let found = of("220 mx\r\n|250-mx\r\n250-DSN\r\n250 SIZE 9\r\n|221 bye\r\n").await.unwrap();
        assert!(found.announce("DSN") && found.announce("SIZE") && !found.announce("CHUNKING"));
        assert_eq!(of("220 mx\r\n|502 what?\r\n|221 bye\r\n").await.unwrap(), Extensions::NONE);
        assert_eq!(of("220 mx\r\n|250 mx\r\n").await.unwrap(), Extensions::NONE);
    }

    #[tokio::test]
    async fn who_does_not_answer_is_told_of() {
        assert_eq!(of("421 busy\r\n").await.unwrap_err(), "said \"421 busy\"");
        assert!(of("220 mx\r\n").await.unwrap_err().contains("closed it"));
    }
}
