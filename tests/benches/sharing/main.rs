//! What it costs, and what it gives, that hosts share what they know through Redis. `cargo xtask bench sharing` runs it; it needs root.
#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement that is wrong is to end, and one that is right is to be seen"
)]

mod greeting;
mod lag;
mod rate;
mod records;
#[allow(dead_code, reason = "another measurement gives up what takes too long")]
#[path = "../../../screen-user/benches/kernel/table.rs"]
mod table;
mod warm;

use self::table::Table;

/// Where the gates find Redis.
const URLS: &str = r#"["redis://192.0.2.5:6379/0"]"#;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds: u16 = arguments.next().and_then(|word| word.parse().ok()).unwrap_or(3);
    let only = arguments.next().unwrap_or_default();
    let wanted = |part: &str| part.starts_with(&only);
    let mut table = Table::default();
    if wanted("greeting") {
        greeting::measure(rounds, &mut table);
    }
    if wanted("lag") {
        lag::measure(rounds, &mut table);
    }
    if wanted("rate") {
        rate::measure(rounds, &mut table);
    }
    if wanted("warm") {
        warm::measure(rounds, &mut table);
    }
    println!();
    table.lines().iter().for_each(|line| println!("{line}"));
}
