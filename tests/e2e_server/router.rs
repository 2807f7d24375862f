//! The router starts a server for each model: its presets hand the cache options down.

use serde_json::json;

use super::common::server::{Server, completion};
use super::tiny;

#[test]
fn presets_of_the_router_hand_the_types_to_its_children() {
    let (dir, model) = tiny();
    let model = model.to_str().expect("a path in UTF-8");
    let presets = format!(
        "[*]\nmodel = {model}\nc = 256\nparallel = 1\nverbosity = 4\nwarmup = off\n\
         [long]\ncache-type-k = turbo4\ncache-type-v = turbo3\nkv-anchors = off\n\
         [short]\nctk = turbo3,0=q8_0\nctv = turbo2\n\
         [pair]\nkv-preset = k4v2\n\
         [inherits]\nn-predict = 4\n"
    );
    let file = dir.path().join("presets.ini");
    std::fs::write(&file, presets).expect("a file");
    let file = file.to_str().expect("a path in UTF-8");
    let router = Server::launch(&["--models-preset", file, "--models-max", "1"])
        .unwrap_or_else(|ended| panic!("{}: {}", ended.status, ended.log));
    let cases = [
        ("long", &["K (turbo4)", "V (turbo3)", "key anchors are off"][..]),
        ("short", &["q8_0", "V (turbo2)"]),
        ("pair", &["K (turbo4)", "V (turbo2)", "key anchors are on"]),
        ("inherits", &["K (f16)", "V (f16)"]),
    ];
    for (name, words) in cases {
        let seen = router.log().len();
        router.post("/completion", &completion("abc", 4, json!({"model": name})));
        let log = router.log();
        let log = &log[seen..];
        for word in words {
            assert!(log.contains(word), "{name} without {word:?}: {log}");
        }
    }
}
