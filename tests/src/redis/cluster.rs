//! A cluster: three masters that share the slots, with a replica each.

use std::iter;

use super::Redis;
use crate::{
    backplane::Backplane,
    netns::run,
    wait::{SOON, wait_for},
};

/// Where the first node is; the others follow.
const FIRST: u16 = 7001;

/// Six nodes of a cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts the nodes, makes a cluster of them, and waits until it serves.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[must_use]
    #[track_caller]
    pub fn start(backplane: &Backplane) -> Self {
        let lines = ["cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout 1000"];
        let nodes: Vec<Redis> = (FIRST..FIRST + 6).map(|port| Redis::start(backplane, port, &lines)).collect();
        let places: Vec<String> = nodes.iter().map(Redis::place).collect();
        let cluster = Self { nodes };
        let places = places.iter().map(String::as_str);
        let words: Vec<&str> =
            iter::once("create").chain(places).chain(["--cluster-replicas", "1", "--cluster-yes"]).collect();
        cluster.manage(backplane, &words);
        cluster.wait_whole();
        cluster
    }

    fn manage(&self, backplane: &Backplane, words: &[&str]) {
        let enter = ["netns", "exec", backplane.namespace.name(), "redis-cli", "--cluster"];
        run("ip", enter.iter().chain(words));
    }

    /// Waits until every node serves and every master has a replica that is as good.
    #[track_caller]
    fn wait_whole(&self) {
        for node in &self.nodes {
            wait_for("the cluster serves", SOON, || {
                node.ask(&["CLUSTER", "INFO"]).text().starts_with("cluster_state:ok").then_some(())
            });
        }
        let replicas = || self.nodes.iter().filter(|node| node.info("role") == "slave");
        wait_for("the cluster has replicas", SOON, || (replicas().count() == 3).then_some(()));
        replicas().for_each(Redis::wait_follows);
    }

    /// Where gates find it: some of its nodes.
    #[must_use]
    pub fn seeds(&self) -> Vec<String> {
        self.nodes.iter().take(2).map(Redis::place).collect()
    }

    /// The nodes that are masters now.
    #[must_use]
    pub fn masters(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.is_master(node)).collect()
    }

    fn is_master(&self, node: usize) -> bool {
        let role = self.nodes.get(node).and_then(|node| node.try_ask(&["ROLE"]).ok());
        role.is_some_and(|role| role.list()[0].text() == "master")
    }

    /// Has a replica take its master's place, as for a planned change, and waits until it has.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn fail_over(&self) {
        let replica = (0..self.nodes.len()).find(|&node| !self.is_master(node)).expect("a replica");
        self.nodes[replica].ask(&["CLUSTER", "FAILOVER"]);
        wait_for("the replica is a master", SOON, || self.is_master(replica).then_some(()));
        self.wait_whole();
    }

    /// Has all slots of a master move to the others, with what is in them.
    ///
    /// # Panics
    ///
    /// When they do not.
    #[track_caller]
    pub fn empty_master(&self, backplane: &Backplane) {
        let node = &self.nodes[self.masters()[0]];
        let id = node.ask(&["CLUSTER", "MYID"]);
        let weight = format!("{}=0", id.text());
        self.manage(backplane, &["rebalance", &node.place(), "--cluster-weight", &weight]);
        // A line of the nodes has eight fields, and then slots. Without any, the node may be a replica by now, and have keys as such.
        let nodes = node.ask(&["CLUSTER", "NODES"]);
        let own = nodes.text().lines().find(|line| line.contains("myself")).expect("its own line");
        assert_eq!(own.split_whitespace().count(), 8, "{own}");
    }

    /// Ends a master, waits until its replica has taken its place, and says which it was.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn kill_master(&mut self) -> usize {
        let masters = self.masters();
        let victim = masters[0];
        self.nodes[victim].kill();
        wait_for("a replica takes the place of its master", SOON, || {
            (self.masters().iter().filter(|node| !masters.contains(node)).count() == 1).then_some(())
        });
        victim
    }
}
