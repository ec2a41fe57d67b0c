//! `homing reload`: a running homing loads its configuration again, all of it or nothing.

use std::process::ExitCode;

use clap::Args;

use super::{
    Error,
    ask::{Ask, Output, json},
    print,
};
use crate::admin::view;

#[derive(Args, Debug)]
pub struct Reload {
    #[command(flatten)]
    ask: Ask,
}

/// Asks for the reload and prints what came of it: on stderr, as `check` does, what is wrong.
pub async fn reload(args: Reload) -> Result<ExitCode, Error> {
    let client = args.ask.client()?;
    let done: view::Reload = client.reload().await?;
    let failed = done.result == view::ReloadResult::Failure;
    match args.ask.output {
        Output::Json => {
            print(json(&done))?;
        }
        Output::Table => {
            let (said, wrong) = in_words(&done);
            eprint!("{wrong}");
            print(said)?;
        }
    }
    Ok(if failed { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// What was done, and what is wrong or dubious.
fn in_words(reload: &view::Reload) -> (String, String) {
    let mut said = String::new();
    let mut wrong = String::new();
    let took = humantime::format_duration(reload.duration);
    match &reload.error {
        None => said += &format!("reloaded in {took}\n"),
        Some(error) => wrong += &format!("{}\nerror: {error}\n", reload.problems.join("\n")),
    }
    for (section, changes) in &reload.changes {
        said += &format!("{section}: {}\n", changes.in_words());
    }
    for setting in &reload.needs_restart {
        wrong += &format!("needs a restart: {setting}\n");
    }
    for warning in &reload.warnings {
        wrong += &format!("warning: {warning}\n");
    }
    (said, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::view::example, cli::table::golden as check};

    #[test]
    fn a_reload_says_what_changed_and_a_refused_one_what_is_wrong() {
        let both = |reload| {
            let (said, wrong) = in_words(&reload);
            format!("{said}---\n{wrong}")
        };
        check("reload.txt", &both(example::reload()));
        check("reload-refused.txt", &both(example::refused_reload()));
    }
}
