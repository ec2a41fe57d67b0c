//! Whether a request may be tried again: whatever speaks for it, its pool has the last word.

use super::exchange::Ctx;
use crate::pool::Pool;

/// Asks the pool, and holds what it gives until the request is over: one that is tried a third time is still one that
/// is tried again.
pub(super) fn is_allowed(pool: &Pool, ctx: &mut Ctx) -> bool {
    let held = ctx.retry.take();
    match pool.retry(ctx.retries) {
        Ok(retry) => {
            ctx.retry = held.or(retry);
            true
        }
        Err(why) => {
            pool.connections().not_retried(why.as_str());
            false
        }
    }
}

/// The same of the pool whose server is being asked.
pub(super) fn is_allowed_to(ctx: &mut Ctx) -> bool {
    let pool = ctx.attempt.as_ref().map(|attempt| attempt.pool.clone());
    pool.is_some_and(|pool| is_allowed(&pool, ctx))
}
