//! The fault matrix: every request with every trouble, held against `expected` and written down in
//! `docs/RELIABILITY.md`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use crate::cell::{self, Report, Times};
use crate::doors::Certificates;
use crate::expected;
use crate::kinds::{self, Request};

/// `row column times`, for a process that plays one cell.
const CELL: &str = "REELFS_TEST_CELL";
const PLACE: &str = "REELFS_TEST_CELL_PLACE";
/// Set to write the table instead of comparing it.
const WRITE: &str = "REELFS_WRITE_DOCS";
/// Only these rows, for a look at a few; nothing is written or compared then.
const ROWS: &str = "REELFS_TEST_ROWS";

/// Cells at once: they mostly wait.
const AT_ONCE: usize = 20;
const DOCUMENT: &str = "docs/RELIABILITY.md";
const BEGIN: &str = "<!-- The table is made by `cargo test --test faults`. -->";
const END: &str = "<!-- End of the table. -->";

type Cell = (usize, usize, Times);

#[test]
fn every_request_with_every_fault_gives_the_right_bytes_or_the_right_errno() {
    if let Ok(cell) = env::var(CELL) {
        return play(&cell);
    }
    let place = tempfile::tempdir().unwrap();
    Certificates::make(place.path());
    let wanted = wanted();
    let cells: Vec<Cell> = wanted.keys().copied().collect();
    let mut reports = run(&cells, AT_ONCE, place.path());
    // Deadlines are seconds here, which a machine that is busy with something else may take for a
    // start. What differs is looked at once more, alone; a complaint is never looked past.
    let differs = |cell: &Cell, reports: &BTreeMap<Cell, Report>| {
        reports[cell].outcome != wanted[cell] && reports[cell].complaints.is_empty()
    };
    let again: Vec<Cell> = cells
        .iter()
        .copied()
        .filter(|cell| differs(cell, &reports))
        .collect();
    reports.extend(run(&again, 2, place.path()));
    let wrong = complaints(&wanted, &reports);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if env::var_os(ROWS).is_none() {
        compare_document(&table(&reports));
    }
}

/// What each cell must come to.
fn wanted() -> BTreeMap<Cell, &'static str> {
    let only = env::var(ROWS).ok();
    let mut wanted = BTreeMap::new();
    let known: Vec<&str> = names();
    let rows = expected::rows();
    let listed: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, known, "the rows of `expected` are those of `kinds`");
    for (row, (name, cells)) in rows.into_iter().enumerate() {
        assert_eq!(cells.len(), Request::ALL.len(), "columns of {name}");
        if only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        for (column, [once, always]) in cells.into_iter().enumerate() {
            for (times, outcome) in [(Times::Once, once), (Times::Always, always)] {
                if let Some(outcome) = outcome {
                    wanted.insert((row, column, times), outcome);
                }
            }
        }
    }
    wanted
}

fn names() -> Vec<&'static str> {
    kinds::faults("").iter().map(|fault| fault.name).collect()
}

/// Plays cells, each in a process of its own.
fn run(cells: &[Cell], at_once: usize, place: &Path) -> BTreeMap<Cell, Report> {
    let left = Mutex::new(cells.to_vec());
    let reports = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let Some(cell) = left.lock().unwrap().pop() else {
                        return;
                    };
                    let report = play_elsewhere(cell, place);
                    reports.lock().unwrap().insert(cell, report);
                }
            });
        }
    });
    reports.into_inner().unwrap()
}

fn play_elsewhere((row, column, times): Cell, place: &Path) -> Report {
    let name = format!("{row} {column} {times:?}");
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--test-threads=1", "--nocapture"])
        .arg("matrix::every_request_with_every_fault_gives_the_right_bytes_or_the_right_errno")
        .env(CELL, &name)
        .env(PLACE, place)
        .env("SSL_CERT_FILE", place.join("trusted.pem"))
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::null())
        .output()
        .expect("this test program runs again");
    let report = fs::read_to_string(place.join(&name)).unwrap_or_default();
    let mut lines = report.lines().map(str::to_string);
    let outcome = lines.next().unwrap_or_default();
    let mut complaints: Vec<String> = lines.collect();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        complaints.push(format!("it ended with {}: {said}", output.status));
    }
    Report {
        outcome,
        complaints,
    }
}

fn play(cell: &str) {
    let place = env::var_os(PLACE).expect("a place for the report");
    let place = Path::new(&place);
    let parts: Vec<&str> = cell.split(' ').collect();
    let times = match parts[2] {
        "Once" => Times::Once,
        _ => Times::Always,
    };
    let (row, column) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
    cell::play(row, column, times, place, &place.join(cell));
}

fn complaints(
    wanted: &BTreeMap<Cell, &'static str>,
    reports: &BTreeMap<Cell, Report>,
) -> Vec<String> {
    let names = names();
    let mut wrong = Vec::new();
    for (cell @ (row, column, times), report) in reports {
        let what = format!(
            "{} ({}, {times:?})",
            names[*row],
            Request::ALL[*column].title()
        );
        if report.outcome != wanted[cell] {
            let (is, wanted) = (&report.outcome, wanted[cell]);
            wrong.push(format!("{what}: {is} where {wanted} is expected"));
        }
        for complaint in &report.complaints {
            wrong.push(format!("{what}: {complaint}"));
        }
    }
    wrong
}

/// What came out, as Markdown.
fn table(reports: &BTreeMap<Cell, Report>) -> String {
    let titles = Request::ALL.map(Request::title).join(" | ");
    let mut lines = vec![
        format!("| what goes wrong | {titles} |"),
        format!("|---{}|", "|---".repeat(Request::ALL.len())),
    ];
    for (row, name) in names().into_iter().enumerate() {
        let cells: Vec<String> = (0..Request::ALL.len())
            .map(|column| {
                let of = |times| Some(reports.get(&(row, column, times))?.outcome.as_str());
                match (of(Times::Once), of(Times::Always)) {
                    (None, None) => "–".to_string(),
                    (Some(once), Some(always)) if once == always => once.to_string(),
                    (once, always) => {
                        format!("{} / {}", once.unwrap_or("–"), always.unwrap_or("–"))
                    }
                }
            })
            .collect();
        lines.push(format!("| {name} | {} |", cells.join(" | ")));
    }
    lines.push(format!("\n{} cells.", reports.len()));
    lines.join("\n")
}

fn compare_document(table: &str) {
    let text = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (written, after) = rest.split_once(END).expect("where the table ends");
    if env::var_os(WRITE).is_some() {
        let text = format!("{before}{BEGIN}\n\n{table}\n\n{END}{after}");
        return fs::write(DOCUMENT, text).unwrap();
    }
    assert!(
        written.trim() == table,
        "the table in {DOCUMENT} is another: {WRITE}=1 cargo test --test faults matrix"
    );
}
