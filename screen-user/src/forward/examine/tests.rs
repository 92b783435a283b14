use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use super::*;

/// A mail server that takes no header, or one that waits for a header of one version.
#[derive(Debug, Clone, Copy)]
struct Server {
    wants: Option<Manner>,
    /// What it says to a recipient elsewhere.
    recipient: &'static str,
}

/// Connects to it.
struct Here(SocketAddr);

impl Door for Here {
    async fn open(&self, _: &Backend, _: &Endpoints) -> Result<(Stream, Option<RelayGuard>), String> {
        let connected = TcpStream::connect(self.0).await;
        connected.map(|stream| (Stream::Tcp(stream), None)).map_err(|error| error.to_string())
    }
}

impl Server {
    /// One session; an error where the client did not do what it should, or left.
    async fn serve(self, mut stream: TcpStream) -> std::io::Result<()> {
        let header = match self.wants {
            None => 0,
            Some(Manner::ProxyV2) => 28,
            Some(_) => "PROXY TCP4 192.0.2.1 127.0.0.1 25025 ".len(),
        };
        let mut beginning = vec![0; header];
        stream.read_exact(&mut beginning).await?;
        let text = String::from_utf8_lossy(&beginning).into_owned();
        let mut stream = BufReader::new(stream);
        match self.wants {
            Some(Manner::ProxyV2) if beginning.get(12) != Some(&0x21) => return Ok(()),
            Some(Manner::ProxyV1) if text != "PROXY TCP4 192.0.2.1 127.0.0.1 25025 " => return Ok(()),
            Some(Manner::ProxyV1) => drop(stream.read_line(&mut String::new()).await?),
            _ => {}
        }
        stream.write_all(b"220 mx.example.test\r\n").await?;
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).await? > 0 {
            let reply = match line.get(..4) {
                Some(b"EHLO") => "250-mx.example.test Hello mxscreen-doctor.invalid [192.0.2.1]\r\n250 SIZE",
                Some(b"MAIL" | b"RSET") => "250 ok",
                Some(b"RCPT") => self.recipient,
                Some(b"QUIT") => "221 bye",
                _ => "500 what?",
            };
            stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
            line.clear();
        }
        Ok(())
    }

    async fn examined(self, manner: Manner) -> Examined {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.serve(stream));
            }
        });
        let examined = examine(&Backend::At(address), manner, &Here(address)).await;
        serving.abort();
        examined
    }
}

const REFUSED: &str = "454 4.7.1 relay access denied";

fn tried(examined: &Examined) -> Vec<Manner> {
    examined.visits.iter().map(|(manner, _)| *manner).collect()
}

#[tokio::test]
async fn who_takes_no_header_is_found_at_once() {
    for manner in [Manner::Bare, Manner::ProxyV2] {
        let examined = Server { wants: None, recipient: REFUSED }.examined(manner).await;
        assert_eq!(tried(&examined), [Manner::Bare]);
        let served = examined.served(Manner::Bare).unwrap();
        assert_eq!(served.sees, Some(STRANGER_V4));
        assert_eq!(served.relaying, Relaying::Refused(REFUSED.to_owned()));
        assert_eq!(examined.from, Some(Ipv4Addr::LOCALHOST.into()));
    }
}

#[tokio::test]
async fn who_waits_for_a_header_is_found_by_the_one_that_it_takes() {
    for wants in [Manner::ProxyV2, Manner::ProxyV1] {
        let examined = Server { wants: Some(wants), recipient: "250 ok" }.examined(Manner::ProxyV2).await;
        assert_eq!(examined.met(Manner::Bare), Some(&Met::Silent));
        assert_eq!(examined.served(wants).unwrap().relaying, Relaying::Accepted, "{examined:?}");
        assert_eq!(tried(&examined).last(), Some(&wants));
    }
}

#[tokio::test]
async fn nobody_there_is_no_reason_to_go_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let examined = examine(&Backend::At(address), Manner::ProxyV2, &Here(address)).await;
    assert!(matches!(examined.visits.as_slice(), [(Manner::Bare, Met::Unreachable(_))]), "{examined:?}");
}

async fn met(manner: Manner, replies: &str) -> Met {
    let (mut near, far) = tokio::io::duplex(4096);
    let ends = Endpoints { client: "192.0.2.1:4000".parse().unwrap(), server: "192.0.2.2:25".parse().unwrap() };
    let server = async move {
        let mut far = BufReader::new(far);
        for reply in replies.split('|') {
            // Who has heard enough leaves.
            if far.write_all(reply.as_bytes()).await.is_err() {
                break;
            }
            far.read_until(b'\n', &mut Vec::new()).await.unwrap();
        }
    };
    let visit = async {
        let met = visit(&mut near, manner, &ends, SILENCE).await;
        drop(near);
        met
    };
    tokio::join!(visit, server).0
}

#[tokio::test]
async fn each_answer_has_its_meaning() {
    let relaying = async |recipient: &str| {
        let replies = format!("220 mx\r\n|250 mx\r\n|250 ok\r\n|{recipient}\r\n|250 ok\r\n|221 bye\r\n");
        match met(Manner::Bare, &replies).await {
            Met::Served(served) => served.relaying,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(relaying("250 ok").await, Relaying::Accepted);
    assert_eq!(relaying("251 forwarded").await, Relaying::Accepted);
    for refusal in ["550 no", "454 4.7.1 not now", "550-no\r\n550 never"] {
        assert!(matches!(relaying(refusal).await, Relaying::Refused(_)), "{refusal}");
    }
    for otherwise in ["550 5.1.2 no such domain", "450 4.1.2 no such domain", "421 bye", "354 go on", "nonsense"] {
        assert!(matches!(relaying(otherwise).await, Relaying::Untold(_)), "{otherwise}");
    }
    assert_eq!(met(Manner::Bare, "554 go away\r\n").await, Met::Turned("554 go away".to_owned()));
    assert!(matches!(met(Manner::Bare, "hello\r\n").await, Met::Failed(_)));
    let no_ehlo = "220 mx\r\n|500 what?\r\n";
    assert!(matches!(met(Manner::Bare, no_ehlo).await, Met::Served(_)), "it greets");
    assert!(matches!(met(Manner::ProxyV1, no_ehlo).await, Met::Failed(_)), "that was for the header");
    assert!(matches!(met(Manner::Bare, "220 mx\r\n250 early\r\n").await, Met::Served(_)));
}

#[test]
fn mail_servers_say_whom_they_see() {
    for (welcome, sees) in [
        ("250-mx Hello name [192.0.2.1]\r\n250 [192.0.2.7]\r\n", Some("192.0.2.1")),
        ("250-mx Hello [192.0.2.1] [127.0.0.1], pleased to meet you\r\n", Some("127.0.0.1")),
        ("250-mx Hello name [IPv6:2001:db8::1]\r\n", Some("2001:db8::1")),
        ("250-mx Hello name [2001:db8::1]\r\n", Some("2001:db8::1")),
        ("250-mx\r\n250 SIZE\r\n", None),
        ("250 mx [nobody]\r\n", None),
        ("250 mx [\r\n", None),
        ("", None),
    ] {
        assert_eq!(seen(welcome.as_bytes()), sees.map(|sees| sees.parse().unwrap()), "{welcome:?}");
    }
    assert_eq!(seen(b"\xff[192.0.2.1]\r\n"), None);
}
