//! The real program's errors, exit codes and silence about secrets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use clap::CommandFactory;
use reelfs::cli::Cli;

/// The program with a home of its own and nothing else in its environment.
struct Program {
    home: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_reelfs"))
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", "/usr/bin:/bin")
            .envs(environment.iter().copied())
            .current_dir(self.home.path())
            .output()
            .unwrap()
    }

    /// Exit code and stderr of a run that must fail without a word on stdout.
    fn failure(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
        let output = self.run(arguments, environment);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    }

    fn config_file(&self, text: &str, mode: u32) {
        let path = self.home.path().join(".config/reelfs/config.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

const TOKEN: (&str, &str) = ("USEAPI_TOKEN", "user:1-s3cret");

#[test]
fn help_lists_the_commands_and_exit_codes_and_exits_0() {
    let output = Program::new().run(&["--help"], &[]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for word in ["mount", "unmount", "Exit codes", "0 done"] {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn help_shows_no_value_from_the_environment() {
    let output = Program::new().run(
        &["mount", "--help"],
        &[TOKEN, ("RUNWAY_EMAIL", "me@my.own")],
    );
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("USEAPI_TOKEN"));
    assert!(!help.contains("s3cret") && !help.contains("me@my.own"));
}

#[test]
fn without_a_token_mount_fails_and_names_both_variables() {
    let (code, said) = Program::new().failure(&["mount", "."], &[("USEAPI_TOKEN", "")]);
    assert_eq!(code, 1);
    assert!(
        said.contains("USEAPI_TOKEN") && said.contains("RUNFLOW_TOKEN"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn an_unknown_flag_and_a_wrong_value_are_usage_errors() {
    let program = Program::new();
    for (arguments, word) in [
        (
            &["mount", "--useapi-token", "s3cret", "."][..],
            "--useapi-token",
        ),
        (&["mount"], "MOUNTPOINT"),
        (&["mount", ".", "--cache-size", "potato"], "potato"),
        (&["mount", ".", "--deadline=0s"], "--deadline"),
    ] {
        let (code, said) = program.failure(arguments, &[TOKEN]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn an_unfit_mount_point_fails_in_the_background_and_in_the_foreground() {
    let program = Program::new();
    let absent = program.home.path().join("absent");
    let absent = absent.to_str().unwrap();
    for mode in [&["mount", absent][..], &["mount", absent, "-f"]] {
        let (code, said) = program.failure(mode, &[TOKEN]);
        assert_eq!(code, 1);
        assert_eq!(
            said,
            format!("reelfs: {absent} does not exist; run: mkdir -p {absent}\n")
        );
    }
}

#[test]
fn a_mount_point_that_holds_files_is_refused() {
    let program = Program::new();
    fs::write(program.home.path().join("film"), "x").unwrap();
    let (code, said) = program.failure(&["mount", "."], &[TOKEN]);
    assert_eq!(code, 1);
    assert!(said.contains("is not empty"), "{said}");
}

#[test]
fn a_config_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let program = Program::new();
    program.config_file("useapi_token = 's3cret'", 0o644);
    let (code, said) = program.failure(&["mount", "."], &[]);
    assert_eq!(code, 1);
    assert!(
        said.contains("chmod 600 ") && said.contains("config.toml"),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn no_error_shows_a_secret_at_any_log_level() {
    let program = Program::new();
    type Case = (
        &'static [&'static str],
        &'static [(&'static str, &'static str)],
    );
    let cases: [Case; 4] = [
        (&["mount", "/absent"], &[TOKEN]),
        (&["mount", "/absent", "-f"], &[TOKEN]),
        (&["mount", "."], &[("USEAPI_TOKEN", "s3cret \u{7f}")]),
        (
            &["mount", ".", "--useapi-url", "https://u:s3cret@h/?s3cret"],
            &[TOKEN],
        ),
    ];
    for (arguments, environment) in cases {
        let environment = [environment, &[("RUST_LOG", "trace")]].concat();
        let (_, said) = program.failure(arguments, &environment);
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn unmounting_what_is_not_mounted_fails_with_a_sentence() {
    let (code, said) = Program::new().failure(&["unmount", "."], &[]);
    assert_eq!(code, 1);
    assert!(said.contains("nothing is mounted on"), "{said}");
}

// ---- what is made from the definition of the command line ----

/// `reelfs generate` into a directory, which is answered.
fn generated(what: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let output = Program::new().run(&["generate", what, path], &[]);
    assert!(output.status.success(), "{output:?}");
    directory
}

/// What a program printed on both, which must succeed.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .env("MANPAGER", "cat")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn every_command_has_a_manual_page_that_man_shows_without_a_warning() {
    let pages = generated("man");
    let commands = Cli::command();
    let visible = commands.get_subcommands().filter(|c| !c.is_hide_set());
    let mut names: Vec<String> = visible
        .map(|command| format!("reelfs-{}.1", command.get_name()))
        .collect();
    assert!(names.len() >= 3);
    names.extend(["reelfs.1".to_string(), "mount.reelfs.8".to_string()]);
    for name in names {
        let page = pages.path().join(&name);
        let page = page.to_str().unwrap();
        assert_eq!(
            said("groff", &["-man", "-ww", "-z", "-Tutf8", page]),
            "",
            "{name}"
        );
        let shown = said("man", &["--warnings", "-l", page]);
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"] {
            assert!(shown.contains(heading), "{name} lacks {heading}");
        }
    }
}

#[test]
fn the_manual_tells_files_variables_exit_codes_and_mount_options() {
    let pages = generated("man");
    let shown = |name: &str| said("man", &["-l", pages.path().join(name).to_str().unwrap()]);
    let main = shown("reelfs.1");
    for words in [
        "EXIT STATUS",
        "ENVIRONMENT",
        "USEAPI_TOKEN",
        "FILES",
        "config.toml",
    ] {
        assert!(main.contains(words), "{words}");
    }
    let mount = shown("mount.reelfs.8");
    for words in [
        "cache_size=SIZE",
        "allow_other",
        "x-systemd.automount",
        "umask=BITS",
    ] {
        assert!(mount.contains(words), "{words}");
    }
    assert!(!mount.contains("foreground"));
}

#[test]
fn bash_completes_commands_and_flags() {
    let scripts = generated("completions");
    let complete = |words: &str| {
        let script = scripts.path().join("reelfs.bash");
        let script = format!(
            "set -e; source {}; COMP_WORDS=({words}); COMP_CWORD=$(({count} - 1))
             _reelfs reelfs ${{COMP_WORDS[-1]}} ${{COMP_WORDS[-2]}}; echo \"${{COMPREPLY[@]}}\"",
            script.display(),
            count = words.split(' ').count(),
        );
        said("bash", &["--norc", "-c", &script]).trim().to_string()
    };
    assert_eq!(complete("reelfs mo"), "mount");
    assert_eq!(complete("reelfs mount --cache"), "--cache-size");
    assert_eq!(complete("reelfs unmount --f"), "--force");
    for name in ["_reelfs", "reelfs.fish"] {
        let script = fs::read_to_string(scripts.path().join(name)).unwrap();
        assert!(script.contains("cache-size"), "{name}");
    }
}

/// The rows of the table of mistakes in docs/MESSAGES.md: mistake, code, what is said.
fn documented() -> Vec<(String, i32, String)> {
    let text = fs::read_to_string("docs/MESSAGES.md").unwrap();
    let table = text.split("| mistake |").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let said = cells[2].trim_matches('`').to_string();
        (cells[0].to_string(), cells[1].parse().unwrap(), said)
    })
    .collect()
}

#[test]
fn the_usual_mistakes_say_what_the_document_says() {
    let program = Program::new();
    let home = program.home.path().to_path_buf();
    for directory in ["empty", "full"] {
        fs::create_dir(home.join(directory)).unwrap();
    }
    fs::write(home.join("full/file"), "x").unwrap();
    let at = |name: &str| home.join(name).to_str().unwrap().to_string();
    let (empty, full, file, absent) = (at("empty"), at("full"), at("full/file"), at("absent"));
    #[cfg(feature = "emulator")]
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    #[cfg(feature = "emulator")]
    let port = taken.local_addr().unwrap().to_string();
    type Made<'a> = (&'a str, Vec<&'a str>, &'a [(&'a str, &'a str)], &'a str);
    let made: Vec<Made<'_>> = vec![
        ("no token", vec!["mount", &empty], &[], &empty),
        (
            "the mount point does not exist",
            vec!["mount", &absent],
            &[TOKEN],
            &absent,
        ),
        (
            "the mount point holds files",
            vec!["mount", &full],
            &[TOKEN],
            &full,
        ),
        (
            "the mount point is a file",
            vec!["mount", &file],
            &[TOKEN],
            &file,
        ),
        (
            "a key of the configuration file is misspelt",
            vec!["mount", &empty],
            &[TOKEN],
            "misspelt",
        ),
        (
            "others can read the configuration file",
            vec!["mount", &empty],
            &[],
            "exposed",
        ),
        (
            "a value is out of its range",
            vec!["mount", &empty, "--deadline=0s"],
            &[TOKEN],
            "",
        ),
        (
            "a flag that there is not",
            vec!["mount", &empty, "--fast"],
            &[TOKEN],
            "",
        ),
        (
            "`unmount` of what is not mounted",
            vec!["unmount", &empty],
            &[],
            &empty,
        ),
        (
            "`status` of what is not mounted",
            vec!["status", &empty],
            &[],
            &empty,
        ),
        (
            "`status` of another file system's mount",
            vec!["status", "/proc"],
            &[],
            "",
        ),
        (
            "`refresh` outside of a mount",
            vec!["refresh", &empty],
            &[],
            &empty,
        ),
        (
            "`retry` outside of a mount",
            vec!["retry", &empty],
            &[],
            &empty,
        ),
        #[cfg(feature = "emulator")]
        (
            "`emulate` on a port that is in use",
            vec!["emulate", "--listen", &port],
            &[],
            "",
        ),
    ];
    let documented = documented();
    assert!(
        documented.len() >= made.len(),
        "every mistake is documented"
    );
    for (mistake, arguments, environment, path) in made {
        let row = documented.iter().find(|(other, ..)| other == mistake);
        let (_, code, said) = row.unwrap_or_else(|| panic!("{mistake} is not documented"));
        match path {
            "misspelt" => program.config_file("usepai_token = 'x'", 0o600),
            "exposed" => program.config_file("useapi_token = 'x'", 0o644),
            _ => program.config_file("", 0o600),
        }
        let outcome = program.failure(&arguments, environment);
        assert_eq!(outcome.0, *code, "{mistake}: {}", outcome.1);
        let expected = said.replace("PATH", path);
        assert!(
            outcome.1.contains(&expected),
            "{mistake}: {expected}: {}",
            outcome.1
        );
    }
}
