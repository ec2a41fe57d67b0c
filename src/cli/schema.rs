//! `homing schema`: the form of the configuration's files, for editors.

use clap::{Args, ValueEnum};

use super::ask::json;
use crate::config::{self, FileKind};

/// Print the JSON Schema of the configuration, by which editors complete and check it
///
/// `homing schema > homing.schema.json`, and as the first line of the configuration beside it
/// `# yaml-language-server: $schema=homing.schema.json`. A schema knows the form of a file; `homing check` knows
/// whether it can be run.
#[derive(Args, Debug)]
pub struct Schema {
    /// Of which file
    #[arg(value_enum, default_value = "site")]
    file: File,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum File {
    /// A node's own
    Site,
    /// The one that `federation` names
    Federation,
}

/// What to print.
pub fn schema(args: &Schema) -> String {
    json(&config::schema(match args.file {
        File::Site => FileKind::Site,
        File::Federation => FileKind::Federation,
    }))
}
