//! What mount(8) and libfuse's mount.fuse3 call, turned into the `reelfs mount` that it means. Pure.
//!
//! - `mount -t reelfs SOURCE DIR` runs `mount.reelfs SOURCE DIR [-sfnv] [-o OPTIONS]`, a link to
//!   this program.
//! - `mount -t fuse.reelfs SOURCE DIR` runs mount.fuse3, which runs `reelfs SOURCE DIR -o OPTIONS`
//!   through a shell.
//!
//! Every flag of `reelfs mount` is an option: `--cache-size 64M` is `cache_size=64M`. SOURCE says
//! nothing. It fails with one sentence that names the option, never with the value of a token.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::{Arg, CommandFactory};

use super::Cli;

/// By these names this program is a helper of mount(8).
const NAMES: [&str; 2] = ["mount.reelfs", "mount.fuse.reelfs"];

/// Options of mount(8) and of FUSE that change nothing here. Devices and set-user-id bits are never
/// honoured and permissions always checked, whatever the options say; access times are never kept;
/// the rest is for mount(8), systemd or the boot scripts.
const IGNORED: [&str; 37] = [
    "async",
    "atime",
    "auto",
    "default_permissions",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "_netdev",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "nogroup",
    "noiversion",
    "nolazytime",
    "nomand",
    "noowner",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "silent",
    "strictatime",
    "suid",
    "sync",
    "users",
];

/// The same for options with values, and for those that begin with `x-` or `X-`.
const IGNORED_KEYS: [&str; 4] = ["user", "comment", "helper", "uhelper"];

/// Flags that say how the command runs, not what is mounted.
const NOT_OPTIONS: [&str; 3] = ["foreground", "help", "version"];

/// A call by mount(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The command line that it means, from the program's name on.
    pub arguments: Vec<OsString>,
    /// `mount -f`: check the options and mount nothing.
    pub fake: bool,
    /// `mount -v`: say what was done.
    pub verbose: bool,
}

/// Why a call means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    #[error("expected SOURCE DIRECTORY [-sfnv] [-o OPTIONS], as mount(8) calls its helpers")]
    Usage,
    #[error("mount's -{0} is not supported; leave it out")]
    Flag(char),
    #[error("unknown option `{name}`; known are {known}, and the generic ones of mount(8)")]
    Unknown { name: String, known: String },
    #[error("the option `{0}` needs a value; write {0}=VALUE")]
    NoValue(String),
    #[error(
        "a token must not be among the options, where every user can read it; write `{0}` into a \
         configuration file of mode 600 and give config=FILE"
    )]
    Token(String),
    #[error("reelfs cannot be remounted; unmount it and mount it again")]
    Remount,
}

/// The call that this command line is, or `None` where it is one of the program's own commands.
pub fn recognise(argv: &[OsString]) -> Option<Result<Call, Misuse>> {
    let (program, rest) = argv.split_first()?;
    let name = Path::new(program).file_name().and_then(OsStr::to_str);
    if name.is_some_and(|name| NAMES.contains(&name)) {
        return Some(helper(program, rest));
    }
    match rest {
        // No command has a flag `-o`, so this is nobody's but mount.fuse3's.
        [_, directory, flag, options] if flag == "-o" => {
            Some(call(program, directory, &[options], false))
        }
        [directory, flag, options] if flag == "-o" => {
            Some(call(program, directory, &[options], false))
        }
        _ => None,
    }
}

/// One of [`options`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOption {
    pub name: String,
    /// What stands for its value in the help; `None` where it needs none.
    pub value: Option<String>,
    pub help: String,
}

/// Every option that is ours, as the flags of `reelfs mount` describe them.
pub fn options() -> Vec<MountOption> {
    let command = Cli::command();
    let described = |(name, arg): (String, &Arg)| MountOption {
        name,
        value: match is_switch(arg) {
            true => None,
            false => arg.get_value_names().map(|names| names.join(" ")),
        },
        help: arg
            .get_help()
            .map(|help| help.to_string())
            .unwrap_or_default(),
    };
    flags(&command).into_iter().map(described).collect()
}

/// The flags of `reelfs mount` that are options, by their names as such.
fn flags(command: &clap::Command) -> Vec<(String, &Arg)> {
    let mount = command.find_subcommand("mount");
    mount
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|arg| Some((arg.get_long()?, arg)))
        .filter(|(long, _)| !NOT_OPTIONS.contains(long))
        .map(|(long, arg)| (long.replace('-', "_"), arg))
        .collect()
}

fn is_switch(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|n| n.min_values() == 0)
}

