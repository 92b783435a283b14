//! The mail server is told what a client has said so far, and gives the answer that the client waits for.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::screen::{
    escape,
    event::{Endpoints, Envelope},
};

use super::{
    talk::{Reply, Talk, TalkError},
    xclient,
};

/// How long a mail server may take in all, once it has greeted. A client waits five minutes for the answer to its RCPT (RFC 5321 section
/// 4.5.3.2.3), and has waited for the greeting already.
const LIMIT: Duration = Duration::from_secs(80);

/// What the client is to hear.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer to its RCPT, and whatever came behind it.
    pub bytes: Vec<u8>,
    /// What there is to log, where the mail server did not want it as far as RCPT, or not now.
    pub refusal: Option<String>,
}

/// Greets for the client, gives its sender and its recipient, and returns the answer to that. A mail server that refuses an earlier step
/// has given its answer: the client gets it for its recipient, and may talk on.
///
/// The greeting is still to be read. `introduce`: whom the client is to be introduced as, where the mail server offers that.
///
/// # Errors
/// What the mail server did instead of answering, as the end of a sentence.
pub async fn replay(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    envelope: &Envelope,
    introduce: Option<&Endpoints>,
) -> Result<Answer, String> {
    match timeout(LIMIT, say_again(Talk::new(stream), envelope, introduce)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("did not answer within {} s what its client has said", LIMIT.as_secs())),
    }
}

async fn say_again(
    mut talk: Talk<'_, impl AsyncRead + AsyncWrite + Unpin>,
    envelope: &Envelope,
    introduce: Option<&Endpoints>,
) -> Result<Answer, TalkError> {
    let greeting = talk.reply().await?;
    if greeting.code != 220 {
        return refused(talk, greeting, "the greeting", envelope);
    }
    if let Some(hello) = &envelope.hello {
        talk.say(hello).await?;
        let mut welcome = talk.reply().await?;
        if let Some(command) = introduce.and_then(|client| xclient::command(&welcome.bytes, client)) {
            talk.say(&command).await?;
            // Whoever refuses it goes on as before.
            if talk.reply().await?.code == 220 {
                talk.say(hello).await?;
                welcome = talk.reply().await?;
            }
        }
        if welcome.code != 250 {
            return refused(talk, welcome, "HELO", envelope);
        }
    }
    if let Some(mail) = &envelope.mail {
        talk.say(mail).await?;
        let sender = talk.reply().await?;
        if sender.code != 250 {
            return refused(talk, sender, "MAIL", envelope);
        }
    }
    let Some(rcpt) = &envelope.rcpt else {
        // What the client waits for is the answer to what comes behind.
        return Ok(Answer { bytes: talk.rest(), refusal: None });
    };
    talk.say(rcpt).await?;
    let recipient = talk.reply().await?;
    Ok(answer(talk, recipient, "RCPT"))
}

/// Takes a refusal of an earlier step for the answer to the RCPT. Where there is none, the client has heard that all is well so far, and
/// what it says next is answered by itself: all that it must hear of the refusal is that the mail server goes.
fn refused<S: AsyncRead + AsyncWrite + Unpin>(
    talk: Talk<'_, S>,
    reply: Reply,
    to: &'static str,
    envelope: &Envelope,
) -> Result<Answer, TalkError> {
    // Only a refusal can be passed on as the answer to something else.
    if !reply.refuses() {
        return Err(TalkError::Nonsense);
    }
    let is_answer = envelope.rcpt.is_some() || reply.code == 421;
    let mut answer = answer(talk, reply, to);
    if !is_answer {
        answer.bytes.clear();
    }
    Ok(answer)
}

