//! `turboquant bench`, and the pictures of `bench` and `eval`.
#![cfg(feature = "cli")]

mod common;

use common::cli::{self, LIMIT, TURBOQUANT, turboquant};
use common::process::{Finished, run};
use serde_json::Value;

fn json(ran: &Finished) -> Value {
    ran.assert_success();
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.text()))
}

fn results(json: &Value) -> &Vec<Value> {
    json["results"].as_array().expect("results")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("numbers").iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// It says with what and on what it was measured.
#[track_caller]
fn assert_provenance(json: &Value) {
    for name in ["version", "commit", "llama_cpp", "cpu", "features", "kernels", "settings"] {
        assert!(json.get(name).is_some(), "no {name}: {json:#}");
    }
    assert!(json["settings"]["seed"].is_u64(), "{json:#}");
}

/// A folder with a tiny model, and what else is in it.
struct Folder(cli::Folder);

impl Folder {
    fn new() -> Self {
        Self(cli::Folder::new(64))
    }

    fn path(&self, name: &str) -> String {
        self.0.path(name)
    }

    /// What is in it, but for the model.
    fn others(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("")).expect("the folder");
        let names = entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"));
        names.filter(|name| name != "model.gguf").collect()
    }

    /// The texts of a picture in it, whose elements are well nested.
    fn texts(&self, name: &str) -> Vec<String> {
        let svg = std::fs::read_to_string(self.path(name)).expect("a picture");
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let (mut open, mut texts) = (Vec::new(), Vec::new());
        for part in svg.split('<').skip(1) {
            let (tag, text) = part.split_once('>').expect("a tag that ends");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "{svg}");
            } else if !tag.ends_with('/') {
                open.push(tag.split([' ', '\n']).next().expect("a name").to_owned());
            }
            if !text.trim().is_empty() {
                texts.push(text.trim().to_owned());
            }
        }
        assert!(open.is_empty(), "{open:?} are not closed: {svg}");
        texts
    }
}

const CODEC: [&str; 8] = ["bench", "codec", "--values", "64", "--samples", "3", "--sample-ms", "1"];

#[test]
fn codec_has_every_operation_type_and_instruction_set() {
    let folder = Folder::new();
    let svg = folder.path("codec.svg");
    let measured = json(&turboquant(&[&CODEC[..], &["--format", "json", "--plot", &svg]].concat()));
    assert_provenance(&measured);
    let kernels: Vec<_> = llama_turboquant::kernels::available().map(|k| k.name).collect();
    let mut wanted = Vec::new();
    for operation in ["encode", "decode", "dot"] {
        for of in ["turbo2", "turbo3", "turbo4"] {
            wanted.extend(kernels.iter().map(|name| [operation, of, name]));
        }
    }
    let text = |row: &Value, name: &str| row[name].as_str().expect("a name").to_owned();
    let found: Vec<_> = results(&measured)
        .iter()
        .map(|row| ["operation", "type", "kernels"].map(|name| text(row, name)))
        .collect();
    assert_eq!(found, wanted);
    for row in results(&measured) {
        let samples = numbers(&row["samples"]);
        assert_eq!(samples.len(), 3);
        assert!(samples.iter().all(|&s| s > 0.0), "{row:#}");
        let block = |name: &str| row["ns_per_block"][name].as_f64().expect("a number");
        assert!(block("p10") <= block("median") && block("median") <= block("p90"), "{row:#}");
        // A row of one block: a sample is what a block takes.
        let mut sorted = samples;
        sorted.sort_by(f64::total_cmp);
        assert!((block("median") - 1e9 * sorted[1]).abs() < 1e-6 * block("median"), "{row:#}");
        if row["kernels"] == "scalar" {
            assert_eq!(row["times_scalar"]["median"], 1.0);
        }
    }
    let texts = folder.texts("codec.svg");
    for word in
        ["encode", "decode", "dot", "turbo2", "turbo4", "GB/s of f32"].iter().chain(&kernels)
    {
        assert!(texts.iter().any(|text| text == word), "no {word}: {texts:?}");
    }
    let csv = turboquant(&[&CODEC[..], &["--format", "csv"]].concat());
    csv.assert_success();
    assert_eq!(csv.stdout.lines().count(), 1 + wanted.len(), "{}", csv.stdout);
}

