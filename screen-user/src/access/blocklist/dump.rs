//! What `ipset save` and `nft list set` print.

use super::read::Gathering;

/// Reads a dump of sets.
pub(super) fn read(gathering: &mut Gathering, text: &str) {
    // Within the braces of `elements = { … }`, which may run over many lines.
    let mut within = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("add ") {
            ipset(gathering, number, rest);
            continue;
        }
        let elements = match line.split_once("elements = {") {
            Some((_, elements)) => elements,
            None if within => line,
            None => continue,
        };
        let (elements, ends) = elements.split_once('}').map_or((elements, false), |(elements, _)| (elements, true));
        for element in elements.split(',') {
            // An element may be followed by its timeout, counter or comment.
            if let Some(address) = element.split_whitespace().next() {
                gathering.text(number, address);
            }
        }
        within = !ends;
    }
}

/// `SETNAME ADDRESS [timeout N] [nomatch] …`.
fn ipset(gathering: &mut Gathering, number: usize, rest: &str) {
    let mut words = rest.split_whitespace().skip(1);
    let Some(address) = words.next() else { return gathering.refuse(number, "no address") };
    if words.any(|word| word == "nomatch") {
        return gathering.refuse(number, "nomatch: an exception can't be carried over; use `mxscreen allow`");
    }
    gathering.text(number, address);
}