fn helper(program: &OsStr, rest: &[OsString]) -> Result<Call, Misuse> {
    let mut places = Vec::new();
    let mut options: Vec<&OsString> = Vec::new();
    let (mut sloppy, mut fake, mut verbose) = (false, false, false);
    let mut rest = rest.iter();
    while let Some(argument) = rest.next() {
        let letters = match argument.to_str().and_then(|text| text.strip_prefix('-')) {
            Some(letters) if !letters.is_empty() => letters,
            _ => {
                places.push(argument);
                continue;
            }
        };
        for letter in letters.chars() {
            match letter {
                's' => sloppy = true,
                'f' => fake = true,
                'v' => verbose = true,
                // There is no /etc/mtab of ours to be left alone.
                'n' => {}
                'o' => options.push(rest.next().ok_or(Misuse::Usage)?),
                't' => drop(rest.next().ok_or(Misuse::Usage)?),
                other => return Err(Misuse::Flag(other)),
            }
        }
    }
    let [_source, directory] = places[..] else {
        return Err(Misuse::Usage);
    };
    let call = call(program, directory, &options, sloppy)?;
    Ok(Call {
        fake,
        verbose,
        ..call
    })
}

fn call(
    program: &OsStr,
    directory: &OsStr,
    options: &[&OsString],
    sloppy: bool,
) -> Result<Call, Misuse> {
    let command = Cli::command();
    let known = flags(&command);
    // The last of several counts.
    let mut flags: BTreeMap<String, OsString> = BTreeMap::new();
    let words = options
        .iter()
        .flat_map(|text| text.as_bytes().split(|&byte| byte == b','))
        .filter(|word| !word.is_empty());
    for word in words {
        let at = word.iter().position(|&byte| byte == b'=');
        let (name, value) = match at {
            Some(at) => (&word[..at], Some(OsStr::from_bytes(&word[at + 1..]))),
            None => (word, None),
        };
        let name = String::from_utf8_lossy(name).replace('-', "_");
        let flag = known.iter().find(|(option, _)| *option == name);
        match (flag, name.as_str()) {
            (Some((_, arg)), _) => drop(flags.insert(name, flag_text(arg, value)?)),
            (None, "ro") => drop(flags.insert("read_only".into(), "--read-only".into())),
            // mount(8) says so unless it was told otherwise: no reason to overrule the file.
            (None, "rw") => drop(flags.remove("read_only")),
            (None, "remount") => return Err(Misuse::Remount),
            (None, "useapi_token" | "runflow_token") => return Err(Misuse::Token(name)),
            (None, other) if is_ignored(other) || sloppy => {}
            (None, _) => {
                let names = known.iter().map(|(name, _)| name.as_str());
                return Err(Misuse::Unknown {
                    known: names.collect::<Vec<_>>().join(", "),
                    name,
                });
            }
        }
    }
    let mut arguments = vec![program.to_os_string(), "mount".into()];
    arguments.extend(flags.into_values());
    arguments.extend(["--".into(), directory.to_os_string()]);
    Ok(Call {
        arguments,
        fake: false,
        verbose: false,
    })
}

fn is_ignored(name: &str) -> bool {
    IGNORED.contains(&name)
        || IGNORED_KEYS.contains(&name)
        || name.starts_with("x_")
        || name.starts_with("X_")
}

