//! `reelfs status --watch`: every second, until Ctrl-C or until there is nothing to watch. On a
//! terminal the text stays in place and uploads have bars; elsewhere one block follows another.

use std::collections::HashMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Form, ask, print, show, text};
use crate::fs::status::UploadLine;
use crate::mount::error::MountError;
use crate::mount::inquire::Asked;

const EVERY: Duration = Duration::from_secs(1);

const BAR: &str = "    {prefix}  [{bar:24}] {bytes} of {total_bytes}  {bytes_per_sec}  {msg}";

/// Shows the mount that `path` is in, or every mount, again and again. Ends in an error: when the
/// mount is gone or, of several, the last.
pub fn watch(path: Option<&Path>, form: Form) -> Result<(), MountError> {
    let mut screen = (form == Form::Text && can_redraw()).then(Screen::new);
    loop {
        let asked = match ask(path) {
            Ok(asked) => asked,
            Err(error) => {
                drop(screen);
                return Err(error);
            }
        };
        match &mut screen {
            Some(screen) => screen.show(&asked),
            None if form == Form::Json => print(&json_line(&asked, path.is_some())),
            None => print(&(text(&asked, path.is_some(), form, SystemTime::now()) + "\n")),
        }
        thread::sleep(EVERY);
    }
}

/// Whether stdout is a terminal that can be drawn over: one without TERM can't.
fn can_redraw() -> bool {
    !ProgressDrawTarget::stdout().is_hidden()
}

/// One line a second, for programs that read along.
fn json_line(asked: &[Asked], one: bool) -> String {
    let documents = asked.iter().map(super::document);
    match one {
        true => documents.map(|document| format!("{document}\n")).collect(),
        false => format!("{}\n", documents.collect::<serde_json::Value>()),
    }
}

struct Screen {
    all: MultiProgress,
    text: ProgressBar,
    bars: HashMap<String, ProgressBar>,
}

impl Screen {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let text = all.add(ProgressBar::new_spinner());
        text.set_style(style("{msg}"));
        Self {
            all,
            text,
            bars: HashMap::new(),
        }
    }

    fn show(&mut self, asked: &[Asked]) {
        let now = SystemTime::now();
        let blocks = asked.iter().map(|asked| match &asked.told {
            Ok(told) => show::text_without_uploads(&told.status, now),
            Err(error) => format!("{error}\n"),
        });
        self.text.set_message(blocks.collect::<Vec<_>>().join("\n"));
        self.text.tick();
        let told = asked.iter().filter_map(|asked| asked.told.as_ref().ok());
        let uploads: Vec<(String, &UploadLine)> = told
            .flat_map(|told| {
                let point = told.status.mount_point.display();
                let uploads = told.status.uploads.iter();
                uploads.map(move |upload| (format!("{point}/{}", upload.path), upload))
            })
            .collect();
        self.bars.retain(|path, bar| {
            let stays = uploads.iter().any(|(other, _)| other == path);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for (path, upload) in uploads {
            let bar = self.bars.entry(path).or_insert_with(|| {
                let bar = self.all.add(ProgressBar::new(upload.size_bytes));
                bar.with_style(style(BAR)).with_prefix(upload.path.clone())
            });
            bar.set_length(upload.size_bytes);
            bar.set_position(upload.sent_bytes);
            bar.set_message(show::upload_state(upload));
            bar.tick();
        }
    }
}

/// A template of ours that indicatif does not read would be seen by every test of the screen.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}
