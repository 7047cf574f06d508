//! The command line as text. No I/O, no environment, no defaults: [`crate::config`] puts flags,
//! environment and file together. Tokens have no flag, because `ps` shows flags to everyone.

pub mod helper;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Exit codes, shown at the end of `--help`.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 it failed, and one sentence on stderr says why and \
what to do; 2 a wrong command line or setting.";

const TOKENS: &str = "Tokens come from the environment (USEAPI_TOKEN, RUNFLOW_TOKEN) or from the \
configuration file (useapi_token, runflow_token), never from a flag. A flag beats its environment \
variable, which beats the file. An empty environment variable counts as unset.";

#[derive(Debug, Parser)]
#[command(name = "reelfs", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount the libraries whose tokens are set, and return once the mount answers
    #[command(after_help = TOKENS)]
    Mount(Box<MountArgs>),
    /// Unmount, and wait until running uploads are finished
    Unmount(UnmountArgs),
    /// Try the uploads again that were given up
    Retry(RetryArgs),
    /// Show how mounts are doing: services, listings, cache, uploads, last errors
    Status(StatusArgs),
    /// Check what a mount needs, and say what to do about what is missing
    #[command(after_help = TOKENS)]
    Doctor(Box<DoctorArgs>),
    /// Forget what was listed and list it anew
    Refresh(RefreshArgs),
    /// Mount sample libraries served from this machine: no account needed
    #[cfg(feature = "emulator")]
    Demo(Box<DemoArgs>),
    /// Write the manual pages or the shell completions
    #[command(hide = true)]
    Generate(GenerateArgs),
    /// Serve sample services without mounting anything
    #[cfg(feature = "emulator")]
    Emulate(Box<crate::emulator::cli::EmulateArgs>),
}

#[derive(Debug, Args)]
pub struct MountArgs {
    /// An empty directory
    pub mountpoint: PathBuf,
    /// Stay in the foreground and log to stderr
    #[arg(short, long)]
    pub foreground: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// An empty directory; made where it is absent [default: ~/reelfs-demo]
    pub mountpoint: Option<PathBuf>,
    /// Stay in the foreground and log to stderr
    #[arg(short, long)]
    pub foreground: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct RetryArgs {
    /// A file whose upload failed, or a mount point for all of them
    pub path: PathBuf,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A mount point, or a path inside a mount [default: every mount of this machine]
    pub mountpoint: Option<PathBuf>,
    /// Print what the mount serves as .reelfs/status.json; of several, a list
    #[arg(long)]
    pub json: bool,
    /// Show it again every second, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// A mount point, a directory in it, or a file for its directory [default: all your mounts]
    pub path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    pub what: Generated,
    /// An existing directory
    pub directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Generated {
    /// reelfs(1), a page for each command, mount.reelfs(8)
    Man,
    /// For bash, zsh and fish
    Completions,
}

#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// Where reelfs is mounted, alive or dead
    pub mountpoint: PathBuf,
    /// Detach even while files are open; programs that hold them get errors
    #[arg(long)]
    pub force: bool,
    /// As given to `reelfs mount` [env: REELFS_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Settings as typed on the command line. Every one is text here: flags, environment and file
/// pass through the same checks in [`crate::config`].
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// The Runway account, where the token serves several [env: RUNWAY_EMAIL]
    #[arg(long, value_name = "EMAIL")]
    pub runway_email: Option<String>,
    /// The LTX Studio account, where the token serves several [env: LTX_EMAIL]
    #[arg(long, value_name = "EMAIL")]
    pub ltx_email: Option<String>,
    /// The Runflow organization, where the token serves several [env: RUNFLOW_ORGANIZATION_ID]
    #[arg(long, value_name = "ID")]
    pub runflow_organization: Option<String>,
    /// Where Runway and LTX are reached [env: REELFS_USEAPI_URL] [default: https://api.useapi.net]
    #[arg(long, value_name = "URL")]
    pub useapi_url: Option<String>,
    /// Where Runflow is reached [env: REELFS_RUNFLOW_URL] [default: https://api.runflow.io]
    #[arg(long, value_name = "URL")]
    pub runflow_url: Option<String>,
    /// Memory for asset bytes: bytes, 64M or 1G; at least 8M [env: REELFS_CACHE_SIZE] [default: 128M]
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// How old a listing may be: 30s, 5m; 0s asks every time [env: REELFS_LISTING_TTL] [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub listing_ttl: Option<String>,
    /// The longest wait for a service before an error; 60s at least for a copy in [env: REELFS_DEADLINE] [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// How long unmounting waits for running uploads [env: REELFS_UNMOUNT_TIMEOUT] [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub unmount_timeout: Option<String>,
    /// Let close return before the upload is done; `unmount` waits for it [env: REELFS_WRITE_BACK]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub write_back: Option<String>,
    /// Let other users of this machine in [env: REELFS_ALLOW_OTHER]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_other: Option<String>,
    /// Refuse every change [env: REELFS_READ_ONLY]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub read_only: Option<String>,
    /// Let `rm` delete assets at the service, for good [env: REELFS_ALLOW_DELETE]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_delete: Option<String>,
    /// Show pictures in file managers without downloads: fill the desktop's thumbnail cache from
    /// the services' previews [env: REELFS_THUMBNAILS]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub thumbnails: Option<String>,
    /// Whom the files belong to: a name or number [env: REELFS_UID] [default: who mounts]
    #[arg(long, value_name = "USER")]
    pub uid: Option<String>,
    /// Which group the files belong to [env: REELFS_GID] [default: the group of who mounts]
    #[arg(long, value_name = "GROUP")]
    pub gid: Option<String>,
    /// Show every directory as 777 and every file as 666 without these bits, in octal [env: REELFS_UMASK]
    #[arg(long, value_name = "BITS")]
    pub umask: Option<String>,
    /// Let no program be run from the mount [env: REELFS_NOEXEC]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub noexec: Option<String>,
    /// Where ids, staged uploads and logs are kept [env: REELFS_STATE_DIR] [default: ~/.local/state/reelfs]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The configuration file [env: REELFS_CONFIG] [default: ~/.config/reelfs/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    fn settings(line: &str) -> Settings {
        match parse(line).unwrap().command {
            Command::Mount(args) => args.settings,
            other => panic!("not a mount: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_switch_needs_no_value_and_never_swallows_the_mount_point() {
        let read = settings("reelfs mount --read-only /mnt");
        assert_eq!(read.read_only.as_deref(), Some("true"));
        let off = settings("reelfs mount /mnt --read-only=false");
        assert_eq!(off.read_only.as_deref(), Some("false"));
    }

    #[test]
    fn there_is_no_flag_for_a_token() {
        for flag in ["--useapi-token", "--runflow-token", "--token"] {
            assert!(parse(&format!("reelfs mount {flag} x /mnt")).is_err());
        }
        let help = Cli::command().render_long_help().to_string();
        assert!(!help.contains("token="));
    }
}
