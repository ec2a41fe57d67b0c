//! What commands have in common: watching, whom they ask and with what, completion, the manual.

use std::{os::unix::fs::PermissionsExt, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::support::{
    client::Request,
    config::{APP, Federation, Site, parse},
    eventually,
    homing::{Homing, program, run},
    origin::Origin,
    soon,
};

/// `homing show pool app --watch` of a running homing.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(homing: &Homing) -> Self {
        let admin = format!("http://{}", homing.admin);
        let args = ["show", "pool", APP, "--admin", &admin, "--watch", "100ms"];
        let mut child =
            program(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Self { child, lines }
    }

    /// Reads on to a line that has this in it.
    async fn comes(&mut self, part: &str) {
        let line = async {
            while let Some(line) = self.lines.next_line().await.expect("its output is text") {
                if line.contains(part) {
                    return;
                }
            }
            panic!("it ended before it said {part}");
        };
        soon(&format!("it says {part}"), line).await;
    }

    fn signal(&self, signal: i32) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
        // SAFETY: `kill` touches no memory of ours, and the child has not been waited for, so the id is still its.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the signal can be sent");
    }

    async fn ended(mut self) -> (Option<i32>, String) {
        drop(self.lines);
        let output = soon("it ends", async {
            let status = self.child.wait().await.expect("it can be waited for");
            let mut said = String::new();
            let mut stderr = self.child.stderr.take().expect("stderr is piped");
            tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut said).await.expect("text");
            (status.code(), said)
        });
        output.await
    }
}

#[tokio::test]
async fn watching_shows_what_changes_until_it_is_interrupted() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut watching = Watching::start(&homing);
    watching.comes("OPER_UP").await;
    let path = format!("/api/v1/pools/{APP}/servers/{}/drain", app.addr);
    assert_eq!(Request::new("POST", &path).send(homing.admin).await.status, 200);
    watching.comes("draining").await;
    watching.comes("draining").await;
    watching.signal(libc::SIGINT);
    assert_eq!(watching.ended().await, (Some(0), String::new()));
}

#[tokio::test]
async fn watching_goes_on_over_a_restart_of_homing_and_ends_with_its_reader() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]);
    let mut homing = site.start().await;
    let mut watching = Watching::start(&homing);
    watching.comes("OPER_UP").await;
    homing.kill().await;
    watching.comes("error: homing does not answer").await;
    let again = site.start().await;
    watching.comes("OPER_UP").await;
    assert_eq!(watching.ended().await, (Some(0), String::new()), "nobody reads it any more");
    drop(again);
}

#[tokio::test]
async fn watching_what_is_not_there_fails_at_once() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let output = homing.command(&["show", "pool", "nothing", "--watch"]).await;
    assert_eq!(output.code, Some(1), "{}", output.text());
    assert!(output.stderr.contains("pool nothing is not known"), "{}", output.text());
    let output = homing.command(&["show", "pool", "--watch", "1ms"]).await;
    assert_eq!(output.code, Some(2), "{}", output.text());
    assert!(output.stderr.contains("write 100ms or more"), "{}", output.text());
}

#[tokio::test]
async fn the_shell_takes_the_completions_and_they_complete() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let script = run(&["completion", "bash"]).await;
    assert_eq!(script.code, Some(0), "{}", script.text());
    let file = dir.path().join("homing.bash");
    std::fs::write(&file, &script.stdout).expect("it can be written");
    let complete = "source \"$1\"; COMP_WORDS=(homing show po); COMP_CWORD=2; _homing homing po show; \
                    echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash").args(["-c", complete, "bash"]).arg(&file).output();
    let output = soon("bash ends", output).await.expect("bash is there");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.trim(), "pool", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(run(&["completion", "cmd"]).await.code, Some(2));
}