/// Settings are pairs by treatments, the shallowest depth comes first, prompts before generation.
#[test]
fn model_has_every_setting_depth_test_and_round() {
    let folder = Folder::new();
    let (model, svg) = (folder.path("model.gguf"), folder.path("model.svg"));
    let base = ["bench", "model", "-m", &model, "-t", "1", "--rounds", "3", "-p", "20", "-n", "4"];
    let args = ["--pairs", "turbo4", "q8_0/turbo3", "--keys", "auto", "off", "--depths", "70,0,70"];
    let ran = turboquant(&[&base[..], &args, &["--format", "json", "--plot", &svg]].concat());
    let measured = json(&ran);
    assert_provenance(&measured);
    let text = |row: &Value, name: &str| match &row[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let found: Vec<_> = results(&measured)
        .iter()
        .map(|row| ["depth", "test", "k", "v", "keys"].map(|name| text(row, name)))
        .collect();
    let mut wanted = Vec::new();
    for depth in ["0", "70"] {
        for test in ["pp20", "tg4"] {
            for (k, v) in [("turbo4", "turbo4"), ("q8_0", "turbo3")] {
                wanted.extend(["auto", "off"].map(|keys| [depth, test, k, v, keys]));
            }
        }
    }
    assert_eq!(found, wanted);
    for row in results(&measured) {
        let (samples, ratios) = (numbers(&row["samples"]), numbers(&row["ratios"]));
        assert_eq!((samples.len(), ratios.len()), (3, 3));
        assert!(samples.iter().chain(&ratios).all(|&x| x > 0.0), "{row:#}");
        if (text(row, "k").as_str(), text(row, "keys").as_str()) == ("turbo4", "auto") {
            assert_eq!(row["ratio"]["median"], 1.0, "to itself: {row:#}");
        }
    }
    // Anchors have bytes of their own.
    let bytes = |i: usize| results(&measured)[i]["kv_bytes"].as_u64().expect("bytes");
    assert!(bytes(0) > bytes(1) && bytes(2) == bytes(3), "{measured:#}");

    let texts = folder.texts("model.svg");
    let names = [
        "turbo4 / turbo4",
        "turbo4 / turbo4, keys off",
        "q8_0 / turbo3",
        "q8_0 / turbo3, keys off",
    ];
    for word in names.iter().chain(&["prompt of 20 tokens", "generation of 4 tokens"]) {
        assert!(texts.iter().any(|text| text == word), "no {word}: {texts:?}");
    }
    assert_eq!(folder.others(), ["model.svg"]);
}

#[test]
fn a_ratio_is_of_one_round() {
    let folder = Folder::new();
    let model = folder.path("model.gguf");
    let ran = turboquant(&[
        "bench", "model", "-m", &model, "-t", "1", "--rounds", "4", "-p", "0", "-n", "3",
        "--depths", "5", "--pairs", "f16", "turbo2", "--format", "json",
    ]);
    let measured = json(&ran);
    let of = |i: usize, name: &str| numbers(&results(&measured)[i][name]);
    let (first, second) = (of(0, "samples"), of(1, "samples"));
    let expected: Vec<_> = second.iter().zip(&first).map(|(b, a)| b / a).collect();
    let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12 * b;
    assert!(of(1, "ratios").iter().zip(&expected).all(close), "{measured:#}");
    let mut sorted = expected;
    sorted.sort_by(f64::total_cmp);
    let median = results(&measured)[1]["ratio"]["median"].as_f64().expect("a number");
    assert!((median - 0.5 * (sorted[1] + sorted[2])).abs() < 1e-12 * median, "{measured:#}");
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let folder = Folder::new();
    let model = folder.path("model.gguf");
    let bench = |args: &[&str]| turboquant(&[&["bench", "model", "-m", &model], args].concat());
    let refused = |ran: &Finished, code: i32, words: &[&str]| {
        ran.assert_refused(words);
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(code), ""), "{}", ran.text());
    };
    refused(&bench(&["-p", "0", "-n", "0"]), 2, &["nothing to measure"]);
    refused(&bench(&["--keys", "scaled"]), 2, &["scaled", "calib=FILE"]);
    refused(&bench(&["--pairs", "turbo9"]), 2, &["turbo9", "turbo4"]);
    refused(&bench(&["--rounds", "0"]), 2, &["--rounds"]);
    let none = folder.path("none.gguf");
    let keys = format!("calib={none}");
    refused(
        &bench(&["--pairs", "turbo4", "--depths", "0", "--keys", &keys]),
        1,
        &["none.gguf", "turbo4 / turbo4"],
    );
    let nowhere = folder.path("no/such/folder.svg");
    refused(&bench(&["--plot", &nowhere]), 1, &["cannot write", "folder.svg"]);
    refused(&bench(&["--plot", &folder.path("")]), 1, &["cannot write", "it is a folder"]);
    let codec = |args: &[&str]| turboquant(&[&["bench", "codec"], args].concat());
    refused(&codec(&["--values", "100"]), 2, &["100", "64"]);
    refused(&codec(&["--plot", &nowhere]), 1, &["cannot write", "folder.svg"]);
    refused(&turboquant(&["bench"]), 2, &["codec", "model"]);
    assert!(folder.others().is_empty(), "{:?}", folder.others());
}

