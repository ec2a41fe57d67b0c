//! Random: each choice is independent of the ones before, with a chance in proportion to the ratio.

use rand::{Rng, RngCore};

use super::{Balance, Candidates};

/// Remembers nothing.
pub(super) struct Random;

impl Balance for Random {
    fn choose(&self, candidates: Candidates<'_>, rng: &mut dyn RngCore) -> Option<usize> {
        let all: u64 = candidates.iter().map(|(_, server)| u64::from(server.config().ratio)).sum();
        if all == 0 {
            return None;
        }
        let mut ticket = rng.random_range(0..all);
        let mut last = None;
        for (index, server) in candidates.iter() {
            let ratio = u64::from(server.config().ratio);
            if ticket < ratio {
                return Some(index);
            }
            ticket -= ratio;
            last = Some(index);
        }
        // A server went down between the two looks, and its ticket was drawn.
        last
    }
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
}
