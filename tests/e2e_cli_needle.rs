//! `turboquant needle`, as a user runs it.
#![cfg(feature = "cli")]

mod common;

use common::cli::{Folder, TURBOQUANT, assert_error, column, smollm2, turboquant};
use common::process::Finished;
use serde_json::Value;

/// Sentences of 20 letters at most: a tiny model has a token for each.
const TEXT: &str = "The wind was cold. No ship came by. He had some tea. It was dark by five. ";

/// A tiny model, which was trained with 512 tokens, on [`TEXT`].
fn needle(folder: &Folder, args: &[&str]) -> Finished {
    let (model, text) = (folder.model(), folder.write("text.txt", TEXT));
    turboquant(&[&["needle", "-m", &model, "-f", &text, "-t", "1"], args].concat())
}

fn json(ran: &Finished) -> Value {
    ran.assert_success();
    serde_json::from_str(&ran.stdout).expect("JSON")
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().expect("an array")
}

const SMALL: [&str; 9] =
    ["--lengths", "400", "500", "--depths", "0,50,100", "--keys", "3", "--trials", "2"];

#[test]
fn every_cell_is_tried_with_every_pair() {
    let folder = Folder::new(64);
    let pairs = ["--pairs", "f16", "turbo4/turbo3", "--format"];
    let ran = needle(&folder, &[&SMALL[..], &pairs, &["json"]].concat());
    let all = json(&ran);
    assert_eq!((&all["settings"]["seed"], &all["settings"]["keys"]), (&1.into(), &3.into()));
    for key in ["version", "commit", "llama_cpp", "cpu", "kernels", "model"] {
        assert!(all.get(key).is_some(), "no {key}: {all}");
    }
    let results = array(&all["results"]);
    assert_eq!(results.len(), 2);
    for result in results {
        let cells = array(&result["cells"]);
        assert_eq!(cells.len(), 2 * 2 * 3, "modes, lengths and depths");
        for cell in cells {
            let trials = array(&cell["trials"]);
            assert_eq!(trials.len(), 2);
            let logprobs = trials.iter().map(|trial| trial["logprob"].as_f64().expect("a number"));
            let mean = logprobs.sum::<f64>() / 2.0;
            assert!(
                mean < 0.0 && (mean - cell["mean_logprob"].as_f64().expect("one")).abs() < 1e-9
            );
            for trial in trials {
                // Within a sentence, and two where the names of several questions differ in length.
                let n = trial["prompt_tokens"].as_u64().expect("a number");
                let length = cell["length"].as_u64().expect("a number");
                assert!((length - 45..=length).contains(&n), "{n} of {length}");
            }
        }
    }
    // Both get the same.
    let asked = |i: usize| -> Vec<&Value> {
        let cells = array(&results[i]["cells"]).iter();
        cells.flat_map(|cell| array(&cell["trials"])).map(|trial| &trial["code"]).collect()
    };
    assert_eq!(asked(0), asked(1));

    let csv = needle(&folder, &[&SMALL[..], &pairs, &["csv"]].concat()).stdout;
    assert_eq!(csv.lines().count(), 1 + 2 * 12);
    assert_eq!(column(&csv, "depth")[..4], ["0", "50", "100", "0"]);
    assert_eq!(column(&csv, "tokens")[..4], ["400", "400", "400", "500"]);
    let table = needle(&folder, &[&SMALL[..], &pairs, &["table"]].concat()).stdout;
    for word in ["single, f16 / f16:", "multi, turbo4 / turbo3:", "tokens", "100%", "mean"] {
        assert!(table.contains(word), "no {word}: {table}");
    }
    let md = needle(&folder, &[&SMALL[..], &pairs, &["md"]].concat()).stdout;
    assert!(md.starts_with("| K / V | mode | tokens | 0% | 50% | 100% | mean |\n"), "{md}");
}

#[test]
fn a_seed_repeats_a_test() {
    let folder = Folder::new(64);
    let run = |seed| {
        let pairs = ["--pairs", "turbo3", "--format", "json", "--seed", seed];
        json(&needle(&folder, &[&SMALL[..], &pairs].concat()))["results"].clone()
    };
    let one = run("1");
    assert_eq!(run("1"), one);
    assert_ne!(run("2"), one);
}

