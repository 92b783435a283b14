use std::collections::BTreeMap;

use super::*;

fn place() -> HostPort {
    HostPort { host: "192.0.2.5".to_owned(), port: 6379 }
}

fn redis(checkup: Result<Checkup, String>) -> Option<Redis> {
    let (user, prefix) = ("mxscreen".to_owned(), "mxscreen".to_owned());
    Some(Redis { user, has_password: true, prefix, encrypted: false, many: false, checkup })
}

fn judged(state: Result<State, Trouble>) -> Vec<Finding> {
    judge(redis(Ok(Checkup { servers: vec![(place(), state)], ..Checkup::default() })).as_ref())
}

fn sound() -> State {
    let memory = Memory { used: 1 << 20, most: 0, policy: "noeviction".to_owned() };
    State { version: Some("7.0.15".to_owned()), memory: Some(memory), ..State::default() }
}

#[track_caller]
fn is(state: State, grade: Grade, what: &str, mend: &str) {
    let findings: Vec<Finding> = judged(Ok(state)).into_iter().filter(|finding| finding.grade != Grade::Fine).collect();
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert!(finding.grade == grade && finding.what.contains(what), "{finding:?}");
    assert!(finding.mend.as_ref().is_some_and(|said| said.contains(mend)), "{finding:?}");
}

#[test]
fn the_rights_are_those_of_the_documents() {
    let documented = include_str!("../../../../../docs/cluster.md").lines();
    let line = documented.filter_map(|line| line.strip_prefix("ACL SETUSER mxscreen on >PASSWORD ~mxscreen:* ")).next();
    assert_eq!(line, Some(RIGHTS));
}

#[test]
fn a_sound_server_is_fine() {
    let findings = judged(Ok(sound()));
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!(finding.grade, Grade::Fine);
    assert_eq!(finding.what, "192.0.2.5:6379 (Redis 7.0.15) takes and gives what the gates know");
    assert!(judge(None).is_empty());
}

#[test]
fn what_is_amiss_is_named_with_its_command() {
    is(
        State { denied: vec!["XADD", "TIME"], ..sound() },
        Grade::Wrong,
        "use XADD, TIME",
        "redis-cli -h 192.0.2.5 -p 6379 ACL SETUSER mxscreen '~mxscreen:*' resetchannels",
    );
    is(State { missing: vec!["XADD"], ..sound() }, Grade::Wrong, "too old", "redis-server");
    is(State { script: Some("no struct".to_owned()), ..sound() }, Grade::Wrong, "no struct", "redis-server");
    let replica = State { is_replica: true, master: Some("192.0.2.6:6379".to_owned()), ..sound() };
    is(replica, Grade::Wrong, "is a replica of 192.0.2.6:6379", "cache.redis.urls = [\"redis://192.0.2.6:6379\"]");
    is(State { is_replica: true, memory: None, ..sound() }, Grade::Wrong, "is a replica,", "sentinels");
    is(State { memory: None, ..sound() }, Grade::Note, "throws keys away", "ACL SETUSER mxscreen +info");
    for (code, grade, mend) in [
        ("OOM", Grade::Wrong, "CONFIG SET maxmemory 1073741824"),
        ("MISCONF", Grade::Wrong, "stop-writes-on-bgsave-error no"),
        ("NOREPLICAS", Grade::Wrong, "INFO replication"),
        ("LOADING", Grade::Note, "INFO persistence"),
        ("ODD", Grade::Wrong, "INFO"),
    ] {
        let refusals = BTreeMap::from([(code.to_owned(), "and more".to_owned())]);
        is(State { refusals, ..sound() }, grade, "192.0.2.5:6379", mend);
    }
}

#[test]
fn keys_vanish_only_where_there_is_a_bound() {
    let with = |most, policy: &str| {
        let memory = Memory { used: 1, most, policy: policy.to_owned() };
        judged(Ok(State { memory: Some(memory), ..sound() })).iter().map(|finding| finding.grade).collect::<Vec<_>>()
    };
    for (most, policy) in [(0, "allkeys-lru"), (0, "noeviction"), (1 << 30, "noeviction")] {
        assert_eq!(with(most, policy), [Grade::Fine], "{policy}");
    }
    assert_eq!(with(1 << 30, "volatile-ttl"), [Grade::Fine, Grade::Note]);
    assert_eq!(with(1 << 30, "allkeys-lru"), [Grade::Wrong]);
}

#[test]
fn a_clock_may_be_off_by_a_day() {
    for (ahead, grade) in [
        (0, None),
        (1000, None),
        (-1001, Some(Grade::Note)),
        (3_600_000, Some(Grade::Note)),
        (86_400_001, Some(Grade::Wrong)),
        (i64::MIN, Some(Grade::Wrong)),
    ] {
        assert_eq!(clock(ahead).map(|(grade, _)| grade), grade, "{ahead}");
    }
    assert_eq!(clock(-5000).unwrap().1, "has a clock that is 5 s behind this host's");
}

#[test]
fn who_is_not_let_in_is_told_how() {
    let [finding] = judged(Err(Trouble::Refused("WRONGPASS".to_owned()))).try_into().unwrap();
    assert_eq!(finding.grade, Grade::Wrong);
    assert!(finding.mend.unwrap().contains("ACL SETUSER mxscreen on resetpass '>PASSWORD' '~mxscreen:*'"));
    let [finding] = judged(Err(Trouble::Unreachable("refused".to_owned()))).try_into().unwrap();
    assert_eq!(finding.mend.as_deref(), Some("redis-cli -h 192.0.2.5 -p 6379 ping"));
    let servers = vec![(place(), Err(Trouble::Refused("NOAUTH".to_owned())))];
    let without =
        redis(Ok(Checkup { servers, ..Checkup::default() })).map(|redis| Redis { has_password: false, ..redis });
    assert!(judge(without.as_ref())[0].mend.as_ref().unwrap().contains("cache.redis.password_file"));
}

#[test]
fn some_of_many_may_be_away() {
    let silent = vec![(place(), "it is gone".to_owned())];
    let grades = |servers| {
        let checkup = Checkup { silent: silent.clone(), servers, ..Checkup::default() };
        judge(redis(Ok(checkup)).as_ref()).iter().map(|finding| finding.grade).collect::<Vec<_>>()
    };
    assert_eq!(grades(vec![(place(), Ok(sound()))]), [Grade::Note, Grade::Fine]);
    assert_eq!(grades(Vec::new()), [Grade::Wrong]);
    let unserved = vec![("3".to_owned(), "CLUSTERDOWN".to_owned()), ("7".to_owned(), "CLUSTERDOWN".to_owned())];
    let checkup = Checkup { servers: vec![(place(), Ok(sound()))], unserved, ..Checkup::default() };
    let findings = judge(redis(Ok(checkup)).as_ref());
    assert!(findings[0].grade == Grade::Wrong && findings[0].what.contains("3, 7"), "{findings:?}");
    assert_eq!(judge(redis(Err("no end".to_owned())).as_ref())[0].grade, Grade::Wrong);
}