/// Before any is made. 100000 tokens of this model are 49 MiB of K and V in f16.
#[cfg(target_os = "linux")]
#[test]
fn contexts_that_do_not_fit_together_are_refused() {
    let folder = Folder::new();
    let model = folder.path("model.gguf");
    let limited = format!(
        "ulimit -v 3000000; exec {TURBOQUANT} bench model -m {model} --depths 100000 -p 1 -n 0 --pairs {}",
        "f16 ".repeat(100)
    );
    let ran = run("/bin/sh", &["-c", &limited], &[], LIMIT);
    ran.assert_refused(&[
        "100 settings",
        "GiB",
        "the weights",
        "address space",
        "--pairs",
        "--depths",
    ]);
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""), "{}", ran.text());
}

#[test]
fn eval_draws_divergence_against_bits() {
    let folder = Folder::new();
    let (model, svg, text) =
        (folder.path("model.gguf"), folder.path("eval.svg"), folder.path("text.txt"));
    std::fs::write(&text, common::TEXT).expect("a text");
    let base = ["eval", "-m", &model, "-f", &text, "-c", "64", "--chunks", "1", "-t", "1"];
    let pairs = ["--pairs", "turbo4/turbo3", "q4_0", "--format", "json"];
    let ran = turboquant(&[&base[..], &pairs, &["--plot", &svg]].concat());
    for name in ["version", "commit", "cpu", "features", "kernels"] {
        assert!(json(&ran).get(name).is_some(), "no {name}: {}", ran.stdout);
    }
    let texts = folder.texts("eval.svg");
    for word in ["turbo4 / turbo3", "q4_0", "bits per value", "mean KLD, nats"] {
        assert!(texts.iter().any(|text| text == word), "no {word}: {texts:?}");
    }
    let nowhere = folder.path("no/such/folder.svg");
    let refused = turboquant(&[&base[..], &["--plot", &nowhere]].concat());
    refused.assert_refused(&["cannot write", "folder.svg"]);
    assert_eq!(refused.stdout, "");

    // From its JSON, a panel for each file, on white paper or on dark.
    let (first, second) = (folder.0.write("one.json", &ran.stdout), folder.path("two.json"));
    std::fs::copy(&first, &second).expect("a copy");
    for (theme, paper) in [(&[][..], "#FFFFFF"), (&["--dark"], "#0D1117")] {
        let args = ["plot", &first, &second, "-o", &svg];
        turboquant(&[&args[..], theme].concat()).assert_success();
        let texts = folder.texts("eval.svg");
        for word in ["turbo4 / turbo3", "q4_0", "bits per value", "mean KLD, nats", "model"] {
            assert_eq!(texts.iter().filter(|text| *text == word).count(), 2, "{word}: {texts:?}");
        }
        let picture = std::fs::read_to_string(&svg).expect("a picture");
        assert!(picture.contains(&format!("fill=\"{paper}\"")), "{picture}");
    }
}

#[test]
fn plot_refuses_what_is_no_result() {
    let folder = Folder::new();
    let svg = folder.path("no.svg");
    let write = |name: &str, text: &str| folder.0.write(name, text);
    let exact = r#"{"model": {"file": "a.gguf"}, "settings": {"text": "a.txt", "ctx_size": 512},
        "results": [{"k": "f16", "v": "f16", "bits_per_value": 16.0, "mean_kld": 0.0, "mean_kld_error": 0.0}]}"#;
    let cases = [
        (folder.path("none.json"), vec!["cannot read", "none.json"]),
        (write("table.json", "K / V  bits"), vec!["table.json", "eval --format json"]),
        (write("other.json", "{\"results\": []}"), vec!["other.json", "/model/file"]),
        (write("exact.json", exact), vec!["nothing to draw", "no.svg"]),
        (
            write("half.json", &exact.replace("mean_kld_error", "error")),
            vec!["half.json", "/mean_kld_error"],
        ),
    ];
    for (results, words) in &cases {
        cli::assert_error(&turboquant(&["plot", results, "-o", &svg]), 1, words);
    }
    let (exact, pair) = (folder.path("exact.json"), ["--pairs", "f16", "turbo4/turbo3"]);
    let ran = turboquant(&[&["plot", &exact, "-o", &svg], &pair[..]].concat());
    cli::assert_error(&ran, 1, &["exact.json", "no turbo4 / turbo3"]);
    assert_eq!(turboquant(&["plot", "-o", &svg]).status.code(), Some(2));
    assert!(!std::path::Path::new(&svg).exists());
}

/// The results that the pages have, in the order of the picture.
const RESULTS: [&str; 4] = ["qwen-1.5b", "qwen", "gemma", "smollm2"];