/// SmolLM2 reads a code in a short text; a token of it by chance would have a logarithm of -2.3, of ten digits.
#[test]
fn a_model_finds_a_needle() {
    let model = smollm2();
    let base = ["needle", "-m", &model, "-t", "1", "--lengths", "192", "--depths", "100"];
    let rest = ["--trials", "2", "--mode", "single", "--pairs", "f16", "--format", "json"];
    let all = json(&turboquant(&[&base[..], &rest].concat()));
    let cell = &all["results"][0]["cells"][0];
    assert_eq!(cell["exact"], 1.0, "{cell}");
    assert!(cell["mean_logprob"].as_f64().expect("a number") > -0.3, "{cell}");
    for trial in array(&cell["trials"]) {
        assert_eq!(trial["answer"], trial["code"]);
    }
}

#[test]
fn the_plot_is_a_picture_of_all_pairs() {
    let folder = Folder::new(64);
    let path = folder.path("needle.svg");
    let small = ["--lengths", "400", "--depths", "0,100", "--keys", "2", "--trials", "1"];
    let args = ["--pairs", "f16", "turbo4/turbo2", "--plot", &path];
    let ran = needle(&folder, &[&small[..], &args].concat());
    ran.assert_success();
    let svg = std::fs::read_to_string(&path).expect("a plot");
    let document = roxmltree::Document::parse(&svg).expect("XML");
    let texts: Vec<&str> = document
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")))
        .filter_map(|node| node.text())
        .map(str::trim)
        .collect();
    for name in
        ["f16 / f16, single", "turbo4 / turbo2, multi", "400", "100%", "depth", "probability"]
    {
        assert!(texts.contains(&name), "no {name}: {texts:?}");
    }
    let names: Vec<_> = std::fs::read_dir(folder.path("")).expect("a folder").collect();
    assert_eq!(names.len(), 3, "the model, the text and the plot: {names:?}");
}

#[test]
fn what_cannot_be_looked_for_is_refused() {
    let folder = Folder::new(64);
    let empty = folder.write("empty.txt", " \n");
    let f16 = ["--pairs", "f16"];
    let refused = |args: &[&str], code: i32, words: &[&str]| {
        assert_error(&needle(&folder, &[&f16[..], args].concat()), code, words);
    };
    refused(&["--lengths", "64"], 1, &["64 tokens is too short", "single"]);
    refused(&["--lengths", "300", "--mode", "multi"], 1, &["300 tokens is too short", "multi"]);
    refused(&["--lengths", "513"], 1, &["513", "512", "beyond"]);
    refused(&["--lengths", "400", "--depths", "50,101"], 1, &["101", "0 to 100"]);
    refused(&["--lengths", "400", "--depths", "-1"], 1, &["-1", "0 to 100"]);
    refused(&["--lengths", "400", "--keys", "4"], 1, &["4 keys", "5", "32"]);
    refused(&["--lengths", "400", "--trials", "0"], 2, &["--trials"]);
    refused(&["--lengths", "x"], 2, &["--lengths"]);
    assert_error(&needle(&folder, &["--pairs"]), 2, &["--pairs"]);
    let (model, lengths) = (folder.model(), ["--lengths", "400"]);
    let base = ["needle", "-m", &model, "--pairs", "f16"];
    assert_error(
        &turboquant(&[&base[..], &lengths, &["-f", &empty]].concat()),
        1,
        &["text is empty"],
    );
    let beyond = ["--lengths", "600", "--beyond", "--depths", "0", "--trials", "1"];
    needle(&folder, &[&f16[..], &beyond].concat()).assert_success();
    let odd = Folder::new(80);
    assert_error(&needle(&odd, &["--pairs", "f16", "q8_0"]), 1, &["q8_0 / q8_0", "multiple of 32"]);
}

#[test]
fn a_plot_that_cannot_be_written_is_found_first() {
    let folder = Folder::new(64);
    for (path, words) in [
        (folder.path(""), ["cannot write", "it is a folder"]),
        (folder.path("none/needle.svg"), ["cannot write", "needle.svg"]),
    ] {
        // Before the model is loaded, which is not there.
        let ran = turboquant(&["needle", "-m", "none.gguf", "--plot", &path]);
        assert_error(&ran, 1, &words);
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_test_leaves_nothing() {
    use std::io::Read;
    use std::process::{Command, Stdio};
    let folder = Folder::new(64);
    let plot = folder.path("needle.svg");
    let mut child = Command::new(TURBOQUANT)
        .args(["needle", "-m", &smollm2(), "-t", "1", "-v", "--plot", &plot])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stderr = child.stderr.take().expect("a pipe");
    stderr.read_exact(&mut [0; 4]).expect("the log begins");
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{rest}");
    assert_eq!(output.stdout, b"");
    let names: Vec<_> = std::fs::read_dir(folder.path("")).expect("a folder").collect();
    assert_eq!(names.len(), 1, "the model alone: {names:?}");
}
