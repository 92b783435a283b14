//! What an operator sees.

use std::time::Duration;

use screen_user::kernel::{DenyEntry, Expiry, ListId, Mode};

use super::{
    place::{plan, privileged, run},
    site::Site,
};

#[test]
fn bpftool_prints_named_fields() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    let _open = (site.connect("192.0.2.2"), site.taken().1);
    let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
    site.kernel.deny("192.0.2.4/32".parse().unwrap(), entry).unwrap();
    site.connect_within("192.0.2.4", Duration::from_millis(300)).unwrap_err();
    let dump = |map: &str| {
        let path = site.plan.pin_path.join("maps").join(map);
        run("bpftool", &["map", "dump", "pinned", path.to_str().unwrap()])
    };
    let clients = dump("clients");
    for field in ["address", "active", "pending", "accepted", "steered", "limited", "last_seen_ns"] {
        assert!(clients.contains(&format!("\"{field}\": ")), "{field} in {clients}");
    }
    assert!(clients.contains("\"active\": 1"), "{clients}");
    let refused = dump("refused");
    for field in ["address", "denied", "limited", "list", "last_seen_ns"] {
        assert!(refused.contains(&format!("\"{field}\": ")), "{field} in {refused}");
    }
    let totals = dump("totals");
    for field in ["packets", "events", "suppressed"] {
        assert!(totals.contains(&format!("\"{field}\": ")), "{field} in {totals}");
    }
    assert!(totals.contains("\"reason\": \"Denied\""), "{totals}");
}

#[test]
fn the_gate_says_where_it_is_attached() {
    if !privileged() {
        return;
    }
    let site = Site::new(plan());
    let status = site.kernel.installation.attached();
    let interface = status.interfaces.first().unwrap();
    assert_eq!((interface.name.as_str(), interface.mode), ("mail0", Some(Mode::Generic)));
    assert_eq!(status.interfaces.len(), 1, "not the loopback");
    assert!(
        status.programs.iter().any(|program| program == "steer")
            && status.programs.iter().any(|program| program == "count")
    );
}
