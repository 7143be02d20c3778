//! The seeded mistakes of `mutants.toml`, which `mutants.py` makes one by one: each still has a place where it can be made.

use std::path::Path;

#[test]
fn every_mutant_has_its_text_in_its_file_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the project lies two folders up");
    let text = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let listed: toml::Table = text("tests/sim/mutants.toml").parse().expect("mutants.toml is TOML");
    let mutants = listed["mutants"].as_array().expect("a list of mutants");
    assert!(20 <= mutants.len(), "{} mutants", mutants.len());
    for mutant in mutants {
        let word = |key: &str| mutant[key].as_str().unwrap_or_else(|| panic!("{key} of {mutant}"));
        let found = text(word("file")).matches(word("find")).count();
        assert_eq!(found, 1, "{}: its text in {}", word("name"), word("file"));
        assert_ne!(word("find"), word("replace"), "{}", word("name"));
        if let Some(test) = mutant.get("test") {
            let [suite, path] = [0, 1].map(|at| test[at].as_str().expect("a suite and a name"));
            let (module, name) = path.rsplit_once("::").expect("a module and its test");
            let folder = if suite == "lib" { "src".to_owned() } else { format!("tests/{suite}") };
            let file = format!("sidecar/{folder}/{}.rs", module.replace("::", "/"));
            let there = text(&file).contains(&format!("fn {name}("));
            assert!(there, "{}: no test {path} in {suite}", word("name"));
        }
    }
}
