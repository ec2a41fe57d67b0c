//! `homing completion`: what a shell needs to complete commands. `homing man`: the pages of the manual. Both are
//! made of the commands themselves.

use std::{fs, io, path::PathBuf};

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::aot;

use super::{Cli, Error};

#[derive(Args, Debug)]
pub struct Completion {
    /// For bash: source <(homing completion bash)
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Debug)]
pub struct Man {
    /// Write a page for each command into this directory, instead of printing the one of homing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The script for a shell.
pub fn completion(args: Completion) -> String {
    let shell = match args.shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    let mut script = Vec::new();
    aot::generate(shell, &mut Cli::command(), NAME, &mut script);
    String::from_utf8(script).expect("commands are named in ASCII")
}

/// The page that is to be printed, or what was written instead.
pub fn man(args: Man) -> Result<String, Error> {
    let Some(folder) = args.out else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
        rendered.expect("a vector takes all");
        return Ok(String::from_utf8(page).expect("the commands are described in UTF-8"));
    };
    let write = || -> io::Result<usize> {
        fs::create_dir_all(&folder)?;
        clap_mangen::generate_to(Cli::command(), &folder)?;
        Ok(fs::read_dir(&folder)?.count())
    };
    let pages = write().map_err(|error| Error::Manual { folder: folder.clone(), error })?;
    Ok(format!("{}: {pages} pages; `man -l {0}/{NAME}.1` shows the first\n", folder.display()))
}

const NAME: &str = "homing";

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command below `command`, with the words that lead to it.
    fn commands(command: &clap::Command, above: &str) -> Vec<(String, String)> {
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        let found = below.flat_map(|below| {
            let words = format!("{above}-{}", below.get_name());
            let deeper = commands(below, &words);
            [vec![(words, below.get_name().to_owned())], deeper].concat()
        });
        found.collect()
    }

    #[test]
    fn the_completions_of_every_shell_name_every_command_and_option() {
        let all = commands(&Cli::command(), NAME);
        assert!(all.iter().any(|(words, _)| words == "homing-show-gslbservice-runtime"), "{all:?}");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completion(Completion { shell });
            for (words, name) in &all {
                // clap_complete gives fish no more than two levels.
                let is_deep = words.matches('-').count() > 2;
                let expected = !(is_deep && matches!(shell, Shell::Fish));
                assert!(script.contains(name.as_str()) || !expected, "{shell:?}: {words}");
            }
            for option in ["admin", "token-file", "watch"] {
                assert!(script.contains(option), "{shell:?}: {option}");
            }
        }
    }

    #[test]
    fn the_manual_has_a_page_for_every_command() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let out = folder.path().join("man1");
        man(Man { out: Some(out.clone()) }).unwrap_or_else(|error| panic!("{error}"));
        let first = man(Man { out: None }).unwrap_or_else(|error| panic!("{error}"));
        for (words, name) in commands(&Cli::command(), NAME) {
            let page = fs::read_to_string(out.join(format!("{words}.1"))).expect(&words);
            assert!(page.starts_with(".") && page.contains(".SH NAME") && page.contains(&name), "{words}");
            if words.matches('-').count() == 1 {
                assert!(first.contains(&format!("homing\\-{name}(1)")), "{name}: {first}");
            }
        }
    }
}
