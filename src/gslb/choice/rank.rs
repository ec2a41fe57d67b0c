//! Puts eligible members into the order in which an algorithm prefers them.
//!
//! Every member gets a rank, the smallest first, and among equal ranks a key that shares clients by `ratio`: a
//! number from 0 to 1 that chance or the client's network gives the member, as `-ln(number) / ratio`. The smallest of
//! such keys is a member's with the probability of its ratio (Efraimidis and Spirakis, weighted sampling), and with
//! numbers from a hash it is weighted rendezvous hashing: when a member leaves, only its own clients move.

use smallvec::SmallVec;

use super::{
    Reason,
    asker::Asker,
    service::{Group, Member},
};
use crate::config::GslbAlgorithm;

/// A member that may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Ranked {
    /// Its place among the members of the service.
    pub member: u16,
    pub rank: f64,
    pub key: f64,
}

pub type Order = SmallVec<[Ranked; 8]>;

/// The eligible members `found`, the best first as far as the first `wanted`; members that the algorithm rules out are
/// left out. At least one stays.
pub fn rank(
    group: &Group,
    members: &[Member],
    found: &[u16],
    asker: &mut Asker<'_>,
    (seed, wanted): (u64, usize),
) -> (Reason, Order) {
    let of = |ranks: &mut dyn FnMut(&Member) -> f64, chance: u64| -> Order {
        let found = found.iter().map(|number| (*number, &members[usize::from(*number)]));
        found.map(|(member, it)| Ranked { member, rank: ranks(it), key: key(chance, it) }).collect()
    };
    let chance = mix(seed);
    let by_client = |asker: &mut Asker<'_>| mix(asker.hash(group.mask, group.mask6));
    let (reason, mut order) = match group.algorithm {
        GslbAlgorithm::RoundRobin => (Reason::RoundRobin, of(&mut |_| 0.0, chance)),
        GslbAlgorithm::PreferenceOrder => (Reason::PreferenceOrder, of(&mut Member::preference, chance)),
        GslbAlgorithm::ConsistentHash => (Reason::ConsistentHash, of(&mut |_| 0.0, by_client(asker))),
        GslbAlgorithm::Geo => (Reason::Geo, by_distance(asker, of, chance)),
        GslbAlgorithm::Topology => (Reason::Topology, by_site(asker, of, chance)),
    };
    let reason = if order.is_empty() { Reason::Fallback } else { reason };
    if order.is_empty() {
        order = match group.fallback {
            GslbAlgorithm::PreferenceOrder => of(&mut Member::preference, chance),
            GslbAlgorithm::RoundRobin => of(&mut |_| 0.0, chance),
            _ => of(&mut |_| 0.0, by_client(asker)),
        };
    }
    sort(&mut order, wanted);
    (reason, order)
}

/// The nearest first; nothing where the client's place is not known, or no member's.
fn by_distance(
    asker: &mut Asker<'_>,
    of: impl Fn(&mut dyn FnMut(&Member) -> f64, u64) -> Order,
    chance: u64,
) -> Order {
    let Some(client) = asker.point() else { return Order::new() };
    let mut order = of(&mut |member| member.apart(client), chance);
    if order.iter().all(|ranked| ranked.rank.is_infinite()) {
        order.clear();
    }
    order
}

/// In the order of the sites that are best for the client; nothing where none of them has a member.
fn by_site(
    asker: &mut Asker<'_>,
    of: impl Fn(&mut dyn FnMut(&Member) -> f64, u64) -> Order,
    chance: u64,
) -> Order {
    let Some(sites) = asker.sites() else { return Order::new() };
    let place = |member: &Member| sites.iter().position(|site| member.site == Some(*site));
    let mut order = of(&mut |member| place(member).map_or(f64::INFINITY, |place| place as f64), chance);
    order.retain(|ranked| ranked.rank.is_finite());
    order
}

/// The first `wanted` in order; the rest is behind them somehow.
fn sort(order: &mut Order, wanted: usize) {
    let before = |a: &Ranked, b: &Ranked| a.rank.total_cmp(&b.rank).then(a.key.total_cmp(&b.key));
    if wanted != 1 {
        return order.sort_unstable_by(before);
    }
    let best = (0..order.len()).min_by(|a, b| before(&order[*a], &order[*b]));
    order.swap(0, best.expect("somebody is eligible"));
}

/// Shares by ratio what `chance` shares evenly.
fn key(chance: u64, member: &Member) -> f64 {
    let number = ((mix(chance ^ member.hash) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -number.ln() / f64::from(member.ratio)
}

/// Spreads numbers that are close to one another over all 64 bits (the finalizer of SplitMix64).
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
