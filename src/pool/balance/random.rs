//! Random, with two choices: two servers are drawn with chances in proportion to their ratios, each draw independent of
//! all before, and the one with less in flight for its ratio is taken.
//!
//! One draw alone would leave some servers with many more requests in flight than others; the second evens them out
//! nearly as well as a look at all, and threads that decide at the same time do not all run to the same server.

use rand::{Rng, RngCore};

use super::{Balance, Candidates};
use crate::pool::Server;

/// Remembers nothing.
pub(super) struct Random;

impl Balance for Random {
    fn choose(&self, candidates: Candidates<'_>, rng: &mut dyn RngCore) -> Option<usize> {
        better_of_two(candidates, rng, Server::load)
    }
}

/// Of two servers drawn by ratio, the one that costs less; of equals the first. The same server may be drawn twice,
/// and so even the dearest gets some requests.
pub(super) fn better_of_two<C: PartialOrd>(
    candidates: Candidates<'_>,
    rng: &mut dyn RngCore,
    cost: impl Fn(&Server) -> C,
) -> Option<usize> {
    let all = candidates.iter().map(|(_, server)| server.weight()).sum();
    let (first, one) = draw(candidates, all, rng)?;
    match draw(candidates, all, rng) {
        Some((second, other)) if second != first && cost(other) < cost(one) => Some(second),
        _ => Some(first),
    }
}

/// One of the candidates, whose ratios add up to `all`.
fn draw<'a>(candidates: Candidates<'a>, all: u64, rng: &mut dyn RngCore) -> Option<(usize, &'a Server)> {
    if all == 0 {
        return None;
    }
    let mut ticket = rng.random_range(0..all);
    let mut last = None;
    for (index, server) in candidates.iter() {
        let weight = server.weight();
        last = Some((index, server));
        if ticket < weight {
            break;
        }
        ticket -= weight;
    }
    // It may be that a server went down between the two looks, and its ticket was drawn.
    last
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use crate::{config::LbAlgorithm, pool::fixture};

    #[test]
    fn choices_follow_from_the_generator_alone() {
        let pool = fixture::pool(LbAlgorithm::Random, &[1, 2, 3]);
        let choices = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..32).map(|_| pool.pick(&mut rng, &[]).unwrap().addr()).collect::<Vec<_>>()
        };
        assert_eq!(choices(1), choices(1));
        assert_ne!(choices(1), choices(2));
    }

    #[test]
    fn the_busier_of_two_gets_a_request_only_if_it_is_drawn_twice() {
        let pool = fixture::pool(LbAlgorithm::Random, &[1, 1]);
        let _busy = pool.servers()[0].lease();
        let mut rng = StdRng::seed_from_u64(1);
        let busy = (0..100_000).filter(|_| pool.pick(&mut rng, &[]).unwrap().addr() == fixture::addr(1));
        let busy = busy.count();
        assert!(busy.abs_diff(25_000) < 1_000, "{busy}");
    }
}
