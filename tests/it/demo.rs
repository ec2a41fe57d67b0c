//! `homing demo`: what it prints can be pasted into a shell, and shows what it says.

use std::{path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::support::{eventually, soon};

#[tokio::test]
async fn its_lines_can_be_pasted_and_show_all_three_homes() {
    let demo = Demo::start().await;

    let balanced = demo.paste("for i in 1 2 3 4").await;
    let served: Vec<_> = balanced.lines().map(|line| line.split(':').next().unwrap_or_default()).collect();
    assert_eq!(served.len(), 4, "{balanced}");
    assert!(served[0] != served[1] && served[0] == served[2] && served[1] == served[3], "{balanced}");
    assert!(served.iter().all(|name| name.ends_with("of site_A")), "{balanced}");

    assert_eq!(demo.paste("for i in 1 2 3; do for s in").await.lines().count(), 9);
    for session in ["SID=ann", "SID=bob", "SID=cid"] {
        eventually(&format!("one member has the three copies of {session}"), async || {
            let seen = demo.paste("/seen").await;
            let members: Vec<_> = seen.lines().filter(|line| line.contains(session)).collect();
            members.len() == 1 && members[0].contains(&format!("{session}: 3"))
        })
        .await;
    }

    assert!(
        demo.paste("curl -s -c ").await.contains(" of site_A: GET /, cookies: none"),
        "it starts at site_A"
    );
    assert!(demo.paste("curl -s -b /").await.contains(" of site_A: "), "site_B sends it home");
    assert!(demo.paste("curl -s --resolve").await.contains(" of site_B: "), "without a cookie it stays");

    let runtime = demo.paste(" show gslbservice ").await;
    assert!(runtime.contains("SP-gs-1-pay@site_B") && runtime.contains("fraction_proxied"), "{runtime}");
    let cookie = demo.paste(" cookie inspect ").await;
    assert!(cookie.contains("valid") && cookie.contains("proxied to site_A"), "{cookie}");

    let other = Demo::start().await;
    assert_eq!(other.paste("for i in 1 2 3 4").await.lines().count(), 4, "another finds ports of its own");
    demo.stop(libc::SIGINT).await;
    assert_eq!(other.paste("for i in 1 2 3 4").await.lines().count(), 4, "and goes on");
    other.stop(libc::SIGTERM).await;
}

struct Demo {
    child: Child,
    text: Vec<String>,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Demo {
    /// Starts it and reads what it says.
    async fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_homing"))
            .arg("demo")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut text = Vec::new();
        while !text.last().is_some_and(|line: &String| line.contains("Ctrl-C ends it")) {
            let line = soon("the demo starts", stdout.next_line()).await.expect("stdout can be read");
            text.push(line.unwrap_or_else(|| panic!("the demo ended early:\n{}", text.join("\n"))));
        }
        Self { child, text, _stdout: stdout }
    }

    /// Runs the line that has this part, as a shell does, and returns what it prints.
    async fn paste(&self, part: &str) -> String {
        let line = self.text.iter().find(|line| line.starts_with("   ") && line.contains(part));
        let line = line.unwrap_or_else(|| panic!("no line with {part}:\n{}", self.text.join("\n")));
        let shell = Command::new("sh").arg("-c").arg(line).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = soon(line, shell).await.expect("there is a shell");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {}: {stderr}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sends a signal; it ends well and leaves nothing behind.
    async fn stop(mut self, signal: i32) {
        let said = self.text.iter().find_map(|line| line.split_once("The configurations are in "));
        let dir = said.and_then(|(_, rest)| rest.split(' ').next()).expect("it says where its files are");
        assert!(Path::new(dir).join("federation.yaml").exists());
        let pid = i32::try_from(self.child.id().expect("it runs")).expect("process ids are small");
        // SAFETY: `kill` touches no memory of ours, and the child has not been waited for, so the id is still its.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the signal can be sent");
        let status = soon("the demo ends", self.child.wait()).await.expect("it can be waited for");
        assert!(status.success(), "{status}");
        assert!(!Path::new(dir).exists(), "{dir} is left behind");
    }
}
