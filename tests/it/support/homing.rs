//! The real program: `homing run` with a configuration of the test's, and its other commands.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
};

use super::{
    client::{Answer, Connection, Request},
    config::Site,
    eventually, soon,
};

/// A running homing. It is killed when the test ends; a failing test shows its log.
pub struct Homing {
    /// Where its first virtual service listens.
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    log: Log,
    dir: Arc<TempDir>,
}

impl Homing {
    /// Starts it and waits until it is ready.
    pub async fn start(site: &Site) -> Self {
        Self::start_program(Path::new(BINARY), site).await
    }

    /// Starts another program with homing's command line, and waits until it is ready.
    pub async fn start_program(program: &Path, site: &Site) -> Self {
        Self::spawn_program(program, site).await.ready().await
    }

    /// Starts it with what it is to log, as `HOMING_LOG` has it, and waits until it is ready.
    pub async fn start_logging(site: &Site, log: &str) -> Self {
        Self::launch(Path::new(BINARY), site, Some(log)).await.ready().await
    }

    /// Starts it with something changed about its process, and waits until it is ready.
    pub async fn start_as(site: &Site, change: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let config = site.write(dir.path());
        // The process may be another user's.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))
            .expect("permissions can be set");
        Self::spawn_changed(Path::new(BINARY), Arc::new(dir), &config, site, change).ready().await
    }

    /// Starts it and does not wait.
    pub async fn spawn(site: &Site) -> Self {
        Self::spawn_program(Path::new(BINARY), site).await
    }

    /// Starts another program with homing's command line, and does not wait.
    pub async fn spawn_program(program: &Path, site: &Site) -> Self {
        Self::launch(program, site, None).await
    }

    async fn launch(program: &Path, site: &Site, log: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let config = site.write(dir.path());
        Self::spawn_in(program, dir, &config, site, log)
    }

    /// Starts it with a configuration of the site that lies somewhere in `dir`, and waits until it is ready.
    pub async fn start_in(dir: TempDir, config: &Path, site: &Site) -> Self {
        Self::spawn_in(Path::new(BINARY), dir, config, site, None).ready().await
    }

    fn spawn_in(program: &Path, dir: TempDir, config: &Path, site: &Site, log: Option<&str>) -> Self {
        Self::spawn_changed(program, Arc::new(dir), config, site, |command| {
            command.envs(log.map(|level| ("HOMING_LOG", level)));
        })
    }

    /// Starts another process beside this one, with this configuration, and does not wait.
    pub fn beside(&self, site: &Site, args: &[&str], variable: Option<(&str, &str)>) -> Self {
        let config = site.write(self.dir());
        Self::spawn_changed(Path::new(BINARY), self.dir.clone(), &config, site, |command| {
            command.args(args).envs(variable);
        })
    }

    /// Starts a process that waits to take over from this one.
    pub async fn successor(&self, site: &Site) -> Self {
        let next = self.beside(site, &["--upgrade"], None);
        next.says("taking over when it gets SIGQUIT").await;
        self.says("a new process waits to take over").await;
        next
    }

    /// Has it hand over to a process that waits, which serves when this returns.
    pub async fn hands_over(&self) {
        self.signal(libc::SIGQUIT);
        self.says("the new process serves").await;
    }

    /// Waits until it is ready.
    pub async fn once_ready(self) -> Self {
        self.ready().await
    }

    fn spawn_changed(
        program: &Path,
        dir: Arc<TempDir>,
        config: &Path,
        site: &Site,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = Command::new(program);
        command
            .args(["run", "--config"])
            .arg(config)
            .env_remove("HOMING_ADMIN")
            .env_remove("HOMING_ADMIN_TOKEN_FILE")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        change(&mut command);
        let mut child = command.spawn().expect("the program starts");
        let log = Log::default();
        child.stdout.take().into_iter().for_each(|stdout| log.follow(stdout));
        child.stderr.take().into_iter().for_each(|stderr| log.follow(stderr));
        Self { addr: site.addr, admin: site.admin, child, log, dir }
    }

    async fn ready(mut self) -> Self {
        let admin = self.admin;
        let (child, log) = (&mut self.child, &self.log);
        eventually("homing is ready", async || {
            if let Some(status) = child.try_wait().expect("the program can be asked") {
                panic!("homing ended early with {status}:\n{}", log.text());
            }
            matches!(try_get(admin, "/readyz").await, Some(answer) if answer.status == 200)
        })
        .await;
        self
    }

    /// A page of the admin API.
    pub async fn get(&self, path: &str) -> Answer {
        Request::get(path).host("admin").send(self.admin).await
    }

    /// Where its configuration lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Changes its configuration and has it loaded; what the admin API answered.
    pub async fn reload(&self, site: &Site) -> serde_json::Value {
        site.write(self.dir());
        let answer = Request::new("POST", "/api/v1/reload").host("admin").send(self.admin).await;
        serde_json::from_slice(&answer.body).expect("the API answers JSON")
    }

