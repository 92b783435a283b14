//! Registers as other hosts write them: whatever stands in Redis, taking it over panics nobody, and merging has one result.

#![no_main]

use libfuzzer_sys::fuzz_target;
use screen_user::share::{Hosts, Item, Key, form};

fuzz_target!(|input: (&str, Vec<&[u8]>)| {
    let (key, states) = input;
    if let Ok(key) = key.parse::<Key>() {
        assert_eq!(key.to_string().parse::<Key>().as_ref(), Ok(&key));
    }
    let hosts = Hosts::new("mx.example.test");
    let items: Vec<Item> = states.into_iter().filter_map(|state| Item::from_bytes(state).ok()).collect();
    let (mut forwards, mut backwards) = (Item::default(), Item::default());
    for item in &items {
        assert_eq!(Item::from_bytes(&item.to_bytes()).as_ref(), Ok(item));
        let _ = (form::to_record(item, &hosts), form::to_entry(item));
        forwards.merge(item);
    }
    for item in items.iter().rev() {
        backwards.merge(item);
    }
    assert_eq!(forwards.cells, backwards.cells);
    assert!(items.iter().all(|item| !forwards.is_behind(item)));
});
