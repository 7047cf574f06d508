//! The program: command line in, exit code out.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use reelfs::cli::{
    Cli, Command, DoctorArgs, GenerateArgs, Generated, RefreshArgs, Settings, StatusArgs,
    UnmountArgs, helper,
};
use reelfs::config::{Config, ConfigError, Environment, Purpose, state_dir_for_unmount};
use reelfs::mount::status::Form;
use reelfs::mount::{MountError, Urgency, stack::build_stack};
use reelfs::{doctor, logging, mount};

/// It failed; a sentence on stderr says why.
const FAILURE: u8 = 1;
/// A wrong command line or setting; clap uses the same.
const USAGE: u8 = 2;

/// mount(8)'s own codes, for what it calls: a wrong option, and a mount that failed.
const MOUNT_USAGE: u8 = 1;
const MOUNT_FAILURE: u8 = 32;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    if let Some(call) = helper::recognise(&argv) {
        logging::init();
        let mounted = call.map_err(Into::into).and_then(|call| mount_for(&call));
        return exit_code(mounted, MOUNT_USAGE, MOUNT_FAILURE);
    }
    let cli = Cli::parse();
    logging::init();
    exit_code(run(cli.command), USAGE, FAILURE)
}

/// Prints what failed as one sentence.
fn exit_code(outcome: anyhow::Result<()>, usage: u8, failure: u8) -> ExitCode {
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    eprintln!("reelfs: {}", logging::redact(&format!("{error:#}")));
    let is_usage = error.is::<helper::Misuse>()
        || error
            .downcast_ref::<ConfigError>()
            .is_some_and(ConfigError::is_usage);
    ExitCode::from(if is_usage { usage } else { failure })
}

/// As mount(8) wants it: silent unless it asked for words.
fn mount_for(call: &helper::Call) -> anyhow::Result<()> {
    let Command::Mount(args) = Cli::try_parse_from(&call.arguments)?.command else {
        return Err(helper::Misuse::Usage.into());
    };
    if call.fake {
        Config::resolve(&args.settings, environment(), Purpose::Accounts)?;
        return Ok(());
    }
    let words = match call.verbose {
        true => Words::Shown,
        false => Words::None,
    };
    mount_on(
        &args.mountpoint,
        args.foreground,
        &args.settings,
        Purpose::Accounts,
        words,
    )
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Mount(args) => mount_on(
            &args.mountpoint,
            args.foreground,
            &args.settings,
            Purpose::Accounts,
            Words::Shown,
        ),
        Command::Unmount(args) => unmount(&args),
        Command::Status(args) => status(&args).map_err(Into::into),
        Command::Doctor(args) => examine(&args),
        Command::Refresh(args) => refresh(&args),
        Command::Generate(args) => generate(&args),
        Command::Retry(args) => mount::retry(&args.path).map_err(Into::into),
        #[cfg(feature = "emulator")]
        Command::Demo(args) => {
            let mountpoint = demo_mountpoint(args.mountpoint)?;
            mount_on(
                &mountpoint,
                args.foreground,
                &args.settings,
                Purpose::Demo,
                Words::Shown,
            )
        }
        #[cfg(feature = "emulator")]
        Command::Emulate(args) => reelfs::emulator::cli::run(&args),
    }
}

/// Whether a success is told.
#[derive(PartialEq, Eq)]
enum Words {
    Shown,
    None,
}

fn mount_on(
    mountpoint: &Path,
    foreground: bool,
    settings: &Settings,
    purpose: Purpose,
    words: Words,
) -> anyhow::Result<()> {
    let config = Config::resolve(settings, environment(), purpose)?;
    config.tokens().for_each(logging::hide);
    if mount::is_child() {
        return mount::run_as_child(mountpoint, &config, build_stack);
    }
    if foreground {
        return mount::run_in_foreground(mountpoint, &config, build_stack);
    }
    let log = mount::run_in_background(mountpoint, &config)?;
    if words == Words::None {
        return Ok(());
    }
    println!(
        "Mounted on {point}. Its log is {log}. To end it: reelfs unmount {point}",
        point = std::path::absolute(mountpoint)?.display(),
        log = log.display()
    );
    Ok(())
}

fn status(args: &StatusArgs) -> Result<(), MountError> {
    let form = match args.json {
        true => Form::Json,
        false => Form::Text,
    };
    let path = args.mountpoint.as_deref();
    match args.watch {
        true => mount::status::watch(path, form),
        false => mount::status::status(path, form),
    }
}

fn examine(args: &DoctorArgs) -> anyhow::Result<()> {
    let findings = doctor::examine(&args.settings, environment());
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&findings)?),
        false => print!("{}", doctor::text(&findings)),
    }
    let problems = findings
        .iter()
        .filter(|f| f.verdict == doctor::Verdict::Problem);
    match problems.count() {
        0 => Ok(()),
        1 => anyhow::bail!("there is a problem; what to do stands with it"),
        count => anyhow::bail!("there are {count} problems; what to do stands with each"),
    }
}

fn refresh(args: &RefreshArgs) -> anyhow::Result<()> {
    let done = mount::refresh::refresh(args.path.as_deref())?;
    let mut failed = None;
    for directory in done {
        let path = directory.directory.display();
        match directory.outcome {
            Ok((1, new)) => println!("{path}: 1 file, {new} new"),
            Ok((files, new)) => println!("{path}: {files} files, {new} new"),
            Err(error) => {
                let why = format!("{path} was not listed anew: {error}");
                if let Some(earlier) = failed.replace(why) {
                    eprintln!("reelfs: {earlier}");
                }
            }
        }
    }
    match failed {
        None => Ok(()),
        Some(why) => anyhow::bail!(why),
    }
}

fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    use anyhow::Context;
    let written = match args.what {
        Generated::Man => reelfs::generate::man_pages(&args.directory),
        Generated::Completions => reelfs::generate::completions(&args.directory),
    };
    written.with_context(|| format!("cannot write into {}", args.directory.display()))
}

fn unmount(args: &UnmountArgs) -> anyhow::Result<()> {
    let state_dir = state_dir_for_unmount(args.state_dir.as_deref(), environment())?;
    let urgency = match args.force {
        true => Urgency::AtOnce,
        false => Urgency::WhenIdle,
    };
    let mountpoint = std::path::absolute(&args.mountpoint)?;
    // Started from inside the mount, this process would itself be what keeps it busy.
    let _ = std::env::set_current_dir("/");
    mount::unmount(&mountpoint, urgency, &state_dir, &mut |line| {
        eprintln!("reelfs: {line}");
    })?;
    Ok(())
}

/// The demo's directory; made, unlike a mount point for real libraries.
#[cfg(feature = "emulator")]
fn demo_mountpoint(given: Option<std::path::PathBuf>) -> anyhow::Result<std::path::PathBuf> {
    use anyhow::Context;
    let mountpoint = match given {
        Some(path) => path,
        None => std::env::home_dir()
            .filter(|home| !home.as_os_str().is_empty())
            .context("no home directory: set HOME or name a directory")?
            .join("reelfs-demo"),
    };
    // A dead mount from before exists, though it can't be looked at: the checks deal with it.
    if mountpoint.symlink_metadata().is_err() {
        let made = std::fs::create_dir_all(&mountpoint);
        if let Err(error) = made
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error).with_context(|| format!("cannot make {}", mountpoint.display()));
        }
    }
    Ok(mountpoint)
}

/// What the boot starts has no HOME; then it is looked up.
fn environment() -> &'static Environment<'static> {
    &|name| match std::env::var_os(name) {
        None if name == "HOME" => std::env::home_dir().map(Into::into),
        value => value,
    }
}
