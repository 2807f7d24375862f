//! The anchored-edit engine: unique anchor, missing, ambiguous, already applied, CRLF.
#[allow(dead_code)]
#[path = "../build/edit/mod.rs"]
mod edit;
#[allow(dead_code)]
#[path = "../build/edit_file.rs"]
mod edit_file;

use edit::{Edit, EditError, EditFile, Outcome, apply_all, fit, is_applied, plan};

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

    assert!(apply_all(dir.path(), &parse(&bad), &["a"], &extension).is_err());
    assert_eq!(std::fs::read_to_string(dir.path().join("f.c")).unwrap(), TEXT);
    assert!(!dir.path().join("sub").exists());

    let done = apply_all(dir.path(), &parse(good), &["a"], &extension).unwrap();
    assert!(done.iter().all(|d| d.outcome == Outcome::Applied));
    assert_eq!(std::fs::read_to_string(dir.path().join("sub/x.h")).unwrap(), "ours");
    let done = apply_all(dir.path(), &parse(good), &["a"], &extension).unwrap();
    assert!(done.iter().all(|d| d.outcome == Outcome::AlreadyApplied));
    let error = apply_all(&dir.path().join("nowhere"), &parse(good), &["a"], &extension);
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        "1 of 1 edits do not fit:\n  0001-x.toml: f.c: No such file, for 1 of its edits"
    );
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
    assert!(!is_applied(dir.path(), &edits, &["a"], &ours));
    apply_all(dir.path(), &edits, &["a"], &ours).unwrap();
    let file = dir.path().join("f.c");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, "three\ntwo\nbeta\ngamma\n1\nbeta\ndelta\n");
    assert!(is_applied(dir.path(), &edits, &["a"], &ours));

    // Other changes do not matter, unless they are where the edits are.
    std::fs::write(&file, text.replace("delta", "epsilon")).unwrap();
    assert!(is_applied(dir.path(), &edits, &["a"], &ours));
    for lost in ["three\n", "1\n", "gamma\n"] {
        std::fs::write(&file, text.replace(lost, "")).unwrap();
        assert!(!is_applied(dir.path(), &edits, &["a"], &ours), "without {lost:?}");
    }
    std::fs::write(&file, text).unwrap();
    assert!(!is_applied(dir.path(), &edits, &["a"], &|_| Ok(b"others".to_vec())));
}

#[test]
fn a_plan_tells_the_lines_and_writes_nothing() {
    let (dir, edits) = tree_and_edits();
    let plan = plan(dir.path(), &edits, &["a"], &ours).unwrap();
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
    let plan = plan(dir.path(), &edits, &["a"], &ours).unwrap();
    // Two files: asked before each is written, and before each is put in its place.
    for n in 0..4 {
        let left = std::cell::Cell::new(n);
        let stop = || left.replace(left.get().max(1) - 1) == 0;
        assert!(!plan.write(dir.path(), &stop).unwrap(), "stopped after {n}");
        assert_eq!(std::fs::read_to_string(dir.path().join("f.c")).unwrap(), TEXT);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "stopped after {n}");
    }
    assert!(plan.write(dir.path(), &|| false).unwrap());
    assert!(is_applied(dir.path(), &edits, &["a"], &ours));
}

fn parse(name: &str, text: &str) -> EditFile {
    edit_file::parse(name, text).unwrap()
}

/// Misses of every kind, and edits between them that fit.
#[test]
fn every_misfit_is_told_with_the_nearest_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("f.c"),
        "int answer = 43;\nbeta\ngamma\nbeta\nstart(int a, int b);\n",
    )
    .unwrap();
    let edits = [
        parse(
            "0001-x.toml",
            "why = 'w'\n[[edit]]\nfile = 'f.c'\nanchor = 'int answer = 42;'\nafter = 'our_line();'\n\
             [[edit]]\nfile = 'f.c'\nanchor = 'gamma'\nafter = 'fits'\n\
             [[edit]]\nfile = 'f.c'\nanchor = 'beta'\nafter = 'x'\n",
        ),
        parse(
            "0002-y.toml",
            "why = 'w'\n[[edit]]\nfile = 'f.c'\nanchor = 'our_line();'\nafter = 'x'\n\
             [[edit]]\nfile = 'f.c'\nanchor = 'gamma'\nthen = 'start(int a);'\nafter = 'x'\n\
             [[edit]]\nfile = 'f.c'\nanchor = 'QQQQQQQQQ'\nafter = 'x'\n\
             [[edit]]\nfile = 'gone.c'\nanchor = 'a'\nafter = 'x'\n\
             [[edit]]\nfile = 'gone.c'\nanchor = 'b'\nafter = 'x'\n",
        ),
    ];
    let error = plan(dir.path(), &edits, &["a"], &ours).unwrap_err().to_string();
    let expected = [
        "7 of 8 edits do not fit:",
        "  0001-x.toml: f.c: anchor \"int answer = 42;\" is missing",
        "      nearest, line 1: int answer = 43;",
        "  0001-x.toml: f.c: anchor \"beta\" is ambiguous: it occurs on lines [2, 5]",
        "  0002-y.toml: f.c: anchor \"our_line();\" is missing",
        "      it is text of another that does not fit, 0001-x.toml: anchor \"int answer = 42;\"",
        "  0002-y.toml: f.c: \"start(int a);\" is missing within 40 lines after anchor \"gamma\" on line 3",
        "      nearest, line 6: start(int a, int b);",
        "  0002-y.toml: f.c: anchor \"QQQQQQQQQ\" is missing",
        "      no line is like it",
        "  0002-y.toml: gone.c: No such file, for 2 of its edits",
    ];
    assert_eq!(error.lines().collect::<Vec<_>>(), expected);
}

