//! The dashboard's picture, from some minutes of real traffic.
//!
//! Grafana is no Debian package. So its panels are asked of Debian's Prometheus, and drawn where the dashboard has them by uPlot, which is what Grafana
//! draws them by.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    bench::program,
    build,
    process::{self, find, say},
    setup, workspace,
};

/// The page that draws.
const PAGE: &str = include_str!("../../../tests/benches/dashboard/page.html");

/// Draws `docs/images/dashboard.png` anew.
///
/// # Errors
/// What it takes can't be had, or something went wrong on the way.
pub(super) fn run() -> Result<()> {
    use setup::Part;
    setup::ensure(&[Part::Build, Part::Sandbox, Part::Redis, Part::Prometheus, Part::Picture])?;
    build::release()?;
    let folder = workspace::target().join("picture");
    let answers = folder.join("answers.json");
    let dashboard = workspace::root().join("packaging/grafana/mxscreen.json");
    say("eight minutes of traffic, and what Prometheus sees of it");
    let mut traffic = process::as_root(program("screen-tests", "dashboard")?)?;
    process::run(traffic.env("MXSCREEN_BIN", workspace::gate()).env("CI", "true").arg(&dashboard).arg(&answers))?;
    draw(&folder, &answers)
}

/// Draws what Prometheus has answered.
fn draw(folder: &Path, answers: &Path) -> Result<()> {
    let answers = fs::read_to_string(answers).context("can't read what Prometheus answered")?;
    fs::write(folder.join("answers.js"), format!("const picture = {answers};\n")).context("can't write the answers")?;
    let page = folder.join("page.html");
    fs::write(&page, PAGE).context("can't write the page")?;
    let image = workspace::root().join("docs/images/dashboard.png");
    fs::create_dir_all(workspace::root().join("docs/images")).context("can't make the folder of pictures")?;
    let mut browser = Command::new(find("chromium").context("chromium is not there")?);
    // As root it runs in no sandbox of its own; it reads our own files only.
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1526,1380"]);
    browser.arg(format!("--screenshot={}", image.display())).arg(format!("file://{}", page.display()));
    process::output(&mut browser).context("chromium draws nothing")?;
    say(&format!("drawn: {}", image.display()));
    Ok(())
}
