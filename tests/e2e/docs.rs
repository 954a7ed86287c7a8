//! The documentation does what it says: every command in it is run, every configuration checked, every output compared.
//!
//! What a fenced block is, its first line says (where a page is shown, only the first word counts):
//!
//! | block | what happens |
//! |---|---|
//! | `toml` | a pipeline, or tables of one: `acequia validate` must take it; with `wrong` it must refuse it |
//! | `toml same=PATH` | is what lies in that file of the checkout, word for word |
//! | `python` | another system's program, to compare with. Its syntax is checked |
//! | any with `file=PATH`, `append=PATH` | is written there first |
//! | `sh` | runs, and must succeed |
//! | `sh background` | runs until the page ends |
//! | `text log` | these lines appear, in this order, in what the background command prints |
//! | `console` | after each `$` a command, then exactly what it prints; a line `...` stands for any lines |
//! | `sh no-run` | is not run: it needs root or another machine. Its syntax is checked |
//! | `text`, `ini`, `yaml` | a picture, or another program's file |
//!
//! The blocks of a page run in order in one folder of its own.

mod blocks;
mod examples;
mod failures;
mod guarantees;
mod held;
mod invariants;
mod links;
mod session;

use acequia_tests::{Daemon, workspace};
use blocks::blocks;
use session::Session;

/// Pages with blocks that are run, and whether they are read inside the checkout (or beside it).
const PAGES: [(&str, bool); 9] = [
    ("CONTRIBUTING.md", true),
    ("README.md", true),
    ("docs/configuration.md", false),
    ("docs/course.md", false),
    ("docs/formats.md", false),
    ("docs/guarantees.md", false),
    ("docs/operations.md", false),
    ("docs/plugin-tutorial.md", false),
    ("docs/state.md", false),
];

fn follow(page: &str) {
    let (path, inside) = *PAGES.iter().find(|(path, _)| *path == page).expect("a page of the list");
    let mut session = Session::new(inside);
    for block in blocks(path) {
        session.run(&block);
    }
}

#[test]
fn the_readme_does_what_it_says() {
    follow("README.md");
}

#[test]
fn contributing_does_what_it_says() {
    follow("CONTRIBUTING.md");
}

#[test]
fn the_configuration_reference_does_what_it_says() {
    follow("docs/configuration.md");
}

#[test]
fn the_course_is_what_lies_in_its_folder() {
    follow("docs/course.md");
}

#[test]
fn formats_are_as_they_are_said_to_be() {
    follow("docs/formats.md");
}

#[test]
fn what_guarantees_need_is_a_right_configuration() {
    follow("docs/guarantees.md");
}

#[test]
fn operations_are_as_they_are_said_to_be() {
    follow("docs/operations.md");
}

#[test]
fn the_state_is_as_it_is_said_to_be() {
    follow("docs/state.md");
}

#[test]
fn the_plugin_tutorial_does_what_it_says() {
    follow("docs/plugin-tutorial.md");
}

#[test]
fn every_page_is_followed_and_little_of_it_is_left_out() {
    let mut pages: Vec<String> = links::pages().into_iter().filter(|page| !page.ends_with("CHANGELOG.md")).collect();
    // Held by tests of their own: `invariants`, `failures`, and what measures.
    let others = ["docs/benchmarks.md", "docs/failures-of-others.md", "docs/invariants.md"];
    pages.retain(|page| !others.contains(&page.as_str()));
    pages.sort();
    assert_eq!(pages, PAGES.map(|(path, _)| path.to_owned()));
    let left_out = |page: &str| blocks(page).iter().filter(|block| block.has("no-run")).count();
    let left_out: usize = PAGES.iter().map(|(page, _)| left_out(page)).sum();
    // Those that need root, other machines, or servers.
    assert!(left_out <= 8, "{left_out} blocks are not run");
    assert!(workspace().join("docs/invariants.md").exists());
}

#[test]
fn every_metric_is_described() {
    let page = std::fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
    let mut daemon = Daemon::new();
    daemon.pipeline("even", "[source]\ntype = \"rate\"\n[[sink]]\ntype = \"blackhole\"\n");
    daemon.start();
    // The checkpoint's metrics come with the first one.
    let metrics = acequia_tests::eventually("a checkpoint", || {
        let text = daemon.rest().get("/metrics")?.as_str()?.to_owned();
        text.contains("acequia_checkpoint_number{").then_some(text)
    });
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let missing: Vec<&str> =
        names.filter(|name| name.starts_with("acequia_") && !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