/// `--name` or `--name=value`.
fn flag_text(arg: &Arg, value: Option<&OsStr>) -> Result<OsString, Misuse> {
    let long = arg.get_long().unwrap_or_default();
    let mut text = OsString::from(format!("--{long}"));
    match value {
        Some(value) => {
            text.push("=");
            text.push(value);
        }
        None if is_switch(arg) => {}
        None => return Err(Misuse::NoValue(long.replace('-', "_"))),
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    use crate::cli::{Command, MountArgs};

    fn recognised(line: &str) -> Option<Result<Call, Misuse>> {
        let argv: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        recognise(&argv)
    }

    /// What the call mounts.
    fn mounts(line: &str) -> MountArgs {
        let call = recognised(line).unwrap().unwrap();
        match Cli::try_parse_from(&call.arguments).unwrap().command {
            Command::Mount(args) => *args,
            other => panic!("not a mount: {other:?}"),
        }
    }

    fn refusal(line: &str) -> String {
        recognised(line).unwrap().unwrap_err().to_string()
    }

    #[test]
    fn mounts_helper_maps_options_to_flags() {
        let args = mounts(
            "/sbin/mount.reelfs reelfs /mnt/a -n -o \
             rw,cache_size=64M,allow_other,write-back=false,config=/etc/reelfs/a.toml,umask=027",
        );
        assert_eq!(args.mountpoint, Path::new("/mnt/a"));
        assert!(!args.foreground);
        let settings = args.settings;
        assert_eq!(settings.cache_size.as_deref(), Some("64M"));
        assert_eq!(settings.allow_other.as_deref(), Some("true"));
        assert_eq!(settings.write_back.as_deref(), Some("false"));
        assert_eq!(settings.umask.as_deref(), Some("027"));
        assert_eq!(
            settings.config.as_deref(),
            Some(Path::new("/etc/reelfs/a.toml"))
        );
        assert_eq!(settings.read_only, None);
    }

    #[test]
    fn what_mount_fuse_runs_is_recognised_with_and_without_a_source() {
        for line in [
            "reelfs studio /mnt/a -o deadline=5s,dev,suid",
            "reelfs /mnt/a -o deadline=5s,dev,suid",
            "/usr/bin/reelfs mount /mnt/a -o deadline=5s",
        ] {
            let args = mounts(line);
            assert_eq!(args.mountpoint, Path::new("/mnt/a"), "{line}");
            assert_eq!(args.settings.deadline.as_deref(), Some("5s"), "{line}");
        }
    }

    #[test]
    fn the_programs_own_commands_are_not_taken_for_calls_of_mount() {
        for line in [
            "reelfs",
            "reelfs mount /mnt",
            "reelfs mount -f /mnt",
            "reelfs unmount a b c",
        ] {
            assert_eq!(recognised(line), None, "{line}");
        }
        for command in Cli::command().get_subcommands() {
            let taken = command
                .get_arguments()
                .any(|arg| arg.get_short() == Some('o'));
            assert!(!taken, "{} has a flag -o", command.get_name());
        }
    }

    #[test]
    fn every_flag_of_mount_is_an_option() {
        let command = Cli::command();
        let mount = command.find_subcommand("mount").unwrap();
        for long in mount.get_arguments().filter_map(Arg::get_long) {
            if !NOT_OPTIONS.contains(&long) {
                let option = long.replace('-', "_");
                mounts(&format!("mount.reelfs s /mnt -o {option}=1"));
            }
        }
    }

    #[test]
    fn generic_options_change_nothing() {
        let args = mounts(
            "mount.reelfs s /mnt -o defaults,noauto,nofail,_netdev,users,user=me,dev,nosuid,noatime,\
             x-systemd.automount,x-systemd.idle-timeout=60,comment=hers,",
        );
        assert!(
            format!("{:?}", args.settings).matches("Some").count() == 0,
            "{args:?}"
        );
    }

    #[test]
    fn ro_and_noexec_are_kept_and_the_last_word_counts() {
        let settings = mounts("mount.reelfs s /mnt -o rw,noexec,ro").settings;
        assert_eq!(settings.read_only.as_deref(), Some("true"));
        assert_eq!(settings.noexec.as_deref(), Some("true"));
        let settings = mounts("mount.reelfs s /mnt -o ro,deadline=1s,deadline=2s,rw").settings;
        assert_eq!(settings.read_only, None);
        assert_eq!(settings.deadline.as_deref(), Some("2s"));
    }

    #[test]
    fn an_unknown_option_is_named_and_mounts_s_tolerates_it() {
        let said = refusal("mount.reelfs s /mnt -o ro,speed=11");
        assert!(
            said.contains("`speed`") && said.contains("cache_size"),
            "{said}"
        );
        mounts("mount.reelfs s /mnt -s -o ro,speed=11");
        assert!(refusal("mount.reelfs s /mnt -o cache_size").contains("cache_size=VALUE"));
        assert!(refusal("mount.reelfs s /mnt -o remount,ro").contains("mount it again"));
    }

    #[test]
    fn a_token_among_the_options_is_refused_and_not_repeated() {
        let said = refusal("reelfs s /mnt -o useapi_token=s3cret");
        assert!(
            said.contains("useapi_token") && !said.contains("s3cret"),
            "{said}"
        );
    }

    #[test]
    fn fake_and_verbose_are_noted_and_the_rest_of_mounts_flags_refused() {
        let call = recognised("mount.fuse.reelfs s /mnt -fv -t fuse.reelfs")
            .unwrap()
            .unwrap();
        assert!(call.fake && call.verbose);
        assert!(refusal("mount.reelfs s /mnt -N /proc/1/ns/mnt").contains("-N"));
        for line in [
            "mount.reelfs",
            "mount.reelfs s",
            "mount.reelfs s /mnt /more",
        ] {
            assert_eq!(recognised(line), Some(Err(Misuse::Usage)), "{line}");
        }
    }
}
