//! docs/performance.md against the bench: it names just the figures that there are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rowcast_bench::figures::FIGURES;
use rowcast_bench::report;
use rowcast_tests::binary::root;

#[test]
fn the_page_on_performance_names_the_figures_that_the_bench_measures() {
    let page = std::fs::read_to_string(root().join("docs/performance.md")).unwrap();
    let known: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
    assert_eq!(report::documented(&page).unwrap(), known, "`just bench --write-docs` writes the table anew");
}