/// Takes a reply, and what came behind it, for the client's.
fn answer<S: AsyncRead + AsyncWrite + Unpin>(talk: Talk<'_, S>, reply: Reply, to: &'static str) -> Answer {
    let refusal = (to != "RCPT" || (400..500).contains(&reply.code)).then(|| {
        let text = reply.bytes.trim_ascii_end();
        format!("answered {to} with \"{}\"", escape(text))
    });
    let mut bytes = reply.bytes;
    bytes.extend(talk.rest());
    Answer { bytes, refusal }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop, prop_assert_eq, proptest};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    fn envelope() -> Envelope {
        let line = |text: &str| text.as_bytes().into();
        Envelope {
            hello: Some(line("EHLO client.example.test")),
            mail: Some(line("MAIL FROM:<s@x> BODY=8BITMIME")),
            rcpt: Some(line("RCPT TO:<r@y> NOTIFY=NEVER")),
            behind: Box::default(),
        }
    }

    fn client() -> Endpoints {
        Endpoints { client: "192.0.2.9:4001".parse().unwrap(), server: "192.0.2.25:25".parse().unwrap() }
    }

    /// Says the greeting, then one answer to each line; what is sent in pieces of `piece` bytes. Returns what it has heard.
    async fn server(mut stream: DuplexStream, replies: &[&str], piece: usize) -> String {
        let mut heard = String::new();
        for reply in replies {
            for piece in reply.as_bytes().chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut byte = [0];
            while stream.read(&mut byte).await.unwrap() == 1 {
                heard.push(char::from(byte[0]));
                if byte[0] == b'\n' {
                    break;
                }
            }
        }
        heard
    }

    async fn meet(replies: &[&str], piece: usize, introduce: Option<&Endpoints>) -> (Result<Answer, String>, String) {
        let (mut near, far) = tokio::io::duplex(4096);
        let envelope = envelope();
        let gate = async {
            let answer = replay(&mut near, &envelope, introduce).await;
            drop(near);
            answer
        };
        tokio::join!(gate, server(far, replies, piece))
    }

    const EHLO: &str = "EHLO client.example.test\r\n";
    const MAIL: &str = "MAIL FROM:<s@x> BODY=8BITMIME\r\n";
    const RCPT: &str = "RCPT TO:<r@y> NOTIFY=NEVER\r\n";
    const XCLIENT: &str = "250-mx\r\n250 XCLIENT NAME ADDR PORT\r\n";

    #[tokio::test]
    async fn the_mail_server_hears_everything_in_order() {
        let replies = ["220-one\r\n220 two\r\n", "250-mx\r\n250 DSN\r\n", "250 ok\r\n", "250 2.1.5 r\r\n"];
        let (answer, heard) = meet(&replies, 64, None).await;
        assert_eq!(answer.unwrap(), Answer { bytes: b"250 2.1.5 r\r\n".to_vec(), refusal: None });
        assert_eq!(heard, [EHLO, MAIL, RCPT].concat());
    }

    #[tokio::test]
    async fn a_refusal_of_any_step_is_the_answer() {
        const OK: [&str; 3] = ["220 mx\r\n", "250 mx\r\n", "250 ok\r\n"];
        for (step, name) in ["the greeting", "HELO", "MAIL", "RCPT"].into_iter().enumerate() {
            for code in ["421", "450", "550"] {
                let refusal = format!("{code}-no\r\n{code} no \x07\r\n");
                let replies = [&OK[..step], &[refusal.as_str()]].concat();
                let (answer, heard) = meet(&replies, 64, None).await;
                let answer = answer.unwrap();
                assert_eq!(answer.bytes, refusal.as_bytes(), "{name}");
                assert_eq!(heard, [EHLO, MAIL, RCPT][..step].concat(), "{name}");
                let logged = (name != "RCPT" || code != "550")
                    .then(|| format!("answered {name} with \"{code}-no\\r\\n{code} no \\a\""));
                assert_eq!(answer.refusal, logged);
            }
        }
    }

    #[tokio::test]
    async fn what_comes_behind_the_answer_is_the_clients_too() {
        let replies = ["220 mx\r\n", "250 mx\r\n", "250 ok\r\n", "250 r\r\n421 4.3.2 going down\r\n"];
        let (answer, _) = meet(&replies, 64, None).await;
        assert_eq!(answer.unwrap().bytes, replies[3].as_bytes());
    }

    #[tokio::test]
    async fn who_does_not_answer_properly_has_failed() {
        for (replies, what) in [
            (&["220 mx\r\n250 mx\r\n"][..], "answered before it was asked"),
            (&["250 mx\r\n"], "no SMTP reply"),
            (&["220 mx\r\n", "220 mx\r\n"], "no SMTP reply"),
            (&["220 mx\r\n", "250 mx\r\n", "354 go on\r\n"], "no SMTP reply"),
            (&["SSH-2.0-x\r\n"], "no SMTP reply"),
            (&["220 mx\r\n", "250 mx\r\n"], "closed it instead of answering"),
            (&[], "closed it instead of answering"),
        ] {
            let (answer, _) = meet(replies, 64, None).await;
            let error = answer.unwrap_err();
            assert!(error.contains(what), "{replies:?}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_answers_is_given_up() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        far.write_all(b"220 mx\r\n250-mx\r\n").await.unwrap();
        let error = replay(&mut near, &Envelope { hello: None, ..envelope() }, None).await.unwrap_err();
        assert!(error.contains("before it was asked"), "{error}");
        let (mut near, mut far) = tokio::io::duplex(4096);
        far.write_all(b"220 mx\r\n").await.unwrap();
        let error = replay(&mut near, &envelope(), None).await.unwrap_err();
        assert!(error.contains("did not answer within 80 s"), "{error}");
    }

    #[tokio::test]
    async fn the_client_is_introduced_where_that_is_offered() {
        let greeted = ["220 mx\r\n", XCLIENT, "220 again\r\n", "250 mx\r\n", "250 ok\r\n", "250 r\r\n"];
        let (answer, heard) = meet(&greeted, 64, Some(&client())).await;
        assert_eq!(answer.unwrap().bytes, b"250 r\r\n");
        assert_eq!(heard, [EHLO, "XCLIENT ADDR=192.0.2.9 PORT=4001\r\n", EHLO, MAIL, RCPT].concat());

        let refused = ["220 mx\r\n", XCLIENT, "550 not you\r\n", "250 ok\r\n", "250 r\r\n"];
        let (answer, heard) = meet(&refused, 64, Some(&client())).await;
        assert_eq!(answer.unwrap().bytes, b"250 r\r\n");
        assert_eq!(heard, [EHLO, "XCLIENT ADDR=192.0.2.9 PORT=4001\r\n", MAIL, RCPT].concat());

        let replies = ["220 mx\r\n", XCLIENT, "250 ok\r\n", "250 r\r\n"];
        let (answer, heard) = meet(&replies, 64, None).await;
        assert_eq!(answer.unwrap().bytes, b"250 r\r\n");
        assert_eq!(heard, [EHLO, MAIL, RCPT].concat(), "whom it knows already is not introduced");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pieces_do_not_matter(piece in 1usize..40, codes in prop::array::uniform4(0usize..6)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let reply = |step: usize, code: usize| match code {
                0 => "550 5.7.1 no\r\n".to_owned(),
                1 => "451-later\r\n451 really\r\n".to_owned(),
                _ => ["220 mx\r\n", "250-mx\r\n250 DSN\r\n", "250 ok\r\n", "250 r\r\n"][step].to_owned(),
            };
            let mut replies: Vec<String> = codes.iter().enumerate().map(|(step, code)| reply(step, *code)).collect();
            let last = codes.iter().position(|code| *code < 2).unwrap_or(3);
            replies.truncate(last + 1);
            let texts: Vec<&str> = replies.iter().map(String::as_str).collect();
            let (answer, heard) = runtime.block_on(meet(&texts, piece, None));
            prop_assert_eq!(answer.unwrap().bytes, texts[last].as_bytes());
            prop_assert_eq!(heard, [EHLO, MAIL, RCPT][..last].concat());
        }
    }
}
