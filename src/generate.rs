//! Manual pages and shell completions, made from the definition of the command line, so that they
//! say what the program does. They fail as files do that can't be written.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap::builder::Resettable;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::cli::{Cli, helper};
use crate::config::variables;

const MANUAL: &str = "User Commands";
const ADMIN_MANUAL: &str = "System Administration";

/// When the words of the pages were last changed; man shows it at the foot.
const DATE: &str = "2026-11-27";

/// Exit codes, and what each means.
const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "Done."),
    (
        "1",
        "It failed, and one sentence on stderr says why and what to do.",
    ),
    ("2", "A wrong command line or setting."),
];

/// mount(8)'s, which the helper has.
const MOUNT_EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "Mounted."),
    ("1", "A wrong option."),
    (
        "32",
        "The mount failed, and one sentence on stderr says why.",
    ),
];

const FILES: [(&str, &str); 4] = [
    (
        "~/.config/reelfs/config.toml",
        "The settings of reelfs mount. Keys are the flags' names with underscores, and the tokens \
         useapi_token and runflow_token. A file that others can read is refused when it holds a \
         token. $XDG_CONFIG_HOME stands for ~/.config where it is set.",
    ),
    (
        "~/.local/state/reelfs/",
        "Staged uploads, ids and times, and the logs of mounts in the background. \
         $XDG_STATE_HOME stands for ~/.local/state where it is set.",
    ),
    (
        "/etc/fuse.conf",
        "Its line user_allow_other lets users other than root open their mounts with --allow-other.",
    ),
    (
        "/usr/lib/systemd/user/reelfs@.service, /lib/systemd/system/reelfs@.service",
        "Units for systemd; their heads say how they are used.",
    ),
];

/// Writes `reelfs.1`, a page for each command (`reelfs-mount.1`) and `mount.reelfs.8`.
pub fn man_pages(directory: &Path) -> io::Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write(directory, "reelfs.1", &main_page(&command)?)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("reelfs-{}", sub.get_name());
        let page = Man::new(sub.clone())
            .title(&*name)
            .manual(MANUAL)
            .date(DATE);
        let page = page.source(source());
        let mut text = Vec::new();
        page.render(&mut text)?;
        see_also(&[("reelfs", "1")]).to_writer(&mut text)?;
        write(directory, &format!("{name}.1"), &text)?;
    }
    write(directory, "mount.reelfs.8", &helper_page()?)
}

/// Writes `reelfs.bash`, `_reelfs` (zsh) and `reelfs.fish`.
pub fn completions(directory: &Path) -> io::Result<()> {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut command = Cli::command();
        clap_complete::generate_to(shell, &mut command, "reelfs", OsString::from(directory))?;
    }
    Ok(())
}

fn source() -> String {
    format!("reelfs {}", env!("CARGO_PKG_VERSION"))
}

fn main_page(command: &clap::Command) -> io::Result<Vec<u8>> {
    // Its own section tells the exit codes.
    let command = command.clone().after_help(Resettable::Reset);
    let page = Man::new(command).manual(MANUAL).date(DATE).source(source());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    page.render_subcommands_section(&mut text)?;
    let mut rest = Roff::new();
    list(&mut rest, "EXIT STATUS", EXIT_STATUS);
    let variables = variables();
    let variables = variables.iter().map(|(name, flag)| match flag {
        Some(flag) => (*name, format!("As {flag} of reelfs mount.")),
        None => (
            *name,
            "A token; it has no flag, which every user could read.".to_string(),
        ),
    });
    list(&mut rest, "ENVIRONMENT", variables);
    let log = (
        "RUST_LOG",
        "What is logged: error, warn, info, debug or trace.",
    );
    entries(&mut rest, [log]);
    list(&mut rest, "FILES", FILES);
    rest.to_writer(&mut text)?;
    see_also(&[("mount.reelfs", "8"), ("fusermount3", "1"), ("mount", "8")])
        .to_writer(&mut text)?;
    Ok(text)
}

