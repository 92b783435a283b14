//! Handing over, with receivers that do what they should, nothing, or half of it.

use std::{
    io::{IoSliceMut, Read as _, Write as _},
    net::TcpStream as Peer,
    os::unix::net::UnixListener,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::time::Instant;

use super::*;

/// A service with the gate's connection to it, and a client with what the gate has of it.
struct Scene {
    service: PathBuf,
    listener: UnixListener,
    connection: Connection,
    peer: Peer,
    client: TcpStream,
    endpoints: Endpoints,
}

async fn scene() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let service = directory.path().join("smtpd");
    let listener = UnixListener::bind(&service).unwrap();
    let connection = Connection::connect(&service).unwrap();
    connection.set_nonblocking(true).unwrap();
    let gate = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer::connect(gate.local_addr().unwrap()).unwrap();
    let (client, address) = gate.accept().await.unwrap();
    let endpoints = Endpoints { client: address, server: gate.local_addr().unwrap() };
    Scene { service, listener, connection, peer, client, endpoints }
}

/// What Postfix does first: one byte, and the descriptor with it.
fn take_descriptor(connection: &Connection) -> Peer {
    let mut byte = [7];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(connection, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    assert_eq!(byte, [0]);
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.unwrap().into()
}

fn attributes(connection: &mut Connection) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.ends_with(b"\0\0") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        all.extend(byte);
    }
    all
}

/// Hands over while `receive` is at the other end, on a thread of its own.
async fn hand_over_to<T: Send + 'static>(
    scene: Scene,
    receive: impl FnOnce(Connection) -> T + Send + 'static,
) -> (Result<(), NotPassed>, Peer, T) {
    let Scene { service, listener, connection, peer, client, endpoints } = scene;
    let receiver = std::thread::spawn(move || receive(listener.accept().unwrap().0));
    let result = hand_over(connection, &service, client, &endpoints).await;
    (result, peer, receiver.join().unwrap())
}

/// The client hears what is written to a socket that was taken back.
async fn assert_usable(client: Option<TcpStream>, mut peer: Peer) {
    let client = client.expect("the client's socket");
    client.writable().await.unwrap();
    client.try_write(b"421").unwrap();
    drop(client);
    let mut heard = String::new();
    peer.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "421");
}

#[test]
fn the_message_is_laid_out_as_specified() {
    let endpoints =
        |client: &str, server: &str| Endpoints { client: client.parse().unwrap(), server: server.parse().unwrap() };
    let all = message(&endpoints("192.0.2.1:40000", "198.51.100.2:25"));
    assert_eq!(all.len(), 1 + 87);
    let expected =
        b"\0client_address\x00192.0.2.1\0client_port\x0040000\0server_address\x00198.51.100.2\0server_port\x0025\0\0";
    assert_eq!(all.escape_ascii().to_string(), expected.escape_ascii().to_string());
    let all = message(&endpoints("[2001:db8::1]:40000", "[2001:db8::2]:25"));
    assert!(all.starts_with(b"\0client_address\x002001:db8::1\0client_port\0"), "{}", all.escape_ascii());
}

#[tokio::test]
async fn the_receiver_gets_the_live_socket_with_all_that_the_client_has_said() {
    let mut scene = scene().await;
    scene.peer.write_all(b"EHLO early\r\n").unwrap();
    let expected = message(&scene.endpoints);
    let (result, mut peer, (attributes, said)) = hand_over_to(scene, |mut connection| {
        let mut client = take_descriptor(&connection);
        let attributes = attributes(&mut connection);
        drop(connection);
        client.set_nonblocking(false).unwrap();
        let mut said = [0; 12];
        client.read_exact(&mut said).unwrap();
        client.write_all(b"250 mx\r\n").unwrap();
        (attributes, said)
    })
    .await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!((attributes.as_slice(), &said), (&expected[1..], b"EHLO early\r\n"));
    let mut heard = String::new();
    // Up to the end, as the sender has let go of its own copy.
    peer.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "250 mx\r\n");
}

#[tokio::test]
async fn a_receiver_that_answers_has_taken_it() {
    let (result, ..) = hand_over_to(scene().await, |mut connection| {
        let client = take_descriptor(&connection);
        connection.write_all(b"x").unwrap();
        (connection, client)
    })
    .await;
    assert!(result.is_ok(), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_stalls_is_waited_for_100_seconds() {
    let Scene { service, listener, connection, mut peer, client, endpoints } = scene().await;
    let begun = Instant::now();
    let failed = hand_over(connection, &service, client, &endpoints).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 100);
    assert_eq!(failed.error.to_string(), format!("timeout sending connection to service {}", service.display()));
    assert!(failed.client.is_none(), "the receiver may still take it");
    // And so it does.
    let (mut connection, _) = listener.accept().unwrap();
    let mut late = take_descriptor(&connection);
    assert_eq!(attributes(&mut connection), message(&endpoints)[1..]);
    late.write_all(b"220 mx\r\n").unwrap();
    drop(late);
    let mut heard = String::new();
    peer.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "220 mx\r\n");
}

#[tokio::test]
async fn what_waits_in_the_queue_of_a_service_that_ends_is_taken_back() {
    let Scene { service, listener, connection, peer, client, endpoints } = scene().await;
    let handing = tokio::spawn(async move {
        let failed = hand_over(connection, &service, client, &endpoints).await.unwrap_err();
        assert!(matches!(failed.error, PassError::Failed { .. }), "{failed:?}");
        failed.client
    });
    // The message is on its way before the other task waits.
    tokio::task::yield_now().await;
    drop(listener);
    assert_usable(handing.await.unwrap(), peer).await;
}

#[tokio::test]
async fn what_a_receiver_gets_half_of_is_taken_back() {
    let (result, peer, ()) = hand_over_to(scene().await, |connection| drop(take_descriptor(&connection))).await;
    let failed = result.unwrap_err();
    assert!(matches!(failed.error, PassError::Failed { .. }), "{failed:?}");
    assert_usable(failed.client, peer).await;
}

#[tokio::test]
async fn a_socket_that_somebody_has_made_blocking_is_theirs() {
    let (result, ..) = hand_over_to(scene().await, |connection| {
        let client = take_descriptor(&connection);
        client.set_nonblocking(false).unwrap();
        client
    })
    .await;
    let failed = result.unwrap_err();
    assert!(matches!(failed.error, PassError::Failed { .. }) && failed.client.is_none(), "{failed:?}");
}

#[tokio::test]
async fn a_service_that_is_gone_costs_nobody_the_socket() {
    let Scene { service, listener, connection, peer, client, endpoints } = scene().await;
    drop(listener);
    let failed = hand_over(connection, &service, client, &endpoints).await.unwrap_err();
    assert!(matches!(failed.error, PassError::Failed { .. }), "{failed:?}");
    assert_usable(failed.client, peer).await;
}

#[test]
fn no_more_than_the_limit_are_under_way() {
    let passes = Passes::default();
    let first = passes.enter(2);
    let second = passes.enter(2);
    assert!(first.is_some() && second.is_some());
    assert!(passes.enter(2).is_none() && passes.enter(2).is_none());
    assert!(passes.enter(0).is_some());
    drop(first);
    assert!(passes.enter(2).is_some());
}
