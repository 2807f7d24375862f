//! llama-server answers such requests with the reason, and goes on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::nested;
use crate::common::gguf::{Tiny, write_tiny_model};

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(model: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let port = port.port();
        let child = Command::new(env!("CARGO_BIN_EXE_llama-server"))
            .args(["-m", model, "--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["-c", "256", "-np", "1", "-t", "1", "--no-warmup"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("llama-server starts");
        let server = Self { child, port };
        let start = Instant::now();
        while !server.request("GET", "/health", "").is_some_and(|reply| reply.contains(" 200 ")) {
            assert!(start.elapsed() < Duration::from_secs(60), "llama-server is not ready");
            thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Head and body of the reply.
    fn request(&self, method: &str, path: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        Some(reply)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_answers_with_the_limit_and_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("tiny.gguf");
    write_tiny_model(&path, Tiny::new(64));
    let server = Server::start(path.to_str().expect("a path in UTF-8"));
    let complete = |more: &str| {
        let body = format!(r#"{{"prompt": "a", "n_predict": 2{more}}}"#);
        server.request("POST", "/completion", &body).expect("an answer")
    };
    let parens = nested(100_000, "(", r#"\"a\""#, ")");
    let brackets = nested(100_000, "[", "", "]");
    let pattern = nested(5000, "(", "", ")");
    for (more, words) in [
        (format!(r#", "grammar": "root ::= {parens}""#), ["parentheses", "500 deep"]),
        (r#", "grammar": "root ::= \"a\"{5,3}""#.into(), ["at least 5", "at most 3"]),
        (format!(r#", "x": {brackets}"#), ["JSON nests", "200 deep"]),
        (
            r##", "json_schema": {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}}"##.into(),
            ["references", "100 deep"],
        ),
        (
            format!(
                r#", "grammar": "root ::= \"a\"", "grammar_lazy": true, "grammar_triggers": [{{"type": 2, "value": "{pattern}"}}]"#
            ),
            ["regular expression", "500"],
        ),
    ] {
        let reply = complete(&more);
        assert!(!reply.contains("HTTP/1.1 200"), "{reply}");
        for word in words {
            assert!(reply.contains(word), "no {word:?} in: {reply}");
        }
        let reply = complete("");
        assert!(reply.contains("HTTP/1.1 200"), "{reply}");
    }
}
