//! The anchored-edit engine: unique anchor, missing, ambiguous, already applied, CRLF.
#[allow(dead_code)]
#[path = "../build/edit.rs"]
mod edit;
#[allow(dead_code)]
#[path = "../build/edit_file.rs"]
mod edit_file;

use edit::{Edit, EditError, Outcome, apply_all, is_applied, plan};

const TEXT: &str = "alpha\nbeta\ngamma\nbeta\ndelta\n";

fn edit(anchor: &str) -> Edit {
    Edit { file: "f.c".into(), anchor: anchor.into(), ..Edit::default() }
}

fn before(anchor: &str, text: &str) -> Edit {
    Edit { before: Some(text.into()), ..edit(anchor) }
}

fn after(anchor: &str, text: &str) -> Edit {
    Edit { after: Some(text.into()), ..edit(anchor) }
}

fn replace(anchor: &str, text: &str) -> Edit {
    Edit { replace: Some(text.into()), ..edit(anchor) }
}

fn applied(edit: &Edit, text: &str) -> String {
    let (new, outcome) = edit.apply("0001-test.toml", text).unwrap();
    assert_eq!(outcome, Outcome::Applied);
    // Whatever is applied once is recognised the second time, and changes nothing.
    let (again, outcome) = edit.apply("0001-test.toml", &new).unwrap();
    assert_eq!(outcome, Outcome::AlreadyApplied, "in {new:?}");
    assert_eq!(again, new);
    new
}

fn error(edit: &Edit, text: &str) -> EditError {
    edit.apply("0001-test.toml", text).unwrap_err()
}

#[test]
fn unique_anchor() {
    assert_eq!(
        applied(&before("gam", "one\ntwo"), TEXT),
        "alpha\nbeta\none\ntwo\ngamma\nbeta\ndelta\n"
    );
    assert_eq!(applied(&after("gam", "one\n"), TEXT), "alpha\nbeta\ngamma\none\nbeta\ndelta\n");
    assert_eq!(applied(&replace("gam", "GAM"), TEXT), "alpha\nbeta\nGAMma\nbeta\ndelta\n");
    assert_eq!(applied(&before("alpha", "x"), TEXT), format!("x\n{TEXT}"));
    assert_eq!(applied(&after("delta", "x"), TEXT), format!("{TEXT}x\n"));
}

#[test]
fn last_line_without_line_end() {
    assert_eq!(applied(&after("b", "c"), "a\nb"), "a\nb\nc\n");
}

#[test]
fn replacement_may_keep_the_anchor() {
    assert_eq!(applied(&replace("gamma", "(gamma)"), TEXT), "alpha\nbeta\n(gamma)\nbeta\ndelta\n");
    assert_eq!(
        applied(&replace("gamma", "if (x) gamma"), TEXT),
        "alpha\nbeta\nif (x) gamma\nbeta\ndelta\n"
    );
}

#[test]
fn anchor_over_two_lines() {
    assert_eq!(applied(&after("gamma\nbeta", "x"), TEXT), "alpha\nbeta\ngamma\nbeta\nx\ndelta\n");
}

#[test]
fn then_names_a_place_behind_the_anchor() {
    let e = Edit { then: Some("beta".into()), ..before("gamma", "x") };
    assert_eq!(applied(&e, TEXT), "alpha\nbeta\ngamma\nx\nbeta\ndelta\n");
    let e = Edit { then: Some("beta".into()), ..replace("gamma", "BETA") };
    assert_eq!(applied(&e, TEXT), "alpha\nbeta\ngamma\nBETA\ndelta\n");
    let e = Edit { then: Some("alpha".into()), ..before("gamma", "x") };
    assert!(matches!(error(&e, TEXT), EditError::MissingThen { line: 3, .. }));
    let far = format!("gamma\n{}beta\n", "-\n".repeat(60));
    let e = Edit { then: Some("beta".into()), ..before("gamma", "x") };
    assert!(matches!(error(&e, &far), EditError::MissingThen { .. }));
}

