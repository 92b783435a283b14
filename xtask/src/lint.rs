//! `cargo xtask lint`: formatting, clippy on both halves, documentation, and where `unsafe` stands.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    process::{self, cargo, say},
    setup, workspace,
};

/// Where `unsafe` may be written: the kernel programs, the code that loads them, and
/// the promise about the map types' layout that aya asks for.
const UNSAFE_ALLOWED: &[&str] = &["screen-ebpf/src", "screen-user/src/kernel", "screen-common/src/user.rs"];

/// The target that the kernel half is compiled for, by byte order of this machine.
const BPF_TARGET: &str = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// Runs every check, and fails if one of them did.
pub(crate) fn run() -> Result<ExitCode> {
    say("checking formatting, clippy, documentation and the places of unsafe code");
    setup::ensure(&[setup::Part::Build, setup::Part::Lint])?;
    let mut failed = Vec::new();
    let mut check = |name: &'static str, command: &mut Command| {
        say(&format!("== {name}: {}", process::shown(command)));
        if let Err(error) = process::run(command) {
            eprintln!("{error:#}");
            failed.push(name);
        }
    };
    check("formatting", cargo().args(["fmt", "--all", "--check"]));
    // A workspace of its own.
    check(
        "formatting of the fuzz targets",
        cargo().args(["fmt", "--manifest-path", "tests/fuzz/Cargo.toml", "--check"]),
    );
    check(
        "clippy",
        cargo().args([
            "clippy",
            "--locked",
            "--workspace",
            "--exclude",
            "screen-ebpf",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    );
    check("clippy of the kernel half", &mut kernel_clippy());
    check(
        "documentation",
        cargo()
            .args([
                "doc",
                "--locked",
                "--workspace",
                "--exclude",
                "screen-ebpf",
                "--no-deps",
                "--document-private-items",
            ])
            .env("RUSTDOCFLAGS", "-D warnings"),
    );
    say(&format!("== unsafe code stands only in {}", UNSAFE_ALLOWED.join(" and ")));
    let misplaced = misplaced_unsafe(workspace::root())?;
    if !misplaced.is_empty() {
        for place in &misplaced {
            eprintln!("unsafe code outside its places: {place}");
        }
        failed.push("places of unsafe code");
    }
    if failed.is_empty() {
        say("all checks passed");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Clippy for the BPF target, with the toolchain that build.rs compiles the kernel half with: Debian's under the name
/// `bpf`, which ships `core` for that target, or a nightly that builds `core` from its sources.
fn kernel_clippy() -> Command {
    let mut command = cargo();
    if setup::has_bpf_core() {
        // The one unstable feature that aya-ebpf and the programs use, and nothing more.
        command.env("RUSTC_BOOTSTRAP", "aya_ebpf,gate").arg("+bpf").arg("clippy");
    } else {
        command.args(["+nightly", "clippy", "-Z", "build-std=core"]);
    }
    command.args(["--locked", "-p", "screen-ebpf", "--target", BPF_TARGET, "--target-dir"]);
    // A folder of its own: another compiler's artefacts beside the workspace's would be rebuilt in turns.
    command.arg(workspace::target().join("lint-bpf"));
    command.args(["--", "-D", "warnings"]);
    command
}

/// Every line with the `unsafe` keyword outside the allowed folders, as `file:line`.
fn misplaced_unsafe(root: &Path) -> Result<Vec<String>> {
    let mut places = Vec::new();
    for member in ["screen-common", "screen-ebpf", "screen-user", "xtask", "tests"] {
        for file in rust_files(&root.join(member))? {
            let relative = file.strip_prefix(root).unwrap_or(&file);
            if UNSAFE_ALLOWED.iter().any(|folder| relative.starts_with(folder)) {
                continue;
            }
            let text = std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
            for (number, line) in text.lines().enumerate() {
                if uses_unsafe(line) {
                    places.push(format!("{}:{}", relative.display(), number + 1));
                }
            }
        }
    }
    Ok(places)
}

/// All `.rs` files below a folder, in a stable order; build output is no source.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a line of code uses the keyword: outside comments and strings, as a whole word before what it marks.
fn uses_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    // The marker is put together so that this file does not find itself.
    let keyword = concat!("un", "safe");
    ["{", "fn ", "impl ", "extern ", "trait "].iter().any(|after| {
        code.match_indices(keyword).any(|(at, _)| {
            let before = code.get(..at).unwrap_or_default();
            let rest = code.get(at + keyword.len()..).unwrap_or_default();
            let whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let in_string = before.matches('"').count() % 2 == 1;
            whole && !in_string && rest.starts_with(' ') && rest.trim_start().starts_with(after)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::uses_unsafe;

    #[test]
    fn the_keyword_is_found_where_it_marks_something() {
        let word = ["un", "safe"].concat();
        for line in [
            "W { f() }",
            "    W fn f() {",
            "pub W fn f()",
            "W impl Pod for Key {}",
            "let x = W { *p };",
            "W extern \"C\" {",
        ] {
            assert!(uses_unsafe(&line.replace('W', &word)), "{line}");
        }
    }

    #[test]
    fn the_word_in_comments_strings_and_names_is_not_code() {
        let word = ["un", "safe"].concat();
        for line in
            ["// W { }", "//! what W fn means", "say(\"W { }\")", "W_code = \"deny\"", "let W_fn = 1;", "not_W { }"]
        {
            assert!(!uses_unsafe(&line.replace('W', &word)), "{line}");
        }
    }
}
