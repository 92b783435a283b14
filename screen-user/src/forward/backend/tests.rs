use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinHandle};

use super::*;
use crate::{
    config::{self, Forward, LogTarget, Mode},
    operate::log::{Log, Target as LogsTo},
};

/// A mail server that takes connections and says nothing.
fn hung() -> (std::net::TcpListener, Backend) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = Backend::At(listener.local_addr().unwrap());
    (listener, backend)
}

/// A mail server that greets its clients like this, and keeps them.
async fn greeting(text: &'static str) -> (JoinHandle<()>, Backend) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = Backend::At(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut clients = Vec::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            client.write_all(text.as_bytes()).await.unwrap();
            clients.push(client);
        }
    });
    (server, backend)
}

fn pool(to: &[&Backend], most_connections: u32) -> Arc<Pool> {
    let forward = Forward {
        mode: Mode::Relay,
        steer_to: None,
        steer_uid: 0,
        to: to.iter().copied().cloned().collect(),
        weights: Vec::new(),
        most_connections,
        client_address: ClientAddress::None,
        replay_to: None,
    };
    let (log, _) = Log::start(LogsTo::open(&config::Log::to(LogTarget::Stderr)).unwrap()).unwrap();
    Arc::new(Pool::new(&forward, log))
}

async fn visit(pool: &Arc<Pool>) -> Result<Opened, OpenError> {
    let endpoints = Endpoints { client: "198.18.1.1:4000".parse().unwrap(), server: "198.18.0.1:25".parse().unwrap() };
    open(pool, &Caller { kernel: None, keeper: &Keeper::gone(), endpoints: &endpoints, tls: None }).await
}

/// Of all servers, in order.
fn shown(pool: &Pool, what: &str) -> Vec<Value> {
    let report = json!(pool.report());
    report["servers"].as_array().unwrap().iter().map(|server| server[what].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_does_not_cost_the_session() {
    let ((_hung, first), (_server, second)) = (hung(), greeting("220 second\r\n").await);
    let pool = pool(&[&first, &second], 0);
    let mut opened = visit(&pool).await.unwrap();
    let mut line = [0; 12];
    opened.stream.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"220 second\r\n", "the whole greeting is left for the client");
    let trouble = format!("took the connection and sent no greeting within {} s", PATIENCE.as_secs());
    assert_eq!(shown(&pool, "trouble"), [json!(trouble), Value::Null]);
    assert_eq!(shown(&pool, "open"), [0, 1]);
    drop(opened);
    assert_eq!(shown(&pool, "open"), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_only_server_has_all_the_time() {
    let (_hung, backend) = hung();
    let pool = pool(&[&backend], 0);
    let error = visit(&pool).await.unwrap_err();
    assert!(error.to_string().ends_with("sent no greeting within 100 s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_time_for_all_servers_together_has_an_end() {
    let servers: Vec<_> = (0..12).map(|_| hung()).collect();
    let pool = pool(&servers.iter().map(|(_, backend)| backend).collect::<Vec<_>>(), 0);
    let start = Instant::now();
    assert!(matches!(visit(&pool).await.unwrap_err(), OpenError::NoAnswer { .. }));
    assert!(start.elapsed() <= CONNECT_LIMIT + GREETING_LIMIT, "{:?}", start.elapsed());
    let tried = shown(&pool, "failures").iter().filter(|failures| **failures == 1).count();
    assert!((2..12).contains(&tried), "{tried} were tried");
    assert!(shown(&pool, "open").iter().all(|open| *open == 0));
}

#[tokio::test(start_paused = true)]
async fn who_gets_no_place_in_time_is_told_so() {
    let (_server, backend) = greeting("220 first\r\n").await;
    let pool = pool(&[&backend], 1);
    let opened = visit(&pool).await.unwrap();
    let start = Instant::now();
    assert!(matches!(visit(&pool).await.unwrap_err(), OpenError::Crowded));
    assert!(start.elapsed() >= GREETING_LIMIT);
    assert_eq!(json!(pool.report())["waiting_for_a_place"], 0);
    // The next one waits, and gets it.
    let (waiting, ()) = tokio::join!(visit(&pool), async { drop(opened) });
    assert_eq!(shown(&pool, "open"), [1]);
    drop(waiting.unwrap());
    assert_eq!(shown(&pool, "open"), [0]);
}

#[tokio::test(start_paused = true)]
async fn the_greeting_of_the_last_one_stands() {
    let ((_one, first), (_two, second)) = (greeting("421 busy\r\n").await, greeting("554 \x1b[2J\r\n").await);
    let pool = pool(&[&first, &second], 0);
    let mut opened = visit(&pool).await.unwrap();
    let mut code = [0; 3];
    opened.stream.read_exact(&mut code).await.unwrap();
    assert_eq!(&code, b"554");
    let told = [
        "took the connection and turned the client away: 421 busy",
        "took the connection and turned the client away: 554 \\x1b[2J",
    ];
    assert_eq!(shown(&pool, "trouble"), told);
}

#[tokio::test]
async fn without_the_keeper_there_is_no_way_to_a_unix_socket() {
    let pool = pool(&[&Backend::Socket("/run/smtpd".into())], 0);
    let error = visit(&pool).await.unwrap_err();
    assert!(
        error.to_string().starts_with("cannot connect to backend /run/smtpd: the keeper does not answer"),
        "{error}"
    );
}
