//! The verbs of `turboquant`, as a user runs them.
#![cfg(feature = "cli")]

mod common;

use std::path::Path;
use std::time::{Duration, SystemTime};

use common::cli::{Folder, LIMIT, TURBOQUANT, assert_error, column, smollm2, turboquant};
use common::gguf::{N_VOCAB, short, text, uint};
use common::gguf_file::Gguf;
use common::hybrid::write_qwen35;
use common::latent::write_latent_model;
use common::process::{Finished, run};
use common::t5::write_t5;

#[test]
fn info_tells_of_the_build() {
    let ran = turboquant(&["info"]);
    ran.assert_success();
    for word in [env!("CARGO_PKG_VERSION"), "ggml", "turbo kernels", "CPU", "turbo3", "3.25", "3.5"]
    {
        assert!(ran.stdout.contains(word), "no {word}: {}", ran.stdout);
    }
    let forced = run(TURBOQUANT, &["info"], &[("TQ_SIMD", "scalar")], LIMIT);
    forced.assert_success();
    assert!(forced.stdout.contains("scalar"), "{}", forced.stdout);
    let impossible = run(TURBOQUANT, &["info"], &[("TQ_SIMD", "quantum")], LIMIT);
    assert_error(&impossible, 1, &["TQ_SIMD=quantum", "scalar"]);
}

