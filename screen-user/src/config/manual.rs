//! The manual page mxscreen.toml(5), made from the table of keys.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::keys::{Default, KEYS};

/// The page, in the language of man(7).
#[must_use]
pub fn manual() -> String {
    let mut page = Roff::new();
    page.control("TH", ["mxscreen.toml", "5", "", concat!("mxscreen ", env!("CARGO_PKG_VERSION")), "mxscreen"]);
    page.control("SH", ["NAME"]);
    page.text([roman("mxscreen.toml - configuration of mxscreen(8)")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text(spans(
        "The language is TOML. A key that is left out has its default, so that an empty file is a complete configuration. Unknown keys \
         are errors; `mxscreen check` lists everything that is wrong, each with file and line.",
    ));
    page.control("PP", []);
    page.text(spans(
        "Durations are written `\"250ms\"`, `\"6s\"`, `\"5m\"`, `\"2h\"`, `\"30d\"`, `\"1w\"`. Actions are `\"ignore\"` (log only), `\"enforce\"` \
         (reject every recipient) and `\"drop\"` (reply and disconnect).",
    ));
    let mut section = None;
    for key in KEYS {
        let own = key.path.split_once('.').map_or("", |(section, _)| section);
        if section != Some(own) {
            section = Some(own);
            let title = if own.is_empty() { "GENERAL KEYS".to_owned() } else { format!("[{own}]") };
            page.control("SH", [title.as_str()]);
        }
        page.control("TP", []);
        page.text([bold(key.path), roman(" ("), italic(key.kind.describe()), roman(")")]);
        page.text(spans(key.doc));
        page.control("br", []);
        match key.default {
            Default::Value(value) => page.text([roman("Default: "), bold(value)]),
            Default::Depends(_, rule) => page.text(spans(&format!("Default: {rule}"))),
        };
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("mxscreen"), roman("(8)")]);
    page.render()
}

/// A text in which what stands between backquotes is bold.
fn spans(text: &str) -> Vec<Inline> {
    let span = |(at, part): (usize, &str)| if at % 2 == 1 { bold(part) } else { roman(part) };
    text.split('`').enumerate().map(span).collect()
}