#[tokio::test]
async fn the_manual_is_printed_or_written() {
    let page = run(&["man"]).await;
    assert!(page.stdout.contains(".TH homing 1"), "{}", page.text());
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let out = dir.path().join("man1");
    let written = run(&["man", "--out", out.to_str().expect("temporary paths are text")]).await;
    assert_eq!(written.code, Some(0), "{}", written.text());
    let show = std::fs::read_to_string(out.join("homing-show.1")).expect("a page of its own");
    assert!(show.contains("watch"), "{show}");
    let refused = run(&["man", "--out", "/proc/homing"]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    assert!(refused.stderr.contains("pages cannot be written into /proc/homing"), "{}", refused.text());
}

#[tokio::test]
async fn the_schema_of_the_configuration_takes_what_check_takes_and_marks_a_misspelt_key() {
    let fed = Federation::new();
    let app = Origin::start("app").await;
    let site = fed.site_a(&[&app]).clone_to(&[&app]).monitored(APP, "http");
    let federation = site.files.iter().find(|(name, _)| name == "federation.yaml").expect("it names one");
    for (kind, file) in [("site", site.yaml.clone()), ("federation", parse(&federation.1))] {
        let printed = run(&["schema", kind]).await;
        let schema: serde_json::Value = serde_json::from_str(&printed.stdout).expect("it is JSON");
        let validator = jsonschema::draft202012::new(&schema).expect("it is a schema");
        let file = serde_json::to_value(&file).expect("it is what JSON has");
        let problems: Vec<_> = validator.iter_errors(&file).map(|problem| problem.to_string()).collect();
        assert!(problems.is_empty(), "{kind}: {problems:#?}");
        let mut misspelt = file.clone();
        misspelt["pool"] = 1.into();
        assert!(!validator.is_valid(&misspelt), "{kind}");
    }
    assert_eq!(run(&["schema"]).await.stdout, run(&["schema", "site"]).await.stdout);
}

#[tokio::test]
async fn the_token_is_found_by_option_or_environment_and_is_asked_for_beyond_loopback() {
    let app = Origin::start("app").await;
    let token = "0123456789abcdef";
    let mut site = Site::new(&[&app]).file("admin.token", token);
    let everywhere = format!("0.0.0.0:{}", site.admin.port());
    site.yaml["admin"] = parse(&format!("{{listen: '{everywhere}', token_file: admin.token}}"));
    let homing = site.start().await;
    let file = homing.dir().join("admin.token").display().to_string();
    let admin = format!("http://{}", homing.admin);
    let show = ["show", "pool", "--admin", &admin];
    let without = run(&show).await;
    assert_eq!(without.code, Some(1), "{}", without.text());
    assert!(without.stderr.contains("HOMING_ADMIN_TOKEN_FILE"), "{}", without.text());
    for option in ["--token-file", "--admin-token-file"] {
        let with = run(&[&show[..], &[option, &file]].concat()).await;
        assert_eq!(with.code, Some(0), "{}", with.text());
    }
    let by_environment = program(&["show", "pool"])
        .env("HOMING_ADMIN", &admin)
        .env("HOMING_ADMIN_TOKEN_FILE", &file)
        .stdout(Stdio::piped())
        .output();
    let output = soon("the command ends", by_environment).await.expect("the program starts");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(APP), "{output:?}");
    for open in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(homing.get(open).await.status, 200, "{open}");
    }
    assert_eq!(homing.get("/api/v1/pools").await.status, 401);

    std::fs::write(homing.dir().join("admin.token"), "another-0123456789").expect("it can be written");
    homing.signal(libc::SIGHUP);
    eventually("the old token is of no use", async || {
        let request = Request::get("/api/v1/pools").header("Authorization", &format!("Bearer {token}"));
        request.send(homing.admin).await.status == 401
    })
    .await;
    let with = run(&[&show[..], &["--token-file", &file]].concat()).await;
    assert_eq!(with.code, Some(0), "{}", with.text());
}

#[tokio::test]
async fn a_socket_file_that_a_killed_homing_left_is_replaced_and_a_live_one_is_refused() {
    let app = Origin::start("app").await;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let socket = dir.path().join("admin.sock").display().to_string();
    let site = || {
        let mut site = Site::new(&[&app]);
        site.yaml["admin"] = parse(&format!("{{listen: 'unix:{socket}'}}"));
        site
    };
    let url = format!("unix:{socket}");
    let answers = async || run(&["show", "pool", "--admin", &url]).await.code == Some(0);
    let mut first = Homing::spawn(&site()).await;
    eventually("it answers", answers).await;
    let mode = std::fs::metadata(&socket).expect("the socket's file").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    let mut second = Homing::spawn(&site()).await;
    assert!(!second.ended().await.success());
    eventually("it says why", async || second.log().contains("another process answers there")).await;
    assert!(answers().await, "the first is not disturbed");

    first.kill().await;
    assert!(!answers().await);
    let third = Homing::spawn(&site()).await;
    eventually("its successor answers", answers).await;
    assert!(third.stop().await.success());
    assert!(!std::path::Path::new(&socket).exists(), "its file goes with it");
}
