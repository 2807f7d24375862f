//! A running `llama-server`, spoken to over HTTP.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::without_llama_variables;

const START_LIMIT: Duration = Duration::from_secs(60);
const REPLY_LIMIT: Duration = Duration::from_secs(120);

/// A server that ended by itself.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub log: String,
}

/// A server that listens; dropped, it is killed.
pub struct Server {
    child: Child,
    port: u16,
    log: tempfile::NamedTempFile,
}

impl Server {
    /// With a model, which must load.
    #[track_caller]
    pub fn start(model: &Path, args: &[&str]) -> Self {
        Self::try_start(model, args).unwrap_or_else(|ended| {
            panic!("{args:?}: llama-server ended with {}: {}", ended.status, ended.log)
        })
    }

    /// With a model. Error: the server ended before it was ready.
    pub fn try_start(model: &Path, args: &[&str]) -> Result<Self, Ended> {
        let model = model.to_str().expect("a path in UTF-8");
        Self::launch(&[&["-m", model, "--no-warmup", "-t", "1"], args].concat())
    }

    /// With these arguments alone.
    pub fn launch(args: &[&str]) -> Result<Self, Ended> {
        // A free port. Another program could take it in between; the server would then say so.
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let log = tempfile::NamedTempFile::new().expect("a temporary file");
        let output =
            || Stdio::from(File::options().append(true).open(log.path()).expect("the log"));
        let child = without_llama_variables(&mut Command::new(env!("CARGO_BIN_EXE_llama-server")))
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(args)
            .env("GGML_NO_BACKTRACE", "1") // a debugger takes seconds to say what the log says
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .spawn()
            .expect("llama-server starts");
        let mut server = Self { child, port, log };
        let start = Instant::now();
        while server.try_ask("GET", "/health", "").is_none_or(|(code, _)| code != 200) {
            if let Some(status) = server.child.try_wait().expect("our child") {
                return Err(Ended { status, log: server.log() });
            }
            assert!(start.elapsed() < START_LIMIT, "llama-server is not ready: {}", server.log());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Sends a request; returns the status and the body. The server must answer.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask_text(method, path, &if body.is_null() { String::new() } else { body.to_string() })
    }

    /// The same with any text for a body.
    #[track_caller]
    pub fn ask_text(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.try_ask(method, path, body)
            .unwrap_or_else(|| panic!("no answer to {method} {path} {body}: {}", self.log()))
    }

    /// Posts what must succeed.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (code, reply) = self.ask("POST", path, body);
        assert_eq!(code, 200, "{path} {body}: {reply}: {}", self.log());
        reply
    }

    /// Posts what must be refused with this status; returns the message.
    #[track_caller]
    pub fn refused(&self, path: &str, body: &Value, code: u16) -> String {
        let (got, reply) = self.ask("POST", path, body);
        assert_eq!(got, code, "{path} {body}: {reply}: {}", self.log());
        reply["error"]["message"].as_str().expect("a message").to_string()
    }

    /// Continues a prompt greedily by `n` tokens, past the end of the text if need be. `more`: further fields.
    #[track_caller]
    pub fn complete(&self, prompt: impl Into<Value>, n: usize, more: Value) -> Completion {
        Completion(self.post("/completion", &completion(prompt, n, more)))
    }

    /// No connection, no status, no JSON: none.
    fn try_ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
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
        let code = head.split(' ').nth(1)?.parse().ok()?;
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { join_chunks(body)? } else { body.to_string() };
        Some((code, serde_json::from_str(&body).ok()?))
    }
}

/// What came in chunks, each after a line with its size in hexadecimal digits.
fn join_chunks(mut body: &str) -> Option<String> {
    let mut all = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(all);
        }
        all.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of a request for a greedy completion; see [`Server::complete`].
pub fn completion(prompt: impl Into<Value>, n: usize, more: Value) -> Value {
    let mut body = json!({
        "prompt": prompt.into(), "n_predict": n, "temperature": 0, "ignore_eos": true,
        "cache_prompt": false, "return_tokens": true,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

/// The reply to a request for a completion.
#[derive(Debug)]
pub struct Completion(pub Value);

impl Completion {
    pub fn text(&self) -> &str {
        self.0["content"].as_str().expect("a text")
    }

    pub fn tokens(&self) -> Vec<i64> {
        let tokens = self.0["tokens"].as_array().unwrap_or_else(|| panic!("no tokens: {}", self.0));
        tokens.iter().map(|t| t.as_i64().expect("a token")).collect()
    }

    /// A number among the timings: `cache_n` is how many tokens of the prompt were there already.
    pub fn timing(&self, name: &str) -> u64 {
        self.0["timings"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {}", self.0))
    }

    /// How much less likely than its own token `i` this answer thought another; none if it was not among the first.
    pub fn margin(&self, i: usize, token: i64) -> Option<f64> {
        let at = &self.0["completion_probabilities"][i];
        let of = |token: i64| {
            let top = at["top_logprobs"].as_array()?;
            top.iter().find(|t| t["id"] == token)?["logprob"].as_f64()
        };
        Some(of(at["id"].as_i64()?)? - of(token)?)
    }

    /// The answers are the same, or part where this one finds both tokens about as likely: the other's less so by at most
    /// `tie`, in nats. After that they are two texts and not comparable. Returns how many tokens are the same.
    #[track_caller]
    pub fn assert_same(&self, other: &Self, tie: f64, what: &str) -> usize {
        let (mine, others) = (self.tokens(), other.tokens());
        assert_eq!(mine.len(), others.len(), "{what}");
        let Some(i) = (0..mine.len()).find(|&i| mine[i] != others[i]) else { return mine.len() };
        let margin = self.margin(i, others[i]);
        assert!(
            margin.is_some_and(|m| m <= tie),
            "{what}: token {i} of {:?} and {:?}: {margin:?}",
            self.text(),
            other.text()
        );
        i
    }

    /// [`Completion::assert_same`], and what is the same is as likely in both, within `tie`.
    #[track_caller]
    pub fn assert_like(&self, other: &Self, tie: f64, what: &str) {
        for i in 0..self.assert_same(other, tie, what) {
            let (mine, others) = (self.logprob(i), other.logprob(i));
            assert!((mine - others).abs() <= tie, "{what}: token {i}: {mine}, {others}");
        }
    }

    /// How likely this answer found its token `i`. Unknown, and 0, for one that a draft had right.
    fn logprob(&self, i: usize) -> f64 {
        let at = &self.0["completion_probabilities"][i];
        at["logprob"].as_f64().unwrap_or_else(|| panic!("no n_probs: {}", self.0))
    }
}
