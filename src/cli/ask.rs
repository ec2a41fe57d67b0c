//! What every command that asks a running homing takes: which one it asks, and how to print what that says.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    client::{Client, Error},
    table,
};
use crate::config::AdminUrl;

#[derive(Args, Debug)]
pub(super) struct Ask {
    /// Where its admin API listens: http://HOST:PORT or unix:PATH
    #[arg(
        long,
        value_name = "URL",
        env = "HOMING_ADMIN",
        default_value = "http://127.0.0.1:9901",
        global = true
    )]
    admin: AdminUrl,
    /// The file with the token that the admin API asks for beyond loopback
    #[arg(
        long,
        visible_alias = "admin-token-file",
        value_name = "FILE",
        env = "HOMING_ADMIN_TOKEN_FILE",
        global = true
    )]
    token_file: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value = "table", global = true)]
    pub(super) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
}

impl Ask {
    pub(super) fn client(&self) -> Result<Client, Error> {
        Client::new(self.admin.clone(), self.token_file.as_deref())
    }
}

impl Output {
    /// One object.
    pub(super) fn one(self, object: &impl Serialize) -> String {
        self.or_as(object, |object| table::fields(object))
    }

    /// What has a table of its own.
    pub(super) fn or_as<T: Serialize>(self, view: &T, table: impl FnOnce(&T) -> String) -> String {
        match self {
            Self::Table => table(view),
            Self::Json => json(view),
        }
    }
}

pub(super) fn json(view: &impl Serialize) -> String {
    serde_json::to_string_pretty(view).expect("views consist of what JSON has") + "\n"
}
