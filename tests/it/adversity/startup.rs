//! A start that fails says so in one line, with what to do.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path};

use tokio::process::Command;

use crate::support::{
    certs::cert_for,
    config::{Site, parse},
    homing::run_as,
    net,
    origin::Origin,
};

#[tokio::test]
async fn a_start_that_fails_says_why_in_one_line() {
    let app = Origin::start("app").await;
    let site = || Site::new(&[&app]);
    let at = |ip: &str, port: u16| site().vs("services", &format!("[{{address: {ip}, port: {port}}}]"));
    let taken = TcpListener::bind(net::free_addr()).expect("a free port");
    let taken = taken.local_addr().expect("its address");
    let tls = || site().tls(&cert_for(&["a.com"]));
    let nothing: fn(&Path) = |_| {};
    for (site, spoil, parts) in [
        (
            at(&taken.ip().to_string(), taken.port()),
            nothing,
            vec![
                "error: homing cannot start: listener ",
                ": another program listens there; end it (`ss -ltnp` names it)",
            ],
        ),
        (
            site().with(|yaml| yaml["admin"]["listen"] = taken.to_string().into()),
            nothing,
            vec![
                "error: homing cannot start: admin.listen ",
                ": another program listens there; end it (`ss -ltnp` names it)",
            ],
        ),
        (at("192.0.2.1", 8080), nothing, vec!["192.0.2.1:8080", "this machine has no such address"]),
        (at("127.0.0.1", 1), nothing, vec!["127.0.0.1:1", "CAP_NET_BIND_SERVICE"]),
        (
            tls(),
            |dir| unreadable(&dir.join("cert.pem")),
            vec!["cert.pem cannot be read", "user that homing runs as"],
        ),
        (
            tls(),
            |dir| unreadable(&dir.join("cert.key")),
            vec!["cert.key cannot be read", "user that homing runs as"],
        ),
        (
            site(),
            |dir| unreadable(&dir.join("homing.yaml")),
            vec!["homing.yaml cannot be read", "user that homing runs as"],
        ),
        (
            site(),
            |dir| fs::remove_file(dir.join("homing.yaml")).expect("removed"),
            vec!["homing.yaml does not exist"],
        ),
        (
            site().with(|yaml| yaml["admin"] = parse("{listen: 'unix:/proc/homing/admin.sock'}")),
            nothing,
            vec!["error: homing cannot start: admin.listen unix:/proc/homing/admin.sock", "directory"],
        ),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = site.write(dir.path());
        spoil(dir.path());
        let config = config.to_str().expect("temporary paths are text");
        let ended = run_as(&["run", "--config", config], powerless).await;
        assert_ne!(ended.code, Some(0), "{parts:?}: {}", ended.text());
        let said: Vec<_> = ended.stderr.lines().filter(|line| !line.contains(" INFO ")).collect();
        assert_eq!(said.len(), 1, "{parts:?}: {}", ended.text());
        assert!(parts.iter().all(|part| said[0].contains(part)), "{parts:?}: {}", said[0]);
    }
}

/// Takes away what root may and others may not: read every file, bind every port.
fn powerless(command: &mut Command) {
    let give_up = || {
        // SAFETY: a system call without pointers. It fails for a user who has nothing to give up.
        unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NOROOT) };
        Ok(())
    };
    // SAFETY: the closure does nothing but a system call.
    unsafe { command.pre_exec(give_up) };
}

fn unreadable(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o000)).expect("permissions can be set");
}

const SECBIT_NOROOT: libc::c_ulong = 1;
