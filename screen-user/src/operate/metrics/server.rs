//! The HTTP half: one request a connection, few connections at once, and no patience with anybody.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::prometheus_text;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::gate::Phase;

/// Connections at once; more wait in the listener's queue.
const CONNECTIONS: usize = 16;
/// How long the head of a request may take to arrive.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may take from its first byte to the last one of its answer.
const CONNECTION_LIMIT: Duration = Duration::from_secs(15);
/// The longest head of a request, which is the least that hyper takes.
const HEAD_BYTES: usize = 8 * 1024;
/// Header fields of a request.
const HEAD_FIELDS: usize = 64;
/// After `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What the text is.
const TEXT: HeaderValue = HeaderValue::from_static(prometheus_text::CONTENT_TYPE);

/// Serves what `collect` gives until the gate closes.
pub(super) async fn serve<F>(
    listener: TcpListener,
    collect: impl Fn() -> F + Clone + Send + Sync + 'static,
    mut phase: watch::Receiver<Phase>,
) where
    F: Future<Output = Option<String>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let accept_all = async {
        // Nobody closes the semaphore.
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let collect = collect.clone();
                    tokio::spawn(async move {
                        // Whoever takes too long, or does not speak HTTP, is left.
                        let _ = timeout(CONNECTION_LIMIT, answer(stream, collect)).await;
                        drop(permit);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = accept_all => {}
        _ = phase.wait_for(|phase| *phase == Phase::Closing) => {}
    }
}

async fn answer<F>(stream: TcpStream, collect: impl Fn() -> F) -> hyper::Result<()>
where
    F: Future<Output = Option<String>>,
{
    let service = service_fn(|request| {
        // Nothing of a body is read.
        let answer = refusal(&request).map_or_else(|| Ok(collect()), Err);
        async move {
            let refusal = match answer {
                Ok(text) => match text.await {
                    Some(text) => return Ok::<_, Infallible>(found(text)),
                    None => StatusCode::SERVICE_UNAVAILABLE,
                },
                Err(refusal) => refusal,
            };
            Ok(refused(refusal))
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Why a request is not answered with the metrics.
fn refusal<B>(request: &Request<B>) -> Option<StatusCode> {
    if request.uri().path() != "/metrics" {
        Some(StatusCode::NOT_FOUND)
    } else if ![Method::GET, Method::HEAD].contains(request.method()) {
        Some(StatusCode::METHOD_NOT_ALLOWED)
    } else {
        None
    }
}

fn found(text: String) -> Response<String> {
    let mut response = Response::new(text);
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

fn refused(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const METRICS: &str = "mxscreen_up 1\n";

    /// A server with one metric, and the gate's phase.
    async fn server() -> (SocketAddr, watch::Sender<Phase>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let phase = watch::Sender::new(Phase::Running);
        let text = || async { Some(METRICS.to_owned()) };
        tokio::spawn(serve(listener, text, phase.subscribe()));
        (address, phase)
    }

    /// Everything that the server says to `request` until it closes.
    async fn said(server: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut said = Vec::new();
        // A reset after the answer is as good as an end.
        let _ = stream.read_to_end(&mut said).await;
        String::from_utf8(said).unwrap()
    }

    #[tokio::test]
    async fn metrics_are_at_one_place_for_those_who_read() {
        let (server, _phase) = server().await;
        for (request, status, body) in [
            ("GET /metrics HTTP/1.1", "200", METRICS),
            ("GET /metrics?a=b HTTP/1.1", "200", METRICS),
            ("HEAD /metrics HTTP/1.1", "200", ""),
            ("POST /metrics HTTP/1.1", "405", ""),
            ("GET / HTTP/1.1", "404", ""),
            ("GET /metrics/ HTTP/1.1", "404", ""),
            ("POST /other HTTP/1.1", "404", ""),
            ("GET /metrics HTTP/1.0", "200", METRICS),
        ] {
            let answer = said(server, format!("{request}\r\nHost: gate\r\n\r\n").as_bytes()).await;
            let (head, sent) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!((head.split(' ').nth(1), sent), (Some(status), body), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn garbage_is_refused_and_others_are_served_after_it() {
        let (server, _phase) = server().await;
        let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 2 * HEAD_BYTES], b"\r\n\r\n"].concat();
        for garbage in [b"\0\xff\r\n\r\n".as_slice(), b"EHLO mx.example\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n", &long] {
            assert!(!said(server, garbage).await.starts_with("HTTP/1.1 200"));
        }
        assert!(said(server, b"GET /metrics HTTP/1.1\r\nHost: gate\r\n\r\n").await.ends_with(METRICS));
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_left_in_time_for_those_who_wait() {
        let (server, _phase) = server().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(server).await.unwrap());
        }
        // There is no room for it before the silent ones are left.
        assert!(said(server, b"GET /metrics HTTP/1.1\r\nHost: gate\r\n\r\n").await.ends_with(METRICS));
    }

    #[tokio::test]
    async fn a_gate_that_closes_takes_no_more() {
        let (server, phase) = server().await;
        phase.send_replace(Phase::Closing);
        // Whoever still gets into the queue is reset with it.
        while TcpStream::connect(server).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
