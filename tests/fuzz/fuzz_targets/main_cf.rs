//! The import from Postfix: whatever `main.cf` holds, the result is a configuration that is accepted.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use screen_user::config::{import_postfix::import, load_text};

fuzz_target!(|text: &str| {
    // Files that main.cf names are read: devices, and whatever this machine holds, are not to be among them.
    if ["cidr:", "hash:", "texthash:", "pcre:", "regexp:", ":/", "/dev", "/proc", "= /", "=/", ", /", ",/", " /"]
        .iter()
        .any(|name| text.contains(name))
    {
        return;
    }
    let imported = import(text, Path::new("main.cf"), false);
    assert!(imported.warnings.iter().all(|warning| !warning.contains('\n')));
    let accepted = load_text(&imported.toml, Path::new("mxscreen.toml"), &[]);
    assert!(accepted.is_ok(), "{:?}\n{}", accepted.err(), imported.toml);
    assert_eq!(imported, import(text, Path::new("main.cf"), false), "the same twice");
});
