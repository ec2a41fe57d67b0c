//! The choice itself: who is eligible, who of them is answered with, and what is said while nobody is.

use std::time::Instant;

use smallvec::SmallVec;

use super::{
    Addresses, Availability, Choice, ChoiceAnswer, Client, Family, Health, Member, Reason, ServiceChoice,
    asker::Asker,
    rank::{Order, rank},
};
use crate::config::{DownResponse, PoolAlgorithm};

/// What is asked of a service.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub family: Family,
    pub outside: bool,
    pub health: &'a dyn Health,
    pub now: Instant,
}

/// Who may be answered with.
pub(super) struct Eligible {
    /// By their places among the members of the service.
    pub members: SmallVec<[u16; 16]>,
    /// The groups that were looked at, in this order.
    pub groups: SmallVec<[u16; 8]>,
    /// The first of them with an eligible member: its algorithm chooses.
    pub lead: Option<u16>,
    /// A member is up that has no address of the family.
    pub others: bool,
}

/// What led to a choice.
pub(super) struct Working<'a> {
    pub asker: Asker<'a>,
    pub question: Question<'a>,
    pub eligible: Eligible,
    /// The members that the algorithm of the leading group named, the first first.
    pub ranked: Option<Order>,
}

/// Why a member may be answered with, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitness {
    Fit,
    /// It would be, had it an address of the family.
    NoAddress,
    Unfit,
}

