//! What systemd is told, and what the unit file tells it.

use std::{fs, os::unix::net::UnixDatagram, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::support::{config::Site, eventually, homing::Homing, homing::run, origin::Origin};

/// systemd's end of `NOTIFY_SOCKET`.
struct Systemd {
    path: String,
    told: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

impl Systemd {
    fn listen() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("it can be bound");
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = told.clone();
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout can be set");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = socket.recv(&mut bytes) {
                hears.lock().push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
        });
        Self { path: path.display().to_string(), told, _dir: dir }
    }

    async fn is_told(&self, what: &[&str]) {
        eventually(&format!("systemd is told {what:?}"), async || {
            let told = self.told.lock();
            told.iter().any(|told| what.iter().all(|what| told.lines().any(|line| line.starts_with(what))))
        })
        .await;
        self.told.lock().clear();
    }
}

#[tokio::test]
async fn systemd_is_told_of_the_start_of_reloads_of_an_upgrade_and_of_the_end() {
    let app = Origin::start("app").await;
    let systemd = Systemd::listen();
    let site = Site::new(&[&app]).with(|yaml| yaml["upgrade_sock"] = "upgrade.sock".into());
    let told = |command: &mut tokio::process::Command| {
        command.env("NOTIFY_SOCKET", &systemd.path);
    };
    let mut homing = Homing::start_as(&site, told).await;
    systemd.is_told(&["READY=1", &format!("MAINPID={}", homing.pid())]).await;
    homing.signal(libc::SIGHUP);
    systemd.is_told(&["RELOADING=1", "MONOTONIC_USEC="]).await;
    homing.says("configuration reloaded").await;

    let next = homing.beside(&site, &["--upgrade"], Some(("NOTIFY_SOCKET", &systemd.path)));
    homing.says("a new process waits to take over").await;
    let old = homing.pid();
    homing.signal(libc::SIGQUIT);
    let pid = format!("MAINPID={}", next.pid());
    eventually("the new process is the main one", async || {
        systemd.told.lock().iter().filter(|told| told.contains(&pid)).count() == 2
    })
    .await;
    assert!(homing.ended().await.success());
    let told = systemd.told.lock().join("\n");
    assert!(!told.contains("STOPPING=1"), "the service goes on after {old}: {told}");
    assert!(next.stop().await.success());
    systemd.is_told(&["STOPPING=1"]).await;
}

#[tokio::test]
async fn the_unit_file_has_commands_that_there_are() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/homing.service");
    let unit = fs::read_to_string(unit).expect("the unit file is there");
    let commands: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("Exec")).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in commands {
        let (_, command) = command.split_once('=').expect("a key has a value");
        let mut words = command.split(' ');
        assert_eq!(words.next(), Some("/usr/local/bin/homing"), "{command}");
        let args: Vec<_> = words.take_while(|word| *word != "--config").collect();
        let help = run(&[&args[..], &["--help"]].concat()).await;
        assert_eq!(help.code, Some(0), "{command}: {}", help.text());
        assert!(!command.contains("--config") || help.stdout.contains("--config"), "{command}");
    }
    for (key, value) in [("Type", "notify"), ("NotifyAccess", "all"), ("KillMode", "mixed")] {
        assert!(unit.lines().any(|line| line == format!("{key}={value}")), "{key}={value}");
    }
}
