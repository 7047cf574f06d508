//! `reelfs doctor` over healthy and unwell services. Nothing is mounted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reelfs::clock::ManualClock;
use reelfs::emulator::{Effect, EmulatorConfig, Fault, HostKind};
use serde_json::Value;

use crate::support::Studio;

fn studio() -> Studio {
    Studio::unmounted(EmulatorConfig::default())
}

/// Exit code, and what the findings say.
fn examined(studio: &Studio) -> (Option<i32>, String) {
    let output = studio.reelfs(&["doctor"]);
    let said = String::from_utf8(output.stdout).unwrap();
    for secret in [
        studio.services.useapi_token(),
        studio.services.runflow_token(),
    ] {
        assert!(!said.contains(&secret), "{said}");
    }
    (output.status.code(), said)
}

/// The lines about one thing.
fn about(said: &str, what: &str, verdict: &str) -> String {
    let mut lines = said.lines().skip_while(|line| {
        let mut words = line.split_whitespace();
        !(words.next() == Some(verdict) && line.contains(what))
    });
    let finding = lines.next();
    let finding = finding.unwrap_or_else(|| panic!("no {verdict} about {what}: {said}"));
    let remedy = lines.next().filter(|line| line.trim().starts_with("->"));
    format!("{finding} {}", remedy.unwrap_or_default())
}

#[test]
fn a_machine_and_account_that_are_well_are_told_so() {
    let studio = studio();
    let everything = "find $HOME -printf '%p %s %m %l\n' | sort";
    let before = studio.sh(everything);
    let (code, said) = examined(&studio);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(studio.sh(everything), before, "nothing is changed");
    for what in [
        "/dev/fuse",
        "fusermount3",
        "runway:",
        "ltx:",
        "runflow:",
        "clock",
        "state directory",
    ] {
        about(&said, what, "ok");
    }
    assert!(!said.contains("PROBLEM"), "{said}");
}

#[test]
fn the_doctor_asks_each_service_once_and_for_little() {
    let studio = studio();
    examined(&studio);
    let asked = studio.requests(HostKind::Useapi);
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked.iter().all(|request| request.contains("limit=1")),
        "{asked:?}"
    );
    assert_eq!(studio.requests(HostKind::Runflow).len(), 1);
}

#[test]
fn a_refused_token_is_a_problem_of_its_service_alone() {
    let studio = studio().environment("RUNFLOW_TOKEN", "wrong");
    let (code, said) = examined(&studio);
    assert_eq!(code, Some(1), "{said}");
    let finding = about(&said, "runflow:", "PROBLEM");
    assert!(finding.contains("RUNFLOW_TOKEN"), "{finding}");
    about(&said, "runway:", "ok");
}

#[test]
fn a_token_that_was_cut_in_copying_is_told_by_its_form() {
    let studio = studio().environment("USEAPI_TOKEN", "user:12");
    let (code, said) = examined(&studio);
    assert_eq!(code, Some(1), "{said}");
    about(&said, "user:NUMBER-SECRET", "warning");
}

#[test]
fn a_service_that_refuses_connections_and_one_that_is_silent_are_told_apart() {
    let studio = studio().environment("REELFS_RUNFLOW_URL", "http://127.0.0.1:1");
    let silent = Fault::at(HostKind::Useapi).does(Effect::Silent);
    studio.services.add_fault(silent);
    let (code, said) = examined(&studio);
    assert_eq!(code, Some(1), "{said}");
    let refused = about(&said, "runflow:", "PROBLEM");
    assert!(
        refused.contains("cannot connect") && refused.contains("firewall"),
        "{refused}"
    );
    let silent = about(&said, "runway:", "PROBLEM");
    assert!(silent.contains("did not answer in time"), "{silent}");
}

#[test]
fn a_clock_that_differs_from_the_services_is_a_warning() {
    let later = SystemTime::now() + Duration::from_secs(3600);
    let studio = Studio::unmounted(EmulatorConfig {
        clock: Arc::new(ManualClock::at(later)),
        ..EmulatorConfig::default()
    });
    let (code, said) = examined(&studio);
    assert_eq!(code, Some(0), "{said}");
    let finding = about(&said, "clock", "warning");
    assert!(
        finding.contains("behind") && finding.contains("timedatectl"),
        "{finding}"
    );
}

#[test]
fn no_token_at_all_names_the_variables() {
    let studio = studio()
        .environment("USEAPI_TOKEN", "")
        .environment("RUNFLOW_TOKEN", "");
    let (code, said) = examined(&studio);
    assert_eq!(code, Some(1), "{said}");
    let finding = about(&said, "configuration", "PROBLEM");
    assert!(
        finding.contains("USEAPI_TOKEN") && finding.contains("RUNFLOW_TOKEN"),
        "{finding}"
    );
    about(&said, "/dev/fuse", "ok");
}

#[test]
fn a_configuration_file_that_others_can_read_is_a_problem_with_its_command() {
    let studio = studio();
    studio.configure();
    let file = studio.here("../config/reelfs/config.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = examined(&studio);
    assert_eq!(code, Some(1), "{said}");
    let finding = about(&said, "configuration", "PROBLEM");
    assert!(finding.contains("chmod 600"), "{finding}");
}

#[test]
fn a_mount_whose_program_is_gone_is_told_with_its_remedy() {
    let studio = Studio::new();
    studio.kill();
    let (_, said) = examined(&studio);
    let point = studio.at("").display().to_string();
    let finding = about(&said, point.trim_end_matches('/'), "warning");
    assert!(
        finding.contains("dead") && finding.contains("reelfs unmount"),
        "{finding}"
    );
}

#[test]
fn the_findings_are_json_for_programs() {
    let studio = studio();
    studio
        .services
        .add_fault(Fault::at(HostKind::Useapi).does(Effect::status(401)));
    let output = studio.reelfs(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = findings.as_array().unwrap();
    let runway = findings.iter().find(|f| f["what"] == "runway").unwrap();
    assert_eq!(runway["verdict"], "problem");
    assert!(runway["remedy"].as_str().unwrap().contains("USEAPI_TOKEN"));
    assert!(
        findings
            .iter()
            .any(|f| f["what"] == "runflow" && f["verdict"] == "ok")
    );
}
