//! SMTP as a client of the mail server speaks it: one command, one reply (RFC 5321 section 4.2).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Most bytes of one reply. RFC 5321 section 4.5.3.1.5 has 512 a line; replies to EHLO have some 20 lines.
const LONGEST: usize = 16 * 1024;

/// A conversation with a mail server, which has the first word.
#[derive(Debug)]
pub(super) struct Talk<'a, S> {
    stream: &'a mut S,
    /// What came and was not asked for yet.
    heard: Vec<u8>,
}

/// One reply, all lines of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// The code of its last line.
    pub(super) code: u16,
    /// As it came, line ends and all.
    pub(super) bytes: Vec<u8>,
}

impl Reply {
    /// Whether it is a refusal, now or for good.
    pub(super) const fn refuses(&self) -> bool {
        matches!(self.code, 400..600)
    }
}

/// What can go wrong, as the end of the sentence "the mail server took the connection and".
#[derive(Debug, thiserror::Error)]
pub(super) enum TalkError {
    /// The system's word for it.
    #[error("failed: {0}")]
    Failed(#[from] io::Error),
    /// It closed.
    #[error("closed it instead of answering")]
    Closed,
    /// It does not speak SMTP.
    #[error("sent what is no SMTP reply")]
    Nonsense,
    /// It does not come to an end.
    #[error("sent a reply of more than {LONGEST} bytes")]
    TooLong,
    /// It says more than it was asked.
    #[error("answered before it was asked")]
    OutOfTurn,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Talk<'a, S> {
    pub(super) const fn new(stream: &'a mut S) -> Self {
        Self { stream, heard: Vec::new() }
    }

    /// Says a command, without its line end, when everything that came was asked for.
    pub(super) async fn say(&mut self, command: &[u8]) -> Result<(), TalkError> {
        if !self.heard.is_empty() {
            return Err(TalkError::OutOfTurn);
        }
        self.stream.write_all(&[command, b"\r\n"].concat()).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Waits for a reply.
    pub(super) async fn reply(&mut self) -> Result<Reply, TalkError> {
        loop {
            if let Some((code, length)) = complete(&self.heard)? {
                let rest = self.heard.split_off(length);
                return Ok(Reply { code, bytes: std::mem::replace(&mut self.heard, rest) });
            }
            if self.heard.len() > LONGEST {
                return Err(TalkError::TooLong);
            }
            if self.stream.read_buf(&mut self.heard).await? == 0 {
                return Err(TalkError::Closed);
            }
        }
    }

    /// What came behind the last reply.
    pub(super) fn rest(self) -> Vec<u8> {
        self.heard
    }
}

/// The code and the length of the reply that `heard` begins with, if all of it has come.
fn complete(heard: &[u8]) -> Result<Option<(u16, usize)>, TalkError> {
    let mut length = 0;
    for line in heard.split_inclusive(|&byte| byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else { break };
        length += line.len();
        let (code, after) = text.split_at_checked(3).ok_or(TalkError::Nonsense)?;
        let code = match code {
            [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
                code.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
            }
            _ => return Err(TalkError::Nonsense),
        };
        match after.first() {
            Some(b'-') => {}
            None | Some(b' ' | b'\r') => return Ok(Some((code, length))),
            Some(_) => return Err(TalkError::Nonsense),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    #[test]
    fn replies_are_known_by_their_last_line() {
        for (heard, found) in [
            ("220 mx\r\n", Some((220, 8))),
            ("220-one\r\n220 two\r\n250 more\r\n", Some((220, 18))),
            ("250\r\n", Some((250, 5))),
            ("250\n", Some((250, 4))),
            ("550-no\r\n451 rather later\r\n", Some((451, 26))),
            ("250-mx\r\n250", None),
            ("250 mx\r", None),
            ("", None),
        ] {
            assert_eq!(complete(heard.as_bytes()).unwrap(), found, "{heard:?}");
        }
        for heard in ["hello\r\n", "25\r\n", "\r\n", "650 x\r\n", "150 x\r\n", "250x\r\n", "250-mx\r\nnonsense\r\n"] {
            assert!(matches!(complete(heard.as_bytes()), Err(TalkError::Nonsense)), "{heard:?}");
        }
    }

    #[tokio::test]
    async fn one_command_one_reply() {
        let (mut near, mut far) = tokio::io::duplex(4);
        let server = tokio::spawn(async move {
            far.write_all(b"220 mx\r\n").await.unwrap();
            let mut command = [0; 6];
            far.read_exact(&mut command).await.unwrap();
            assert_eq!(&command, b"NOOP\r\n");
            far.write_all(b"250 ok\r\n421 bye\r\n").await.unwrap();
        });
        let mut talk = Talk::new(&mut near);
        assert_eq!(talk.reply().await.unwrap().code, 220);
        talk.say(b"NOOP").await.unwrap();
        assert_eq!(talk.reply().await.unwrap(), Reply { code: 250, bytes: b"250 ok\r\n".to_vec() });
        assert_eq!(talk.reply().await.unwrap().code, 421);
        assert!(matches!(talk.reply().await, Err(TalkError::Closed)));
        server.await.unwrap();
    }

    #[tokio::test]
    async fn who_answers_unasked_is_not_spoken_to() {
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(b"220 mx\r\n250 early\r\n").await.unwrap();
        let mut talk = Talk::new(&mut near);
        talk.reply().await.unwrap();
        assert!(matches!(talk.say(b"NOOP").await, Err(TalkError::OutOfTurn)));
    }

    #[tokio::test]
    async fn a_reply_without_an_end_is_given_up() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let server = tokio::spawn(async move { while far.write_all(b"250-and\r\n").await.is_ok() {} });
        let mut talk = Talk::new(&mut near);
        assert!(matches!(talk.reply().await, Err(TalkError::TooLong)));
        drop(near);
        server.await.unwrap();
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(heard in any::<Vec<u8>>()) {
            if let Ok(Some((code, length))) = complete(&heard) {
                prop_assert!((200..600).contains(&code) && length <= heard.len());
            }
        }
    }
}