/// What fstab and mount(8) can say.
fn helper_page() -> io::Result<Vec<u8>> {
    let mut page = Roff::new();
    let source = source();
    page.control("TH", ["mount.reelfs", "8", DATE, &source, ADMIN_MANUAL]);
    page.control("SH", ["NAME"]);
    page.text([roman(
        "mount.reelfs - mount the libraries of AI studios by way of mount(8)",
    )]);
    page.control("SH", ["SYNOPSIS"]);
    synopsis(&mut page, "mount -t reelfs ");
    page.control("br", []);
    synopsis(&mut page, "mount -t fuse.reelfs ");
    paragraphs(
        &mut page,
        "DESCRIPTION",
        &[
            "mount(8) calls this helper for the type reelfs, with the options of its command line or \
             of /etc/fstab. For the type fuse.reelfs it calls mount.fuse3(8), which runs reelfs.",
            "SOURCE says nothing; write reelfs, so that a second `mount -a` finds the mount.",
            "Tokens are no options, because every user can read those. They stand in the file that \
             config=FILE names, of mode 600.",
            "umount(8) returns when the mount is gone, while running uploads go on in the \
             background. `reelfs unmount` waits for them.",
        ],
    );
    page.control("SH", ["OPTIONS"]);
    for option in helper::options() {
        page.control("TP", []);
        let mut term = vec![bold(&*option.name)];
        if let Some(value) = &option.value {
            term.extend([roman("="), italic(&**value)]);
        }
        page.text(term);
        page.text([roman(&*option.help)]);
    }
    entries(
        &mut page,
        [
            ("ro", "As read_only."),
            (
                "_netdev, nofail, noauto, user, x-systemd.automount and the like",
                "The generic options of mount(8) and systemd.mount(5) are accepted. Devices and \
                 set-user-id bits are never honoured.",
            ),
        ],
    );
    page.control("SH", ["EXAMPLES"]);
    page.text([roman("A line of /etc/fstab:")]);
    page.control("PP", []);
    page.control("nf", []);
    page.text([roman(
        "reelfs /mnt/studio fuse.reelfs noauto,x-systemd.automount,_netdev,allow_other,\
         config=/etc/reelfs/studio.toml,state_dir=/var/lib/reelfs 0 0",
    )]);
    page.control("fi", []);
    list(&mut page, "EXIT STATUS", MOUNT_EXIT_STATUS);
    let mut text = Vec::new();
    page.to_writer(&mut text)?;
    see_also(&[("reelfs", "1"), ("mount", "8"), ("fstab", "5")]).to_writer(&mut text)?;
    Ok(text)
}

fn synopsis(page: &mut Roff, start: &str) {
    page.text([
        bold(start),
        italic("SOURCE DIRECTORY"),
        roman(" ["),
        bold("-o "),
        italic("OPTION"),
        roman("["),
        bold(","),
        italic("OPTION"),
        roman("...]]"),
    ]);
}

fn paragraphs(page: &mut Roff, heading: &str, texts: &[&str]) {
    page.control("SH", [heading]);
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            page.control("PP", []);
        }
        page.text([roman(*text)]);
    }
}

fn list<T: Into<String>>(
    page: &mut Roff,
    heading: &str,
    terms: impl IntoIterator<Item = (&'static str, T)>,
) {
    page.control("SH", [heading]);
    entries(page, terms);
}

fn entries<T: Into<String>>(page: &mut Roff, terms: impl IntoIterator<Item = (&'static str, T)>) {
    for (term, text) in terms {
        page.control("TP", []);
        page.text([bold(term)]);
        page.text([roman(text.into())]);
    }
}

fn see_also(pages: &[(&str, &str)]) -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["SEE ALSO"]);
    let mut words: Vec<Inline> = Vec::new();
    for (name, number) in pages {
        if !words.is_empty() {
            words.push(roman(", "));
        }
        words.extend([bold(*name), roman(format!("({number})"))]);
    }
    section.text(words);
    section
}

fn write(directory: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    File::create(directory.join(name))?.write_all(text)
}