/// And what it shows of them, as `script/quality` has it.
const PICTURED: [&str; 9] =
    ["turbo4", "turbo3", "turbo2", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"];

/// The picture of the README is drawn from results of four models, can be read, and is not stale.
#[test]
fn the_picture_of_the_pages_is_legible() {
    let folder = Folder::new();
    let results = RESULTS.map(|name| format!("docs/quality/{name}.json"));
    let results: Vec<&str> = results.iter().map(String::as_str).collect();
    for (theme, page) in [(&[][..], "docs/quality.svg"), (&["--dark"], "docs/quality-dark.svg")] {
        let path = folder.path("picture.svg");
        let args =
            [&["plot"], &results[..], &["--pairs"], &PICTURED, theme, &["-o", &path]].concat();
        turboquant(&args).assert_success();
        let svg = std::fs::read_to_string(&path).expect("a picture");
        assert_legible(&svg);
        let texts = folder.texts("picture.svg");
        for word in ["Qwen2.5-Coder-1.5B", "Qwen2.5-Coder-0.5B", "gemma-3-270m", "SmolLM2-135M"] {
            let found = texts.iter().filter(|text| text.starts_with(word)).count();
            assert_eq!(found, 1, "{word}: {texts:?}");
        }
        for word in PICTURED {
            assert_eq!(texts.iter().filter(|text| *text == word).count(), 4, "{word}: {texts:?}");
        }
        let there = std::fs::read_to_string(page).expect("the page's picture");
        assert!(there == svg, "{page} is stale: run `script/quality --pages`");
    }
}

/// At the width of a README no letter is smaller than 11 pixels, and no text covers another or leaves the picture.
#[track_caller]
fn assert_legible(svg: &str) {
    assert!(svg.len() < 100 * 1024, "{} bytes", svg.len());
    let document = roxmltree::Document::parse(svg).expect("XML");
    let number = |node: &roxmltree::Node<'_, '_>, name: &str| -> f64 {
        let text = node.attribute(name).unwrap_or_else(|| panic!("{node:?} has no {name}"));
        text.parse().unwrap_or_else(|_| panic!("{name} is {text}"))
    };
    let root = document.root_element();
    let (width, height) = (number(&root, "width"), number(&root, "height"));
    assert!(width <= 840.0, "{width} pixels are made smaller");
    let mut boxes: Vec<(String, [f64; 4])> = Vec::new();
    for node in root.descendants().filter(|node| node.tag_name().name() == "text") {
        let text = node.text().expect("a text").trim().to_owned();
        let (x, y, size) = (number(&node, "x"), number(&node, "y"), number(&node, "font-size"));
        assert!(size >= 11.0, "{text} has {size} pixels");
        // In a wide font.
        let length = 0.6 * size * text.chars().count() as f64;
        let before = match node.attribute("text-anchor") {
            Some("end") => length,
            Some("middle") => length / 2.0,
            _ => 0.0,
        };
        let turned = node.attribute("transform").is_some();
        let (left, right) = (x - before, x - before + length);
        if !turned {
            assert!(left >= 0.0 && right <= width, "{text} leaves the picture");
            let top = match node.attribute("dy") {
                Some("0.76em") => y,
                Some("-0.5ex") => y - size,
                _ => y - size / 2.0,
            };
            boxes.push((text, [left, right, top, top + size]));
        }
        assert!(y >= 0.0 && y <= height);
    }
    for (i, (text, a)) in boxes.iter().enumerate() {
        for (other, b) in &boxes[..i] {
            let apart = a[0] >= b[1] || b[0] >= a[1] || a[2] >= b[3] || b[2] >= a[3];
            assert!(apart, "{text} {a:?} covers {other} {b:?}");
        }
    }
}

/// Ctrl-C while a model is measured: the code is that of shells, and no picture is left, nor a part of one.
#[cfg(unix)]
#[test]
fn an_interrupted_bench_leaves_nothing() {
    use std::process::{Command, Stdio};
    let folder = Folder::new();
    let (model, svg) = (folder.path("model.gguf"), folder.path("model.svg"));
    let mut child = Command::new(TURBOQUANT)
        .args([
            "bench", "model", "-m", &model, "-t", "1", "--rounds", "100000", "--pairs", "f16",
            "--depths", "0",
        ])
        .args(["--plot", &svg])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // What follows is measured for hours.
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("to warm up") {
        line.clear();
        let n = std::io::BufRead::read_line(&mut stderr, &mut line).expect("a line");
        assert!(n > 0, "it ends: {:?}", child.wait());
    }
    let rest = std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    let output = child.wait_with_output().expect("it ends");
    rest.join().expect("no panic").expect("a pipe");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0));
    assert!(folder.others().is_empty(), "{:?}", folder.others());
}
