//! What README.md and the pages below `docs/` say: links, metrics, commands and configurations are there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn links_lead_to_files() {
    for (page, text) in pages() {
        let dir = page.parent().expect("a page is in a directory");
        for link in between(&text, "](", ")").filter(|link| !link.contains("://")) {
            assert!(dir.join(link).exists(), "{}: {link}", page.display());
        }
    }
}

#[test]
fn metrics_are_among_those_that_there_are() {
    let sources = files_below(&root().join("src"), "rs");
    let known: String = sources.iter().map(|file| read(file)).collect();
    for (page, text) in pages() {
        for metric in words(&text).filter(|word| word.starts_with("homing_")) {
            assert!(known.contains(&format!("\"{metric}\"")), "{}: {metric}", page.display());
        }
    }
}

#[test]
fn commands_are_among_those_that_there_are() {
    let commands: BTreeSet<_> = pages().iter().flat_map(|(_, text)| commands(text)).collect();
    assert!(commands.contains("gslb drain"), "{commands:?}");
    for command in commands {
        let mut homing = Command::new(env!("CARGO_BIN_EXE_homing"));
        let output = homing.args(command.split_whitespace()).arg("--help").output().expect("it starts");
        assert!(output.status.success(), "homing {command}: {output:?}");
    }
}

#[test]
fn configurations_have_no_problems() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut checked = 0;
    for (page, text) in pages() {
        for yaml in between(&text, "```yaml\n", "```") {
            let file = dir.path().join("page.yaml");
            fs::write(&file, yaml).expect("it can be written");
            let problems = homing::config::load(&file, &["testers"]).err();
            assert!(problems.is_none(), "{}: {}", page.display(), problems.expect("it is there"));
            checked += 1;
        }
    }
    assert!(checked >= 2, "README.md and rules.md have one each");
}

/// The words behind `homing`, up to the first that is no command, wherever it stands as code.
fn commands(text: &str) -> Vec<String> {
    let in_words = between(text, "`homing ", "`");
    let in_blocks = text.lines().filter_map(|line| line.strip_prefix("    homing "));
    let command = |line: &str| {
        let is_command = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
        line.split_whitespace().take_while(is_command).collect::<Vec<_>>().join(" ")
    };
    in_words.chain(in_blocks).map(command).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// What stands between an opening and the next closing, each time.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = files_below(&root().join("docs"), "md");
    pages.push(root().join("README.md"));
    pages.into_iter().map(|page| (page.clone(), read(&page))).collect()
}

fn files_below(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files.extend(files_below(&path, extension)),
            false if path.extension().is_some_and(|found| found == extension) => files.push(path),
            false => {}
        }
    }
    files
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("text")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
