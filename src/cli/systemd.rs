//! What systemd is told (`Type=notify`, `Type=notify-reload`); nothing where nobody listens at `NOTIFY_SOCKET`.

use sd_notify::{NotifyState, notify};

/// It serves, under this process id: also when it took over from another.
pub(super) fn ready() {
    tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
}

/// A reload has begun; [`reloaded`] follows.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

pub(super) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// The service goes on in another process.
pub(super) fn handed_over(pid: Option<u32>) {
    if let Some(pid) = pid {
        tell(&[NotifyState::MainPid(pid)]);
    }
}

/// The service ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