    /// The same for a configuration that is right.
    pub async fn reloaded(&self, site: &Site) -> serde_json::Value {
        let reload = self.reload(site).await;
        assert_eq!(reload["result"], "success", "{reload:#}");
        reload
    }

    /// Resident memory, in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// A JSON page of the admin API.
    pub async fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        serde_json::from_slice(&answer.body).expect("the API answers JSON")
    }

    /// The sum of a metric's samples that have these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).await.into_iter().sum()
    }

    /// Whether a metric has a sample with these labels.
    pub async fn has_metric(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        !self.samples(name, labels).await.is_empty()
    }

    /// Waits until a metric's sum is at least this.
    pub async fn counts(&self, name: &str, labels: &[(&str, &str)], at_least: f64) {
        let what = format!("{name}{labels:?} reaches {at_least}");
        eventually(&what, async || self.metric(name, labels).await >= at_least).await;
    }

    /// Waits until a metric's sum is this: counters move when a request is over, a moment after its answer.
    pub async fn settles(&self, name: &str, labels: &[(&str, &str)], at: f64) {
        let what = format!("{name}{labels:?} settles at {at}");
        eventually(&what, async || self.metric(name, labels).await == at).await;
    }

    /// Waits until homing knows whether a server is up.
    pub async fn sees(&self, pool: &str, server: SocketAddr, up: bool) {
        let labels = [("pool", pool), ("server", &server.to_string())];
        let what = format!("{server} of {pool} is {}", if up { "up" } else { "down" });
        let is = async || self.metric("homing_pool_server_up", &labels).await == f64::from(u8::from(up));
        eventually(&what, is).await;
    }

    async fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let answer = self.get("/metrics").await;
        let page = String::from_utf8_lossy(&answer.body);
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            let has = |(label, value): &(&str, &str)| {
                rest.split([',', '}']).any(|pair| pair == format!("{label}=\"{value}\""))
            };
            (found == name && labels.iter().all(has)).then(|| value.parse().ok())?
        };
        page.lines().filter_map(sample).collect()
    }

    /// What it has said on stdout and stderr so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// How many lines of the log have this in them.
    pub fn log_lines(&self, part: &str) -> usize {
        self.log().lines().filter(|line| line.contains(part)).count()
    }

    /// Waits until the log has this in it.
    pub async fn says(&self, part: &str) {
        eventually(part, async || self.log_lines(part) > 0).await;
    }

    /// The processor time that its process has used.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
        let ticks = |nth| fields.split_whitespace().nth(nth).and_then(|ticks| ticks.parse::<u64>().ok());
        let ticks = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
        Duration::from_millis(10 * ticks.expect("two numbers"))
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the program runs")
    }

    /// The most memory that its process has had in use so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
        let kibibytes: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes << 10
    }

    /// Sends a signal and returns at once.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("process ids are small");
        // SAFETY: `kill` touches no memory of ours, and the child has not been waited for, so the id is still its.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "the signal can be sent");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        soon("homing ends", self.child.wait()).await.expect("the program can be waited for")
    }

    /// Asks it to end and waits.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.ended().await
    }

    /// Ends it at once, as a crash would.
    pub async fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.ended().await;
    }

    /// A command that asks it something.
    pub async fn command(&self, args: &[&str]) -> Output {
        let admin = format!("http://{}", self.admin);
        run(&[args, &["--admin", &admin]].concat()).await
    }
}

impl Drop for Homing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- homing's log ({}):\n{}---", self.addr, self.log.text());
        }
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Both streams.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `homing ARGS` to its end.
pub async fn run(args: &[&str]) -> Output {
    run_in(Path::new("."), args).await
}

/// The same in a directory.
pub async fn run_in(dir: &Path, args: &[&str]) -> Output {
    let enter = |command: &mut Command| {
        command.current_dir(dir);
    };
    run_as(args, enter).await
}

/// The same with something changed about its process.
pub async fn run_as(args: &[&str], change: impl FnOnce(&mut Command)) -> Output {
    let mut command = program(args);
    change(&mut command);
    let output = soon("the command ends", command.output()).await.expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// `homing ARGS`, yet to be started, which nothing of the environment tells whom to ask.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(args).env_remove("HOMING_ADMIN").env_remove("HOMING_ADMIN_TOKEN_FILE");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn try_get(admin: SocketAddr, path: &str) -> Option<Answer> {
    let stream = tokio::net::TcpStream::connect(admin).await.ok()?;
    Connection::over(stream).try_ask(&Request::get(path).host("admin")).await.ok()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn follow(&self, stream: impl AsyncRead + Send + Unpin + 'static) {
        let log = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                *log.0.lock() += &(line + "\n");
            }
        });
    }

    fn text(&self) -> String {
        self.0.lock().clone()
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_homing");
