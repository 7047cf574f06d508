//! The program: command line in, exit code out.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use reelfs::cli::{Cli, Command, Settings, UnmountArgs};
use reelfs::config::{Config, ConfigError, Environment, Purpose, state_dir_for_unmount};
use reelfs::mount::{Urgency, stack::build_stack};
use reelfs::{logging, mount};

/// It failed; a sentence on stderr says why.
const FAILURE: u8 = 1;
/// A wrong command line or setting; clap uses the same.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::init();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reelfs: {}", logging::redact(&format!("{error:#}")));
            let usage = error
                .downcast_ref::<ConfigError>()
                .is_some_and(ConfigError::is_usage);
            ExitCode::from(if usage { USAGE } else { FAILURE })
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Mount(args) => mount_on(
            &args.mountpoint,
            args.foreground,
            &args.settings,
            Purpose::Accounts,
        ),
        Command::Unmount(args) => unmount(&args),
        Command::Retry(args) => mount::retry(&args.path).map_err(Into::into),
        #[cfg(feature = "emulator")]
        Command::Demo(args) => {
            let mountpoint = demo_mountpoint(args.mountpoint)?;
            mount_on(&mountpoint, args.foreground, &args.settings, Purpose::Demo)
        }
        #[cfg(feature = "emulator")]
        Command::Emulate(args) => reelfs::emulator::cli::run(&args),
    }
}

fn mount_on(
    mountpoint: &Path,
    foreground: bool,
    settings: &Settings,
    purpose: Purpose,
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
    println!(
        "Mounted on {point}. Its log is {log}. To end it: reelfs unmount {point}",
        point = std::path::absolute(mountpoint)?.display(),
        log = log.display()
    );
    Ok(())
}

fn unmount(args: &UnmountArgs) -> anyhow::Result<()> {
    let state_dir = state_dir_for_unmount(args.state_dir.as_deref(), environment())?;
    let urgency = match args.force {
        true => Urgency::AtOnce,
        false => Urgency::WhenIdle,
    };
    mount::unmount(&args.mountpoint, urgency, &state_dir, &mut |line| {
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

fn environment() -> &'static Environment<'static> {
    &|name| std::env::var_os(name)
}
