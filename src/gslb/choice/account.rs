//! An account of a choice: every group and member, what was made of it and why.

use std::{net::IpAddr, time::Instant};

use super::{
    Availability, Choice, Client, Family, Health, Member, Off, ServiceChoice,
    choose::{Eligible, Question, Working},
    globe::Point,
};
use crate::config::Location;

/// Why a client is answered as it is.
#[derive(Clone, Debug)]
pub struct Account<'a> {
    pub choice: Choice<'a>,
    /// It would get public addresses, where members have them.
    pub is_outside: bool,
    /// Where it is, if that is known.
    pub location: Option<Location>,
    /// In the order in which they were looked at, then those that were not needed.
    pub groups: Vec<GroupAccount<'a>>,
}

#[derive(Clone, Debug)]
pub struct GroupAccount<'a> {
    pub name: &'a str,
    pub priority: u32,
    /// As it is written in YAML.
    pub algorithm: &'static str,
    /// Its members were looked at.
    pub was_needed: bool,
    /// Its algorithm chose.
    pub chose: bool,
    pub members: Vec<MemberAccount<'a>>,
}

#[derive(Clone, Debug)]
pub struct MemberAccount<'a> {
    pub member: &'a Member,
    /// What this client would be told of it.
    pub address: Option<IpAddr>,
    pub verdict: Verdict,
    /// How far it is from the client, where both places are known.
    pub kilometres: Option<f64>,
}

/// What was made of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the answer.
    Chosen,
    /// It could have been chosen, and others came first.
    Eligible,
    /// The algorithm ruled it out for this client.
    RuledOut,
    /// Groups before its own had enough members.
    NotNeeded,
    /// Disabled.
    Off(Off),
    /// As its monitors, its site or operators have it.
    Unavailable(Availability),
    /// It has no address of the family.
    NoAddress,
}

impl Verdict {
    /// As an operator reads it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Chosen => "in the answer",
            Self::Eligible => "eligible, and others came first",
            Self::RuledOut => "no site that the topology names for this client",
            Self::NotNeeded => "groups before its own have enough members",
            Self::Off(Off::Member) => "disabled",
            Self::Off(Off::Group) => "its group is disabled",
            Self::Off(Off::Site) => "its site is disabled",
            Self::Unavailable(Availability::Leaving) => "its site is being drained",
            Self::Unavailable(Availability::Held) => "was down and waits for `homing gslb resume`",
            Self::Unavailable(Availability::Down | Availability::Up) => "down",
            Self::NoAddress => "has no address of this family",
        }
    }
}

impl ServiceChoice {
    /// [`choose`](Self::choose), with an account of it.
    pub fn explain(
        &self,
        client: &Client,
        family: Family,
        health: &dyn Health,
        now: Instant,
        seed: u64,
    ) -> Account<'_> {
        let (working, choice) = self.work_out(client, family, health, now, seed);
        let Working { mut asker, question, eligible, ranked } = working;
        let is_outside = asker.is_outside();
        let in_order = |place: u16| ranked.iter().flatten().any(|ranked| ranked.member == place);
        let location = asker.location();
        let at = location.map(Point::from);
        let rest = (0..self.groups.len() as u16).filter(|place| !eligible.groups.contains(place));
        let order: Vec<u16> = eligible.groups.iter().copied().chain(rest).collect();
        let groups = order.into_iter().map(|place| {
            let config = &self.config.groups[usize::from(place)];
            let members = self.range(place).map(|place| {
                let member = &self.members[place];
                MemberAccount {
                    member,
                    address: member.address(question.outside),
                    verdict: self.verdict(place as u16, &question, &eligible, &choice, &in_order),
                    kilometres: at.and_then(|at| member.kilometres(at)),
                }
            });
            GroupAccount {
                name: &config.name,
                priority: config.priority,
                algorithm: config.algorithm.as_str(),
                was_needed: eligible.groups.contains(&place),
                chose: eligible.lead == Some(place),
                members: members.collect(),
            }
        });
        let groups = groups.collect();
        Account { choice, is_outside, location, groups }
    }

    fn verdict(
        &self,
        place: u16,
        question: &Question<'_>,
        eligible: &Eligible,
        choice: &Choice<'_>,
        in_order: &impl Fn(u16) -> bool,
    ) -> Verdict {
        let member = &self.members[usize::from(place)];
        if let Some(off) = member.off {
            return Verdict::Off(off);
        }
        if question.is_in(member, &choice.answer) && (choice.member.is_none() || in_order(place)) {
            return Verdict::Chosen;
        }
        match question.health.of(member, question.now) {
            Availability::Up => {}
            unavailable => return Verdict::Unavailable(unavailable),
        }
        match () {
            () if !eligible.groups.contains(&member.group) => Verdict::NotNeeded,
            () if !eligible.members.contains(&place) => Verdict::NoAddress,
            () if !in_order(place) => Verdict::RuledOut,
            () => Verdict::Eligible,
        }
    }
}
