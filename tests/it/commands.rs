//! What commands have in common: watching, whom they ask and with what, completion, the manual.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::support::{
    client::Request,
    config::{APP, Site},
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
