//! llama-server with turbo caches: four clients at once get the answers that each gets alone.
#![cfg(feature = "llama")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::models;

const START_LIMIT: Duration = Duration::from_secs(60);
const REPLY_LIMIT: Duration = Duration::from_secs(120);

/// A running server; dropped, it is killed.
struct Server {
    child: Child,
    port: u16,
    log: tempfile::NamedTempFile,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        // A free port. Another program could take it in between; the server would then say so.
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let log = tempfile::NamedTempFile::new().expect("a temporary file");
        let output =
            || Stdio::from(File::options().append(true).open(log.path()).expect("the log"));
        let child = Command::new(env!("CARGO_BIN_EXE_llama-server"))
            .args(["-m", models::path("smollm2").to_str().expect("a path in UTF-8")])
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--no-warmup", "-t", "1"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .spawn()
            .expect("llama-server starts");
        let mut server = Self { child, port, log };
        let start = Instant::now();
        while !server.request("GET", "/health", "").is_some_and(|reply| reply.contains("ok")) {
            let ended = server.child.try_wait().expect("our child");
            assert!(ended.is_none(), "llama-server ended with {ended:?}: {}", server.log());
            assert!(start.elapsed() < START_LIMIT, "llama-server is not ready: {}", server.log());
            thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// The body of a reply with status 200.
    fn request(&self, method: &str, path: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(REPLY_LIMIT)).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let (head, body) = reply.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_string())
    }

    /// Greedy tokens that continue a prompt, as the reply lists them.
    fn complete(&self, prompt: &str) -> String {
        let body = format!(
            r#"{{"prompt": "{prompt}", "n_predict": 16, "temperature": 0, "cache_prompt": false, "return_tokens": true, "ignore_eos": true}}"#
        );
        let reply = self.request("POST", "/completion", &body);
        let reply = reply.unwrap_or_else(|| panic!("no answer to {prompt:?}: {}", self.log()));
        let (_, tokens) =
            reply.split_once("\"tokens\":[").unwrap_or_else(|| panic!("no tokens: {reply}"));
        tokens.split_once(']').expect("an array").0.to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Key anchors are means over what is decoded together: alone, a prompt's keys have other codes. What is
/// then an error of the type's own size may change a token far from sure, but not the first, which is.
#[test]
fn four_clients_at_once_get_the_answers_of_one_at_a_time() {
    for (anchors, n_same) in [("off", 16), ("on", 1)] {
        four_clients(anchors, n_same);
    }
}

fn four_clients(anchors: &str, n_same: usize) {
    let server = Server::start(&[
        "-np",
        "4",
        "-c",
        "2048",
        "-ctk",
        "turbo4",
        "-ctv",
        "turbo3",
        "--temp",
        "0",
        "--kv-anchors",
        anchors,
    ]);
    let prompts = [
        "The capital of France is",
        "One, two, three, four, five, six,",
        "Monday, Tuesday, Wednesday,",
        "Water is made of hydrogen and",
    ];
    let alone: Vec<_> = prompts.iter().map(|p| server.complete(p)).collect();
    for tokens in &alone {
        assert_eq!(tokens.split(',').count(), 16, "{tokens}");
    }
    for round in 0..2 {
        let together = thread::scope(|scope| {
            let clients: Vec<_> =
                prompts.iter().map(|p| scope.spawn(|| server.complete(p))).collect();
            clients.into_iter().map(|c| c.join().expect("an answer")).collect::<Vec<_>>()
        });
        for (together, alone) in together.iter().zip(&alone) {
            let first =
                |tokens: &str| tokens.split(',').take(n_same).map(String::from).collect::<Vec<_>>();
            assert_eq!(first(together), first(alone), "anchors {anchors}, round {round}");
        }
    }
}
