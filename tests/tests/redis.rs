//! Redis as the tests have it, without a gate: what the stories of shared knowledge stand on.

use std::{io, net::TcpStream, time::Duration};

use screen_tests::{
    backplane::{ADDRESSES, Backplane},
    certificate::Authority,
    net::Net,
    netns::run,
    privilege::has_redis,
    redis::{Cluster, PORT, Redis, Reply, Sentinels, encrypted, guarded},
};

fn redis_cli(net: &Net, words: &[&str]) -> String {
    let enter = ["netns", "exec", net.edge.name(), "redis-cli", "-h", "192.0.2.5"];
    run("ip", enter.iter().chain(words))
}

#[test]
fn a_server_comes_back_with_what_it_kept() {
    let Some(net) = Net::new().filter(|_| has_redis()) else { return };
    let backplane = Backplane::behind([&net]);
    let mut kept = Redis::start(&backplane, PORT, &["appendonly yes"]);
    let mut lost = Redis::start(&backplane, PORT + 1, &[]);
    for (server, then) in [(&mut kept, Reply::Text("value".into())), (&mut lost, Reply::Nothing)] {
        server.ask(&["SET", "key", "value"]);
        assert_eq!(server.keys("k"), ["key"]);
        server.kill();
        assert!(server.try_ask(&["GET", "key"]).is_err());
        server.restart(&backplane);
        assert_eq!(server.ask(&["GET", "key"]), then);
    }
}

#[test]
fn a_server_can_be_full_or_read_only_and_is_not_changed_by_it() {
    let Some(net) = Net::new().filter(|_| has_redis()) else { return };
    let backplane = Backplane::behind([&net]);
    let redis = Redis::start(&backplane, PORT, &[]);
    redis.ask(&["SET", "key", "value"]);
    let refused = |kind: &str| {
        let reply = redis.try_ask(&["SET", "key", "other"]).unwrap();
        assert!(matches!(&reply, Reply::Error(error) if error.starts_with(kind)), "{reply:?}");
        assert_eq!(redis.ask(&["GET", "key"]).text(), "value");
    };
    redis.set_full(true);
    refused("OOM");
    redis.set_full(false);
    redis.set_read_only(true);
    refused("READONLY");
    redis.set_read_only(false);
    redis.ask(&["SET", "key", "other"]);

    redis.ask(&["XADD", "p:changes", "*", "field", "value"]);
    redis.trim_streams("p");
    assert_eq!(redis.ask(&["XLEN", "p:changes"]), Reply::Number(0));
    assert_eq!(redis.ask(&["EXISTS", "p:changes"]), Reply::Number(1));
}

#[test]
fn what_is_cut_off_or_stopped_says_nothing() {
    let Some(net) = Net::new().filter(|_| has_redis()) else { return };
    let backplane = Backplane::behind([&net]);
    let redis = Redis::start(&backplane, PORT, &[]);
    for address in ADDRESSES {
        let connect = || net.edge.enter(|| TcpStream::connect_timeout(&(address, PORT).into(), Duration::from_secs(1)));
        assert!(connect().is_ok(), "{address}");
        backplane.cut(0);
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::TimedOut, "{address}");
        backplane.mend(0);
        // Its SYN is sent again.
        assert!(net.edge.enter(|| TcpStream::connect((address, PORT))).is_ok(), "{address}");
    }
    redis.freeze();
    let mut silent = net.edge.enter(|| TcpStream::connect((ADDRESSES[0], PORT))).unwrap();
    io::Write::write_all(&mut silent, b"PING\r\n").unwrap();
    silent.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(io::Read::read(&mut silent, &mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    redis.thaw();
    silent.set_read_timeout(None).unwrap();
    assert_eq!(io::Read::read(&mut silent, &mut [0]).unwrap(), 1);
    redis.hold(Duration::from_millis(100));
    assert_eq!(redis.ask(&["PING"]).text(), "PONG", "it goes on by itself");
}

#[test]
fn a_gates_user_may_do_a_gates_work_alone() {
    let Some(net) = Net::new().filter(|_| has_redis()) else { return };
    let backplane = Backplane::behind([&net]);
    let authority = Authority::make(net.directory());
    let certificate = authority.sign("redis", "IP:192.0.2.5");
    let lines = [guarded("secret"), encrypted(PORT, &certificate)];
    let redis = Redis::start(&backplane, PORT, &lines.each_ref().map(String::as_str));
    let ca = authority.file().display().to_string();
    let ask = |words: &[&str]| redis_cli(&net, &[&["--tls", "--cacert", &ca], words].concat());
    let gate = ["--user", "mxscreen", "--pass", "secret", "--no-auth-warning"];
    assert_eq!(ask(&["GET", "mxscreen:{0}:x"]).trim(), "NOAUTH Authentication required.");
    assert_eq!(ask(&[&gate[..], &["SET", "mxscreen:{0}:x", "1"]].concat()).trim(), "OK");
    for denied in [
        &["SET", "other", "1"][..],
        &["FLUSHALL"],
        &["DEL", "mxscreen:{0}:x"],
        &["CONFIG", "GET", "*"],
        &["KEYS", "*"],
        &["ACL", "LIST"],
    ] {
        assert!(ask(&[&gate[..], denied].concat()).starts_with("NOPERM"), "{denied:?}");
    }
    assert_eq!(redis.ask(&["GET", "mxscreen:{0}:x"]).text(), "1");
}

#[test]
fn sentinels_make_another_server_the_master() {
    let Some(net) = Net::new().filter(|_| has_redis()) else { return };
    let backplane = Backplane::behind([&net]);
    let mut trio = Sentinels::start(&backplane);
    assert_eq!(trio.master(), 0);
    trio.servers[0].ask(&["SET", "key", "value"]);
    trio.fail_over();
    let planned = trio.master();
    assert_eq!(trio.servers[planned].ask(&["GET", "key"]).text(), "value");
    trio.servers[planned].kill();
    trio.wait_master_other_than(planned);
}

#[test]
fn a_cluster_goes_on_without_a_master() {
    let Some(net) = Net::new().filter(|_| has_redis()) else { return };
    let backplane = Backplane::behind([&net]);
    let mut cluster = Cluster::start(&backplane);
    assert_eq!(cluster.masters().len(), 3);
    cluster.fail_over();
    let victim = cluster.kill_master();
    cluster.nodes[victim].restart(&backplane);
    assert_eq!(cluster.masters().len(), 3);
}