/// Two versions of a tree, edits with variants for the second, and a tree between them.
#[test]
fn an_edit_is_as_the_tree_wants_it() {
    let edits = [parse(
        "0001-x.toml",
        "why = 'w'\n[[edit]]\nfile = 'f.c'\nanchor = 'one'\nafter = 'ours'\n[edit.variant.b]\nanchor = 'uno'\n\
         [[edit]]\nfile = 'f.c'\nanchor = 'two'\nreplace = '2'\n[edit.variant.b]\nreplace = 'II'\n\
         [[edit]]\nfile = 'f.c'\nanchor = 'three'\nafter = 'x'\n[edit.variant.b]\nanchor = 'tre'\nbefore = 'y'\n\
         [[edit]]\npins = ['a']\nfile = 'f.c'\nanchor = 'four'\nreplace = '4'\n",
    )];
    for (text, pins, expected) in [
        ("one\ntwo\nthree\nfour\n", &["a"][..], "one\nours\n2\nthree\nx\n4\n"),
        ("uno\ntwo\ntre\nfour\n", &["b"], "uno\nours\nII\ny\ntre\nfour\n"),
        ("one\ntwo\ntre\nfour\n", &["b", "a"], "one\nours\nII\ny\ntre\nfour\n"),
        ("one\ntwo\ntre\nfour\n", &["a", "b"], "one\nours\n2\ny\ntre\n4\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f.c");
        std::fs::write(&file, text).unwrap();
        assert!(!is_applied(dir.path(), &edits, pins, &ours));
        apply_all(dir.path(), &edits, pins, &ours).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), expected, "{pins:?}");
        assert!(is_applied(dir.path(), &edits, &["a", "b"], &ours), "{pins:?}");
    }

    // A pin alone takes nothing of another, and says by how much a tree is not that one.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.c"), "uno\ntwo\ntre\n").unwrap();
    assert!(plan(dir.path(), &edits, &["a"], &ours).is_err());
    let found = fit(dir.path(), &edits, &["a", "b"], &ours).unwrap();
    assert_eq!(found, [("b", 0), ("a", 3)]);
}

#[test]
fn a_tree_without_the_folder_does_without_its_edits() {
    let edits = [parse(
        "0001-x.toml",
        "needs = 'tests'\nwhy = 'w'\n[[copy]]\nfrom = 'x.h'\nto = 'tests/x.h'\n\
         [[edit]]\nfile = 'tests/f.c'\nanchor = 'gamma'\nafter = 'x'\n",
    )];
    let dir = tempfile::tempdir().unwrap();
    assert!(apply_all(dir.path(), &edits, &["a"], &ours).unwrap().is_empty());
    assert!(!dir.path().join("tests").exists());
    // With the folder, the file must be there, too.
    std::fs::create_dir(dir.path().join("tests")).unwrap();
    assert!(apply_all(dir.path(), &edits, &["a"], &ours).is_err());
    std::fs::write(dir.path().join("tests/f.c"), TEXT).unwrap();
    assert_eq!(apply_all(dir.path(), &edits, &["a"], &ours).unwrap().len(), 2);
}

#[test]
fn malformed_variants_are_refused() {
    let bad = |toml: &str| {
        let head = "why = 'w'\n[[edit]]\nfile = 'f.c'\nanchor = 'a'\nthen = 'b'\nafter = 'x'\n";
        edit_file::parse("0001-bad.toml", &format!("{head}{toml}")).unwrap_err().to_string()
    };
    assert!(bad("[edit.variant.b]").contains("differs in nothing"));
    assert!(bad("[edit.variant.b]\nthen = 'c'").contains("needs an anchor"));
    assert!(bad("[edit.variant.b]\nbefore = 'y'\nafter = 'y'").contains("exactly one of"));
    assert!(bad("[edit.variant.b]\nanchor = 'x'").contains("its own anchor"));
    assert!(bad("[edit.variant.b]\nfile = 'g.c'").contains("file"));
    assert!(bad("pins = []").contains("for no pin"));
}