impl ServiceChoice {
    /// Chooses for a client. The same arguments give the same choice; `seed` stands for chance, and is to be another
    /// one for every answer.
    pub fn choose(
        &self,
        client: &Client,
        family: Family,
        health: &dyn Health,
        now: Instant,
        seed: u64,
    ) -> Choice<'_> {
        self.work_out(client, family, health, now, seed).1
    }

    /// Chooses, and keeps what led to it.
    pub(super) fn work_out<'a, 'b>(
        &'a self,
        client: &'b Client,
        family: Family,
        health: &'b dyn Health,
        now: Instant,
        seed: u64,
    ) -> (Working<'b>, Choice<'a>)
    where
        'a: 'b,
    {
        let mut asker = Asker::new(client, &self.places);
        let outside = self.has_public && asker.is_outside();
        let question = Question { family, outside, health, now };
        let eligible = self.eligible(&question, &mut asker);
        let mut ranked = None;
        let (answer, member, reason) = match eligible.lead {
            Some(lead) => {
                let group = &self.groups[usize::from(lead)];
                let (reason, order) =
                    rank(group, &self.members, &eligible.members, &mut asker, (seed, self.count()));
                let order = ranked.insert(order);
                let first = &self.members[usize::from(order[0].member)];
                (self.answer(order, first, &question), Some(first), reason)
            }
            None if eligible.others => (ChoiceAnswer::Empty, None, Reason::NoAddress),
            None => {
                let (answer, reason) = self.down(&question);
                (answer, None, reason)
            }
        };
        let choice = Choice { answer, ttl: self.config.ttl, scope: asker.scope(), member, reason };
        (Working { asker, question, eligible, ranked }, choice)
    }

    /// Takes groups in order, those of one priority at once, until there are enough members.
    fn eligible(&self, question: &Question<'_>, asker: &mut Asker<'_>) -> Eligible {
        let mut eligible =
            Eligible { members: SmallVec::new(), groups: SmallVec::new(), lead: None, others: false };
        let least = (self.config.min_members as usize).max(1);
        let by_distance = match self.config.pool_algorithm {
            PoolAlgorithm::Geo => self.groups_by_distance(question, asker),
            PoolAlgorithm::Priority => None,
        };
        let mut tier = None;
        for place in 0..self.groups.len() {
            let place = by_distance.as_ref().map_or(place, |order| usize::from(order[place]));
            let group = &self.groups[place];
            let own_tier = by_distance.is_some() || tier != Some(group.priority);
            if own_tier && eligible.members.len() >= least {
                break;
            }
            tier = Some(group.priority);
            eligible.groups.push(place as u16);
            for member in group.members.clone() {
                match self.fitness(&self.members[usize::from(member)], question) {
                    Fitness::Fit => {
                        eligible.members.push(member);
                        eligible.lead.get_or_insert(place as u16);
                    }
                    Fitness::NoAddress => eligible.others = true,
                    Fitness::Unfit => {}
                }
            }
        }
        eligible
    }

    /// Groups by their nearest eligible members; `None` where the client's place is not known.
    fn groups_by_distance(
        &self,
        question: &Question<'_>,
        asker: &mut Asker<'_>,
    ) -> Option<SmallVec<[u16; 8]>> {
        let client = asker.point()?;
        let mut order: SmallVec<[(f64, u16); 8]> = (0..self.groups.len() as u16)
            .map(|place| {
                let members = &self.members[self.range(place)];
                let fit = members.iter().filter(|it| self.fitness(it, question) == Fitness::Fit);
                (fit.map(|member| member.apart(client)).fold(f64::INFINITY, f64::min), place)
            })
            .collect();
        // A stable sort: priority among equals.
        order.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Some(order.into_iter().map(|(_, place)| place).collect())
    }

    pub(super) fn range(&self, group: u16) -> std::ops::Range<usize> {
        let members = &self.groups[usize::from(group)].members;
        usize::from(members.start)..usize::from(members.end)
    }

    pub(super) fn fitness(&self, member: &Member, question: &Question<'_>) -> Fitness {
        if member.off.is_some() || question.health.of(member, question.now) != Availability::Up {
            return Fitness::Unfit;
        }
        match question.has_answer(member) {
            true => Fitness::Fit,
            false => Fitness::NoAddress,
        }
    }

    /// How many addresses an answer has at most.
    fn count(&self) -> usize {
        match self.config.num_dns_ip {
            0 => usize::MAX,
            count => count.into(),
        }
    }

    fn answer<'a>(&'a self, order: &Order, first: &'a Member, question: &Question<'_>) -> ChoiceAnswer<'a> {
        if let Some(name) = first.cname() {
            return ChoiceAnswer::Cname(name);
        }
        let members = order.iter().map(|ranked| &self.members[usize::from(ranked.member)]);
        question.addresses(members, self.count())
    }

    /// What is said while no member is up.
    fn down(&self, question: &Question<'_>) -> (ChoiceAnswer<'_>, Reason) {
        match &self.config.down_response {
            DownResponse::None => (ChoiceAnswer::Silent, Reason::DownNone),
            DownResponse::Empty => (ChoiceAnswer::Empty, Reason::DownEmpty),
            DownResponse::Cname(name) => (ChoiceAnswer::Cname(name), Reason::DownCname),
            DownResponse::FallbackIp { v4, v6 } => {
                let ip = match question.family {
                    Family::V4 => v4.map(Into::into),
                    Family::V6 => v6.map(Into::into),
                };
                let answer =
                    ip.map_or(ChoiceAnswer::Empty, |ip| ChoiceAnswer::Addresses(Addresses::from_elem(ip, 1)));
                (answer, Reason::DownFallbackIp)
            }
            DownResponse::AllRecords => {
                let enabled = || self.members.iter().filter(|member| member.off.is_none());
                let answer = match question.addresses(enabled(), usize::MAX) {
                    ChoiceAnswer::Empty => enabled().find_map(Member::cname).map(ChoiceAnswer::Cname),
                    answer => Some(answer),
                };
                (answer.unwrap_or(ChoiceAnswer::Empty), Reason::DownAllRecords)
            }
        }
    }
}

impl Question<'_> {
    fn has_answer(&self, member: &Member) -> bool {
        match member.address(self.outside) {
            Some(ip) => self.family.has(ip),
            None => true,
        }
    }

    /// Whether an answer leads to a member.
    pub(super) fn is_in(&self, member: &Member, answer: &ChoiceAnswer<'_>) -> bool {
        match answer {
            ChoiceAnswer::Addresses(addresses) => {
                member.address(self.outside).is_some_and(|ip| addresses.contains(&ip))
            }
            ChoiceAnswer::Cname(name) => member.cname() == Some(*name),
            ChoiceAnswer::Empty | ChoiceAnswer::Silent => false,
        }
    }

    /// The addresses of these members, each once.
    fn addresses<'a>(
        &self,
        members: impl Iterator<Item = &'a Member>,
        count: usize,
    ) -> ChoiceAnswer<'static> {
        let mut addresses = Addresses::new();
        let fit = members.filter_map(|member| member.address(self.outside));
        for ip in fit.filter(|ip| self.family.has(*ip)) {
            if addresses.len() == count {
                break;
            }
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        if addresses.is_empty() { ChoiceAnswer::Empty } else { ChoiceAnswer::Addresses(addresses) }
    }
}