#[test]
fn missing_anchor_is_an_error_that_names_it() {
    for e in [before("omega", "x"), after("omega", "x"), replace("omega", "x")] {
        let error = error(&e, TEXT);
        assert!(matches!(error, EditError::Missing { .. }));
        assert_eq!(error.to_string(), r#"0001-test.toml: f.c: anchor "omega" is missing"#);
    }
}

#[test]
fn ambiguous_anchor_is_an_error_that_names_the_lines() {
    for e in [before("beta", "x"), after("beta", "x"), replace("beta", "x")] {
        let error = error(&e, TEXT);
        assert!(matches!(&error, EditError::Ambiguous { lines, .. } if lines[..] == [2, 4]));
        assert!(error.to_string().contains("ambiguous"));
    }
}

#[test]
fn crlf_is_kept() {
    let text = TEXT.replace('\n', "\r\n");
    assert_eq!(
        applied(&before("gamma\nbeta", "one\ntwo"), &text),
        "alpha\r\nbeta\r\none\r\ntwo\r\ngamma\r\nbeta\r\ndelta\r\n"
    );
    assert_eq!(
        applied(&replace("gamma\nbeta", "x\ny"), &text),
        "alpha\r\nbeta\r\nx\r\ny\r\ndelta\r\n"
    );
}

#[test]
fn malformed_files_are_refused() {
    let bad = |toml: &str| edit_file::parse("0001-bad.toml", toml).unwrap_err().to_string();
    let head = "why = 'w'\n[[edit]]\nfile = 'f.c'\n";
    assert!(bad(&format!("{head}anchor = 'a'")).contains("exactly one of"));
    assert!(
        bad(&format!("{head}anchor = 'a'\nbefore = 'x'\nafter = 'y'")).contains("exactly one of")
    );
    assert!(bad(&format!("{head}anchor = ' '\nbefore = 'x'")).contains("empty"));
    assert!(bad(&format!("{head}anchor = 'a'\nbefore = 'xay'")).contains("its own anchor"));
    assert!(bad(&format!("{head}anchor = 'a'\nbefroe = 'x'")).contains("befroe"));
}

#[test]
fn a_tree_takes_all_edits_or_none() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.c"), TEXT).unwrap();
    let extension = |_: &str| Ok(b"ours".to_vec());
    let good = "why = 'w'\n[[copy]]\nfrom = 'x.h'\nto = 'sub/x.h'\n\
                [[edit]]\nfile = 'f.c'\nanchor = 'gamma'\nafter = 'x'\n";
    let bad = format!("{good}[[edit]]\nfile = 'f.c'\nanchor = 'omega'\nafter = 'x'\n");
    let parse = |text: &str| vec![edit_file::parse("0001-x.toml", text).unwrap()];

    assert!(apply_all(dir.path(), &parse(&bad), &extension).is_err());
    assert_eq!(std::fs::read_to_string(dir.path().join("f.c")).unwrap(), TEXT);
    assert!(!dir.path().join("sub").exists());

    let done = apply_all(dir.path(), &parse(good), &extension).unwrap();
    assert!(done.iter().all(|d| d.outcome == Outcome::Applied));
    assert_eq!(std::fs::read_to_string(dir.path().join("sub/x.h")).unwrap(), "ours");
    let done = apply_all(dir.path(), &parse(good), &extension).unwrap();
    assert!(done.iter().all(|d| d.outcome == Outcome::AlreadyApplied));
    assert!(matches!(
        apply_all(&dir.path().join("nowhere"), &parse(good), &extension),
        Err(EditError::Io { .. })
    ));
}

/// A tree of one file, and edits of it that build on each other.
fn tree_and_edits() -> (tempfile::TempDir, Vec<edit::EditFile>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.c"), TEXT).unwrap();
    let first = "why = 'w'\n[[copy]]\nfrom = 'x.h'\nto = 'sub/x.h'\n\
                 [[edit]]\nfile = 'f.c'\nanchor = 'gamma'\nafter = 'one'\n\
                 [[edit]]\nfile = 'f.c'\nanchor = 'alpha'\nreplace = 'two'\n";
    // Of what the first put there.
    let second = "why = 'w'\n[[edit]]\nfile = 'f.c'\nanchor = 'one'\nreplace = '1'\n\
                  [[edit]]\nfile = 'f.c'\nanchor = 'two'\nbefore = 'three'\n";
    let parse = |name, text| edit_file::parse(name, text).unwrap();
    (dir, vec![parse("0001-x.toml", first), parse("0002-y.toml", second)])
}

fn ours(_: &str) -> std::io::Result<Vec<u8>> {
    Ok(b"ours".to_vec())
}

#[test]
fn an_edited_tree_is_known_by_taking_the_edits_back() {
    let (dir, edits) = tree_and_edits();
    assert!(!is_applied(dir.path(), &edits, &ours));
    apply_all(dir.path(), &edits, &ours).unwrap();
    let file = dir.path().join("f.c");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, "three\ntwo\nbeta\ngamma\n1\nbeta\ndelta\n");
    assert!(is_applied(dir.path(), &edits, &ours));

    // Other changes do not matter, unless they are where the edits are.
    std::fs::write(&file, text.replace("delta", "epsilon")).unwrap();
    assert!(is_applied(dir.path(), &edits, &ours));
    for lost in ["three\n", "1\n", "gamma\n"] {
        std::fs::write(&file, text.replace(lost, "")).unwrap();
        assert!(!is_applied(dir.path(), &edits, &ours), "without {lost:?}");
    }
    std::fs::write(&file, text).unwrap();
    assert!(!is_applied(dir.path(), &edits, &|_| Ok(b"others".to_vec())));
}

#[test]
fn a_plan_tells_the_lines_and_writes_nothing() {
    let (dir, edits) = tree_and_edits();
    let plan = plan(dir.path(), &edits, &ours).unwrap();
    let lines: Vec<_> = plan.done.iter().map(|d| (d.copied, d.added, d.removed)).collect();
    assert_eq!(lines[1..], [(false, 1, 0), (false, 1, 1), (false, 1, 1), (false, 1, 0)]);
    assert!(lines[0].0);
    let files: Vec<_> = plan.changes.iter().map(|c| (c.file.as_str(), c.old.is_some())).collect();
    assert_eq!(files, [("f.c", true), ("sub/x.h", false)]);
    assert_eq!(std::fs::read_to_string(dir.path().join("f.c")).unwrap(), TEXT);
    assert!(!dir.path().join("sub").exists());
}

#[test]
fn what_is_stopped_leaves_nothing() {
    let (dir, edits) = tree_and_edits();
    let plan = plan(dir.path(), &edits, &ours).unwrap();
    // Two files: asked before each is written, and before each is put in its place.
    for n in 0..4 {
        let left = std::cell::Cell::new(n);
        let stop = || left.replace(left.get().max(1) - 1) == 0;
        assert!(!plan.write(dir.path(), &stop).unwrap(), "stopped after {n}");
        assert_eq!(std::fs::read_to_string(dir.path().join("f.c")).unwrap(), TEXT);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "stopped after {n}");
    }
    assert!(plan.write(dir.path(), &|| false).unwrap());
    assert!(is_applied(dir.path(), &edits, &ours));
}
