//! Loads the configuration again when a file that it was read from has changed (`watch: true`).
//!
//! The files are looked at once in a while, rather than told about by the kernel. A look through all links above a
//! file sees the swap of a Kubernetes ConfigMap, an editor's rename, a file that was missing, and a change on a network
//! file system, alike; watches of inotify see none of these without a watch on each directory on the way, and a
//! machine has a limited number of them. A look is one `stat` for each file.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Instance, Trigger};
use crate::config::{Disk, Look};

/// Watches until `stop`, while the configuration in force asks for it.
pub(super) async fn watch(instance: Arc<Instance>, stop: CancellationToken) {
    let mut due = interval(LOOK_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut settling = Settling::default();
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        if !instance.live.snapshot().config.watch {
            continue;
        }
        let seen = instance.history.lock().seen.clone();
        let when_read = seen.when_read();
        // A file system that hangs must not hold a worker.
        let Ok(now) = tokio::task::spawn_blocking(move || seen.look(&Disk)).await else { continue };
        if settling.has_settled(&when_read, now) {
            instance.reload(Trigger::Watch).await;
        }
    }
}

/// Waits until files that are being changed stay as they are for two looks: several are seldom written at once.
#[derive(Default)]
struct Settling(Option<Look>);

impl Settling {
    fn has_settled(&mut self, when_read: &Look, now: Look) -> bool {
        if now == *when_read {
            self.0 = None;
            return false;
        }
        let settled = self.0.as_ref() == Some(&now);
        self.0 = (!settled).then_some(now);
        settled
    }
}

const LOOK_INTERVAL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load_seen;

    #[test]
    fn a_change_counts_when_two_looks_agree() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("homing.yaml");
        let write = |text: &str| std::fs::write(&file, text).expect("written");
        write("a");
        let (_, seen) = load_seen(Path::new(&file), &[]);
        let mut settling = Settling::default();
        let mut look = || settling.has_settled(&seen.when_read(), seen.look(&Disk));
        assert_eq!([look(), look()], [false, false], "nothing changed");
        write("bc");
        assert!(!look(), "it may go on");
        write("def");
        assert!(!look(), "it did");
        assert!(look());
    }
}
