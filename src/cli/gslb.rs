//! `homing gslb`: emptying a site before it is worked on, and putting it into service again.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{
    ask::Ask,
    client::{Error, escaped},
    table,
};
use crate::admin::view::{ChoiceExplanation, DrainState, Resumed, Site};

#[derive(Args, Debug)]
pub struct Gslb {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Empty a site: its sessions go on until the deadline while new ones start elsewhere, then they begin anew
    ///
    /// Tell every node of the site. A restart forgets it: to make it last, disable the site's members or raise
    /// their drain_epoch in the federation's file.
    Drain {
        site: String,
        /// How long its sessions may stay, 30m for example; 0s ends them at once
        #[arg(long = "for", value_name = "DURATION", default_value = "30m", value_parser = humantime::parse_duration)]
        how_long: Duration,
    },
    /// Put a site into service again
    Undrain { site: String },
    /// Say how DNS answers a client: which group and member, why, and what was excluded and why
    Explain {
        /// Its address, or a network such as 192.0.2.0/24, as a resolver tells it by an EDNS client subnet
        #[arg(long, value_name = "IP")]
        client: String,
        /// The name that is asked for
        #[arg(long, value_name = "NAME")]
        name: String,
        /// A or AAAA
        #[arg(long = "type", value_name = "TYPE", default_value = "A")]
        record_type: String,
    },
    /// Let members that were down have clients again, where their group waits for that (manual_resume)
    ///
    /// Tell every node that answers DNS.
    Resume {
        /// The GSLB service
        service: String,
        /// Its member, as `homing gslb explain` calls it; left out: all
        #[arg(long, value_name = "NAME")]
        member: Option<String>,
    },
}

/// Tells the running homing and returns what to print.
pub async fn gslb(args: Gslb) -> Result<String, Error> {
    let client = args.ask.client()?;
    let path = match args.what {
        What::Explain { client: address, name, record_type } => {
            let query = [("client", &address), ("name", &name), ("type", &record_type)];
            let query = query.map(|(key, value)| format!("{key}={}", escaped(value))).join("&");
            let explanation: ChoiceExplanation = client.get(&format!("/api/v1/gslb/explain?{query}")).await?;
            return Ok(args.ask.output.one(&explanation));
        }
        What::Resume { service, member } => {
            let member = member.map_or_else(String::new, |member| format!("?member={}", escaped(&member)));
            let path = format!("/api/v1/gslbservices/{}/resume{member}", escaped(&service));
            return Ok(args.ask.output.or_as(&client.post(&path).await?, resumed));
        }
        What::Drain { site, how_long } => {
            let how_long = humantime::format_duration(how_long).to_string();
            format!("/api/v1/gslb/sites/{}/drain?for={}", escaped(&site), escaped(&how_long))
        }
        What::Undrain { site } => format!("/api/v1/gslb/sites/{}/undrain", escaped(&site)),
    };
    let site: Site = client.post(&path).await?;
    Ok(args.ask.output.or_as(&site, |site| table::fields(site) + &note(site)))
}

fn resumed(done: &Resumed) -> String {
    match &done.resumed[..] {
        [] => format!("No member of {} waited for that.\n", done.gslb_service),
        members => format!("Members of {} get clients again: {}.\n", done.gslb_service, members.join(", ")),
    }
}

/// What the operator may not expect.
fn note(site: &Site) -> String {
    match (site.is_own, site.drain_state) {
        (true, DrainState::InService) => String::new(),
        (true, _) => format!(
            "Only this node knows it, until it is started again: tell the other nodes of {}, too. What is to last stands \
             in the federation's file: `enabled: false`, or a higher `drain_epoch`.\n",
            site.name
        ),
        (false, DrainState::InService) => {
            format!("This node is not of {0}: tell the nodes of {0}, too.\n", site.name)
        }
        (false, _) => format!(
            "This node is not of {0}: it re-homes {0}'s sessions at the deadline. Tell the nodes of {0}, too, or new \
             sessions go on starting there.\n",
            site.name
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::view::example, cli::table::golden as check};

    #[test]
    fn an_account_of_a_choice_names_each_member_and_why_it_was_excluded() {
        check("gslb-explain.txt", &table::fields(&example::choice_explanation()));
    }

    #[test]
    fn members_that_get_clients_again_are_named() {
        let done = |resumed: &[&str]| Resumed {
            gslb_service: "gs-1".into(),
            resumed: resumed.iter().map(|name| name.to_string()).collect(),
        };
        assert_eq!(resumed(&done(&[])), "No member of gs-1 waited for that.\n");
        let both = resumed(&done(&["site_A", "site_B"]));
        assert_eq!(both, "Members of gs-1 get clients again: site_A, site_B.\n");
    }

    #[test]
    fn a_site_that_is_emptied_is_shown_with_its_deadline_and_its_sessions() {
        let [own, peer] = example::sites();
        check("gslb-drain.txt", &(table::fields(&own) + &note(&own)));
        check("gslb-drain-peer.txt", &(table::fields(&peer) + &note(&peer)));
    }
}