#[test]
fn info_tells_of_a_model() {
    let ran = turboquant(&["info", &smollm2()]);
    ran.assert_success();
    assert_eq!(turboquant(&["info", "-m", &smollm2()]).stdout, ran.stdout);
    for word in ["llama", "30: 30 with full attention", "9 query, 3 KV", "8192", "49152"] {
        assert!(ran.stdout.contains(word), "no {word}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("no ["), "every type works: {}", ran.stdout);

    let folder = Folder::new(80);
    let ran = turboquant(&["info", &folder.model()]);
    ran.assert_success();
    for word in ["head_dim          80", "pad heads of 80 values to 128", "use f16"] {
        assert!(ran.stdout.contains(word), "no {word}: {}", ran.stdout);
    }
}

/// The line of `info`, and the object of its JSON.
fn key_scales(model: &str, env: &[(&str, &str)]) -> (String, serde_json::Value) {
    let text = run(TURBOQUANT, &["info", model], env, LIMIT);
    text.assert_success();
    let line = text.stdout.lines().find_map(|line| line.strip_prefix("key scales"));
    let json = run(TURBOQUANT, &["info", model, "--format", "json"], env, LIMIT);
    json.assert_success();
    let value: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    let line = line.unwrap_or_else(|| panic!("no key scales: {}", text.stdout));
    (line.trim().into(), value["model"]["kv_fit"].clone())
}

/// A model in two files, the second of which has the layer.
fn split(model: &str, folder: &Folder) -> String {
    let mut first = Gguf::read(Path::new(model));
    let n_tensors = first.tensors.len();
    let (layer, others) = first.tensors.into_iter().partition(|t| t.name.starts_with("blk."));
    first.tensors = others;
    let mut second = Gguf { metadata: Vec::new(), tensors: layer };
    for (i, part) in [&mut first, &mut second].into_iter().enumerate() {
        part.set("split.no", short(i as u16));
        part.set("split.count", short(2));
    }
    let paths = [1, 2].map(|i| folder.path(&format!("parts-0000{i}-of-00002.gguf")));
    let n = [&5u32.to_le_bytes()[..], &(n_tensors as i32).to_le_bytes()].concat();
    first.set("split.tensors.count", n.clone());
    second.set("split.tensors.count", n);
    first.write(Path::new(&paths[0]));
    second.write(Path::new(&paths[1]));
    paths[0].clone()
}

/// Which fit a model has is known without its weights: the same as programs find, also of a model in parts.
#[test]
fn info_names_the_key_scales_of_a_model() {
    let folder = Folder::new(64);
    let cache = folder.path("cache");
    let env = [("LLAMA_CACHE", cache.as_str())];
    let model = folder.model();
    let parts = split(&model, &folder);
    for model in [&model, &parts] {
        let (line, json) = key_scales(model, &env);
        assert!(line.starts_with("none yet") && line.contains("turboquant calibrate"), "{line}");
        assert_eq!(json, serde_json::json!({ "state": "at first use" }));
    }
    let text = folder.write("text.txt", "words ".repeat(100));
    let args = ["eval", "-m", &model, "-f", &text, "--pairs", "turbo4", "-c", "128"];
    run(TURBOQUANT, &args, &env, LIMIT).assert_success();
    let (quick, of_quick) = key_scales(&model, &env);
    assert!(quick.starts_with("quick ") && quick.contains("-quick1.gguf"), "{quick}");
    assert_eq!((&of_quick["state"], &of_quick["kind"]), (&"kept".into(), &"quick".into()));
    assert_eq!(key_scales(&parts, &env), (quick, of_quick.clone()));

    let args = ["calibrate", "-m", &parts, "-n", "300"];
    run(TURBOQUANT, &args, &env, LIMIT).assert_success();
    let (thorough, of_thorough) = key_scales(&model, &env);
    assert!(thorough.starts_with("thorough "), "{thorough}");
    assert_eq!(of_thorough["kind"], "thorough");
    assert_ne!(of_thorough["id"], of_quick["id"]);

    // Without a place to keep one, it would be made each time.
    let (line, _) = key_scales(&model, &[("LLAMA_CACHE", &model)]);
    assert!(line.starts_with("none yet"), "{line}");
}

/// Scales are fitted to rotated keys, and make others worse.
#[test]
fn scales_are_refused_where_the_rotation_is_off() {
    let folder = Folder::new(64);
    let text = folder.write("text.txt", "words ".repeat(100));
    let model = folder.model();
    let args =
        ["eval", "-m", &model, "-f", &text, "--pairs", "q8_0", "-c", "128", "--kv-calib", "auto"];
    let cache = folder.path("cache");
    let ran = |disabled| {
        run(
            TURBOQUANT,
            &args,
            &[("LLAMA_ATTN_ROT_DISABLE", disabled), ("LLAMA_CACHE", &cache)],
            LIMIT,
        )
    };
    ran("0").assert_success();
    assert_error(&ran("1"), 1, &["LLAMA_ATTN_ROT_DISABLE=1", "rotation", "scales"]);
}

#[test]
fn info_says_why_a_model_has_no_key_scales() {
    let folder = Folder::new(64);
    let latent = folder.path("latent.gguf");
    write_latent_model(Path::new(&latent));
    let encoder = folder.path("t5.gguf");
    write_t5(Path::new(&encoder));
    for (model, reason) in [(latent, "latent (MLA)"), (encoder, "has an encoder")] {
        let (line, json) = key_scales(&model, &[]);
        assert!(line.starts_with("none: ") && line.contains(reason), "{line}");
        assert_eq!(json["state"], "none");
        assert!(json["reason"].as_str().is_some_and(|text| text.contains(reason)), "{json}");
    }
    let normalised = folder.path("norms.gguf");
    write_qwen35(Path::new(&normalised));
    let mut file = Gguf::read(Path::new(&normalised));
    file.metadata.retain(|(key, _)| !key.starts_with("tokenizer."));
    file.set("tokenizer.ggml.model", text("none"));
    file.set("qwen35.vocab_size", uint(N_VOCAB));
    file.write(Path::new(&normalised));
    // Where nobody has kept a fit of the same model with a vocabulary.
    let (line, json) = key_scales(&normalised, &[("LLAMA_CACHE", &folder.path("cache"))]);
    assert!(line.starts_with("from the weights of q and k norms"), "{line}");
    assert!(line.contains("no vocabulary") && json["state"] == "norms", "{line}, {json}");
}

#[test]
fn info_is_also_json() {
    let ran = turboquant(&["info", "--format", "json"]);
    ran.assert_success();
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert!(json["devices"].as_array().is_some_and(|all| !all.is_empty()), "{json}");
    let ran = turboquant(&["info", &smollm2(), "--format", "json"]);
    ran.assert_success();
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let model = &json["model"];
    assert_eq!((&model["layers"], &model["training_context"]), (&30.into(), &8192.into()));
    let types = model["types"].as_array().expect("types");
    assert!(types.iter().all(|t| t["k"] == true && t["v"] == true), "{types:?}");
}

#[test]
fn models_that_are_none_are_refused_by_every_verb() {
    let folder = Folder::new(64);
    let model = std::fs::read(folder.model()).expect("written");
    let text = folder.write("text.txt", "words ".repeat(1000));
    let cases = [
        (folder.path("nothing.gguf"), "nothing.gguf"),
        (folder.path(""), "is a folder"),
        (folder.write("empty.gguf", ""), "not a GGUF file"),
        (folder.write("other.gguf", "PK\u{3}\u{4} and so on"), "not a GGUF file"),
        (folder.write("head.gguf", &model[..1000]), "head.gguf"),
        (folder.write("half.gguf", &model[..model.len() / 2]), "half.gguf"),
    ];
    for (file, word) in &cases {
        assert_error(&turboquant(&["info", file]), 1, &[word]);
        assert_error(&turboquant(&["plan", file]), 1, &[word]);
        assert_error(&turboquant(&["run", "-m", file, "-p", "Hello"]), 1, &[word]);
        assert_error(&turboquant(&["eval", "-m", file, "-f", &text]), 1, &[word]);
    }
}

/// `plan` goes on with the pairs that fit, and `bench model` has no such switch.
#[test]
fn turbo_v_without_flash_attention_is_refused_by_every_verb() {
    let folder = Folder::new(64);
    let text = folder.write("text.txt", "words ".repeat(1000));
    let model = folder.model();
    for args in [
        &["run", "-p", "Hello", "-ctv", "turbo2"][..],
        &["eval", "-f", &text, "--pairs", "f16/turbo2"],
        &["compare", "--raw", "-p", "Hello", "--pairs", "f16", "f16/turbo2"],
        &["needle", "--pairs", "f16/turbo2", "--lengths", "128"],
    ] {
        let ran = turboquant(&[args, &["-m", &model, "-fa", "off"]].concat());
        assert_error(&ran, 1, &["V cache type turbo2", "flash attention", "off"]);
    }
    let plan = turboquant(&["plan", "-m", &model, "--pairs", "f16/turbo2", "-fa", "off"]);
    assert!(plan.stdout.contains("V cache type turbo2 needs flash attention"), "{}", plan.text());
    let ran = turboquant(&["doctor", "-m", &model, "-ctv", "turbo2", "-fa", "off"]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.text());
    assert!(ran.text().contains("flash attention"), "{}", ran.text());
}

/// A short answer to a short question.
fn answer(args: &[&str]) -> Finished {
    let model = smollm2();
    let base = ["run", "-m", &model, "-c", "512", "-n", "8", "--temp", "0", "-t", "2"];
    turboquant(&[&base, args].concat())
}

#[test]
fn run_answers_a_prompt() {
    let ran = answer(&["-p", "Tell me the capital of France.", "-ctk", "turbo4", "-ctv", "turbo3"]);
    ran.assert_success();
    assert!(ran.stdout.contains("Paris"), "{}", ran.text());
    let last = ran.stderr.lines().last().expect("a last line");
    // 30 layers of 192 values, 512 cells: 4.25 + 0.25 and 3.25 bits.
    for word in ["t/s", "first token after", "K 1.58", "V 1.14"] {
        assert!(last.contains(word), "no {word}: {last}");
    }
    let folder = Folder::new(64);
    let file = folder.write("prompt.txt", "The capital of France is");
    let ran = answer(&["-f", &file, "--raw", "--kv-preset", "k4v4", "-fa", "on"]);
    ran.assert_success();
    assert!(ran.stdout.starts_with(" Paris"), "{}", ran.text());
}

/// A short greedy answer, with this piped in.
fn answer_to(input: &[u8], args: &[&str]) -> Finished {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let model = smollm2();
    let mut child = Command::new(TURBOQUANT)
        .args(["run", "-m", &model, "-c", "512", "-n", "8", "--temp", "0", "-t", "2"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // One that refuses its arguments may end before it reads.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Finished { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn run_takes_what_is_piped_in() {
    let same = |piped: &Finished, asked: &Finished| {
        asked.assert_success();
        piped.assert_success();
        assert_eq!(piped.stdout, asked.stdout, "{}", piped.text());
    };
    let question = "What is the capital of France?";
    let asked = answer(&["-p", question]);
    // As `echo` writes it, and without a line end.
    same(&answer_to(b"What is the capital of France?\n", &[]), &asked);
    same(&answer_to(question.as_bytes(), &[]), &asked);
    let raw = answer(&["--raw", "-p", "The capital of France is"]);
    same(&answer_to(b"The capital of France is\n", &["--raw"]), &raw);
    assert_ne!(raw.stdout, asked.stdout);

    // A question and what it is about.
    let both = answer(&["-p", "What colour is the door?\n\nThe door is green."]);
    same(&answer_to(b"The door is green.\n", &["-p", "What colour is the door?"]), &both);
    assert_ne!(both.stdout, answer(&["-p", "What colour is the door?"]).stdout);
    let folder = Folder::new(64);
    let file = folder.write("question.txt", "What colour is the door?");
    same(&answer_to(b"The door is green.\r\n", &["-f", &file]), &both);

    // Nothing is piped in: what is asked is all.
    same(&answer_to(b" \n", &["-p", question]), &asked);
    assert_error(&answer_to(b"\n", &[]), 2, &["no prompt", "-p", "standard input"]);
    assert_error(&answer_to(b"a\xff", &[]), 1, &["standard input is not UTF-8"]);
}

#[test]
fn a_seed_repeats_an_answer() {
    let args =
        ["-p", "Name an animal.", "--temp", "2", "--top-k", "0", "--top-p", "1", "--min-p", "0"];
    let ran = |seed| answer(&[&args[..], &["--seed", seed]].concat());
    assert_eq!(ran("7").stdout, ran("7").stdout);
    assert_ne!(ran("7").stdout, ran("8").stdout);
}

#[test]
fn run_ends_where_the_context_does() {
    let folder = Folder::new(64);
    // Greedy: a model of random weights samples the token that ends an answer now and then.
    let base = ["run", "-m", &folder.model(), "-c", "256", "--raw", "-t", "1", "--temp", "0"];
    let ran = turboquant(&[&base[..], &["-p", "abc"]].concat());
    ran.assert_success();
    assert!(ran.stderr.contains("the context is full"), "{}", ran.text());
    let long = "a".repeat(1000);
    let ran = turboquant(&[&base[..], &["-p", &long]].concat());
    assert_error(&ran, 1, &["1002 tokens", "256", "-c"]);
}

#[test]
fn run_refuses_what_is_no_prompt() {
    let folder = Folder::new(64);
    let bad = folder.write("bad.txt", [b'a', 0xff, b'b']);
    let model = folder.model();
    let run = |args: &[&str]| turboquant(&[&["run", "-m", &model], args].concat());
    assert_error(&run(&["-f", &bad]), 1, &["bad.txt is not UTF-8"]);
    assert_error(&run(&["-f", &folder.path("none.txt")]), 1, &["cannot read", "none.txt"]);
    assert_error(&run(&["-p", ""]), 1, &["prompt is empty"]);
    assert_error(&run(&["-p", " \n"]), 1, &["prompt is empty"]);
    // Standard input is no terminal.
    assert_error(&run(&[]), 2, &["-p"]);
    assert_error(&run(&["--raw"]), 2, &["-p"]);
    assert_error(&run(&["-p", "a", "-f", &bad]), 2, &["cannot be used with"]);
    assert_error(&run(&["-p", "a", "-ctk", "turbo9"]), 2, &["turbo9", "turbo4"]);
    assert_error(&run(&["-p", "a", "--kv-preset", "k9"]), 2, &["k9", "k4v4"]);
    assert_error(&run(&["-p", "a", "-ctv", "turbo4", "-fa", "off"]), 1, &["flash attention"]);
    assert_error(&run(&["-p", "a", "--system-prompt", "b"]), 1, &["chat template"]);
    assert_error(&run(&["-p", "a", "--kv-calib", &bad]), 1, &["bad.txt"]);
    let huge = turboquant(&["run", "-m", &smollm2(), "-p", "a", "-c", "16777216"]);
    assert_error(&huge, 1, &["16777216 tokens", "GiB are free", "8192 tokens fit"]);
}

#[test]
fn eval_compares_pairs() {
    let folder = Folder::new(64);
    let text = folder.write("text.txt", common::TEXT.repeat(2));
    let model = smollm2();
    let base = ["eval", "-m", &model, "-f", &text, "--ctx", "128", "--chunks", "1", "--format"];
    let pairs = ["--pairs", "turbo4/turbo3", "turbo2"];
    let ran = turboquant(&[&base[..], &["csv"], &pairs].concat());
    ran.assert_success();
    assert_eq!(column(&ran.stdout, "K / V"), ["f16 / f16", "turbo4 / turbo3", "turbo2 / turbo2"]);
    assert_eq!(column(&ran.stdout, "bits per value"), ["16.00", "3.88", "2.38"]);
    let kld: Vec<f64> =
        column(&ran.stdout, "mean KLD").iter().map(|x| x.parse().expect("a number")).collect();
    assert_eq!(kld[0], 0.0);
    assert!(0.0 < kld[1] && kld[1] < 0.2 && 2.0 * kld[1] < kld[2], "{kld:?}");
    assert!(ran.stderr.contains("63 tokens scored"), "{}", ran.stderr);

    let ran = turboquant(&[&base[..], &["json", "--pairs", "f16"]].concat());
    ran.assert_success();
    for word in
        ["\"version\"", "\"kernels\"", "\"ctx_size\": 128", "\"k\": \"f16\"", "\"mean_kld\""]
    {
        assert!(ran.stdout.contains(word), "no {word}: {}", ran.stdout);
    }
}

#[test]
fn eval_refuses_what_it_cannot_measure() {
    let folder = Folder::new(80);
    let (model, text) = (folder.model(), folder.write("text.txt", "a".repeat(510)));
    let bad = folder.write("bad.txt", [0xff]);
    let eval = |args: &[&str]| turboquant(&[&["eval", "-m", &model], args].concat());
    // BOS, a space, and a token a byte: 512.
    let f16 = ["--pairs", "f16"];
    eval(&[&["-f", &text], &f16[..]].concat()).assert_success();
    let short = eval(&[&["-f", &text, "-c", "513"], &f16[..]].concat());
    assert_error(&short, 1, &["512 tokens, one chunk 513"]);
    assert_error(&eval(&["-f", &bad, "--pairs", "f16"]), 1, &["not UTF-8"]);
    assert_error(
        &eval(&["-f", &text, "--pairs", "q8_0/f16"]),
        1,
        &["q8_0 / f16", "multiple of 32", "use f16"],
    );
    assert_error(&eval(&["-f", &text, "--pairs", "turbo4+f16"]), 2, &["turbo4+f16"]);
    assert_error(&eval(&[]), 2, &["--file"]);
}

#[test]
fn plan_says_what_fits() {
    let model = smollm2();
    let base = ["plan", &model, "--pairs", "turbo4/turbo4", "-c", "512", "4096", "--format", "csv"];
    let ran = turboquant(&[&base[..], &["--memory", "16G"]].concat());
    ran.assert_success();
    assert_eq!(column(&ran.stdout, "K / V"), ["f16 / f16", "turbo4 / turbo4"]);
    // 30 layers of 192 values for K and V each.
    assert_eq!(column(&ran.stdout, "512"), ["11.2", "3.1"]);
    assert_eq!(column(&ran.stdout, "4096"), ["90.0", "24.6"]);
    assert_eq!(column(&ran.stdout, "longest context"), ["8192", "8192"]);

    let longest = |memory| {
        let ran = turboquant(&[&base[..], &["--memory", memory]].concat());
        ran.assert_success();
        let cells = column(&ran.stdout, "longest context");
        cells.iter().map(|n| n.parse().unwrap_or(0)).collect::<Vec<u32>>()
    };
    let fits = longest("260M");
    assert!(fits[0] < fits[1] && fits[1] <= 8192, "{fits:?}");
    assert_eq!(longest("50M"), [0, 0]);

    let folder = Folder::new(80);
    let ran = turboquant(&["plan", &folder.model(), "--pairs", "turbo4", "q8_0"]);
    ran.assert_success();
    for said in [
        "turbo types pad heads of 80 values to 128; bits per value are then turbo4 6.80, turbo3 5.20",
        "q8_0 needs a head_dim that is a multiple of 32",
    ] {
        assert!(ran.stdout.contains(said), "no {said:?} in: {}", ran.stdout);
    }
    assert_eq!(
        turboquant(&["plan", "-m", &folder.model(), "--pairs", "turbo4", "q8_0"]).stdout,
        ran.stdout
    );
    let bad = turboquant(&["plan", &model, "--memory", "lots"]);
    assert_error(&bad, 2, &["lots", "16G"]);
}

/// A cache folder with two trees, one from before there were times of use, and a download.
fn cache_folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let day = Duration::from_secs(24 * 3600);
    for (name, bytes, days) in [("1a", 3000, Some(5)), ("2b", 2000, Some(1)), ("3c", 100, None)] {
        let tree = dir.path().join("build").join(name);
        std::fs::create_dir_all(tree.join("build")).expect("a folder");
        std::fs::write(tree.join("build/lib.a"), vec![0; bytes]).expect("a file");
        std::fs::write(tree.join("built"), "").expect("a file");
        if let Some(days) = days {
            let used = std::fs::File::create(tree.join("used")).expect("a file");
            used.set_modified(SystemTime::now() - days * day).expect("a time");
        }
    }
    std::fs::create_dir_all(dir.path().join("models")).expect("a folder");
    std::fs::write(dir.path().join("models/a.gguf"), [0; 700]).expect("a file");
    dir
}

#[test]
fn the_cache_is_listed_and_cleaned() {
    let dir = cache_folder();
    let path = dir.path().to_str().expect("a path in UTF-8");
    let cache = |args: &[&str]| {
        let env = [("TQ_CACHE_DIR", path), ("TQ_CACHE_LIMIT", "1GiB")];
        run(TURBOQUANT, &[&["cache"], args].concat(), &env, LIMIT)
    };
    let there = || {
        let names = ["build/1a", "build/2b", "build/3c", "models"];
        names.map(|name| dir.path().join(name).is_dir())
    };
    assert_eq!(cache(&["dir"]).stdout, format!("{path}\n"));

    let csv = cache(&["list", "--format", "csv"]).stdout;
    assert_eq!(column(&csv, "name"), ["build/3c", "build/2b", "build/1a", "models"]);
    assert_eq!(column(&csv, "last used")[2], "5 days ago");
    assert_eq!(column(&csv, "state"), ["of another version", "", "", ""]);
    let text = cache(&[]).stdout;
    for word in [path, "build/1a", "models", "in all", "limit is 1.00 GiB"] {
        assert!(text.contains(word), "no {word}: {text}");
    }
    let json = cache(&["list", "--format", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["entries"][2]["bytes"], 3000);

    // Somebody uses the older one.
    let lock = std::fs::File::open(dir.path().join("locks/use-1a")).expect("listed, it has a lock");
    lock.lock_shared().expect("a lock");
    let ran = cache(&["clean", "--keep", "2500B"]);
    ran.assert_success();
    assert!(ran.stderr.contains("build/1a is in use"), "{}", ran.text());
    assert_eq!(there(), [true; 4]);
    drop(lock);
    let ran = cache(&["clean", "--keep", "2500B", "--dry-run"]);
    assert!(ran.stdout.contains("build/1a (") && ran.stdout.contains("would be"), "{}", ran.text());
    assert_eq!(there(), [true; 4]);
    cache(&["clean", "--keep", "2500B"]).assert_success();
    assert_eq!(there(), [false, true, true, true]);

    assert_error(&cache(&["clean", "build/9z"]), 2, &["build/9z", "turboquant cache"]);
    assert_error(&cache(&["clean", "--keep", "some"]), 2, &["some", "10GB"]);
    cache(&["clean", "build/2b"]).assert_success();
    assert_eq!(there(), [false, false, true, true]);
    cache(&["clean"]).assert_success();
    assert_eq!(there(), [false, false, false, true]);
    assert!(cache(&["clean", "--all"]).stdout.contains("models ("));
    assert_eq!(there(), [false; 4]);
    assert!(cache(&[]).stdout.ends_with("is empty\n"));
}

#[test]
fn completions_and_manual_pages_are_printed() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = turboquant(&["completions", shell]);
        ran.assert_success();
        assert!(ran.stdout.contains("turboquant"), "{shell}: {}", ran.text());
    }
    for (args, word) in
        [(&["man"][..], "turboquant\\-calibrate"), (&["man", "run"], "\\-\\-kv\\-anchors")]
    {
        let ran = turboquant(args);
        ran.assert_success();
        assert!(ran.stdout.starts_with(".ie") && ran.stdout.contains(word), "{}", ran.text());
    }
    assert_error(&turboquant(&["completions", "tcsh"]), 2, &["tcsh", "bash"]);
    assert_error(&turboquant(&["man", "nothing"]), 2, &["nothing"]);
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(TURBOQUANT)
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Ctrl-C while an answer comes: what there is stays, with the last line; the code is that of shells.
#[cfg(unix)]
#[test]
fn an_interrupted_answer_ends_cleanly() {
    use std::io::Read;
    use std::process::{Command, Stdio};
    let model = smollm2();
    assert!(Path::new(&model).is_file());
    let mut child = Command::new(TURBOQUANT)
        .args([
            "run",
            "-m",
            &model,
            "-p",
            "Count to a thousand.",
            "--raw",
            "-c",
            "8192",
            "-t",
            "1",
            "--seed",
            "1",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0; 4]).expect("an answer begins");
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(rest.ends_with('\n') && stderr.contains("t/s"), "{rest:?} {stderr}");
}
