//! The threads that send: each takes the queue's next pick, does it, and tells who waits.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use uuid::Uuid;

use super::error::UploadError;
use super::name::is_local_name;
use super::queue::{self, Pick, Waiting};
use super::sender::Outcome;
use super::staging::{Prepared, StagedFile};
use super::{Line, Shared, UploadState, UploadStatus, key};
use crate::provider::{Asset, ProviderError};
use crate::store::Answer;

impl Shared {
    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn files(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<StagedFile>>> {
        self.files.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn wait<'a>(
        &self,
        line: MutexGuard<'a, Line>,
        until: Option<Instant>,
        now: Instant,
    ) -> MutexGuard<'a, Line> {
        match until {
            None => self.wake.wait(line).unwrap_or_else(|e| e.into_inner()),
            Some(until) => {
                let timeout = until.saturating_duration_since(now);
                self.wake
                    .wait_timeout(line, timeout)
                    .unwrap_or_else(|e| e.into_inner())
                    .0
            }
        }
    }

    /// The life of an upload thread.
    pub(super) fn serve(self: &Arc<Self>) {
        let mut line = self.line();
        while !self.stopping.load(Ordering::Acquire) {
            let now = self.clock.monotonic();
            line.note_progress(now);
            match line.queue.next(now) {
                Pick::Wait(until) => line = self.wait(line, until, now),
                Pick::Run { id, looks } => {
                    drop(line);
                    // A panic of who is told must not take the thread and the turn with it.
                    let run = catch_unwind(AssertUnwindSafe(|| self.run(id, looks)));
                    line = self.line();
                    if run.is_err() {
                        log::error!("the end of an upload met a bug");
                        line.queue.leave(id);
                    }
                    self.wake.notify_all();
                }
                Pick::GiveUp { id, error } => {
                    drop(line);
                    let file = self.files().get(&id).cloned();
                    if let Some(file) = file {
                        self.give_up(&file, error);
                    }
                    line = self.line();
                    self.wake.notify_all();
                }
            }
        }
    }

    pub(super) fn run(self: &Arc<Self>, id: Uuid, looks: u32) {
        let file = self.files().get(&id).cloned();
        let Some(file) = file else {
            return self.line().queue.leave(id);
        };
        self.line().sending.push(Arc::clone(&file));
        let outcome = catch_unwind(AssertUnwindSafe(|| self.attempt(&file, looks)));
        self.line().sending.retain(|other| other.id() != id);
        let outcome = outcome.unwrap_or_else(|_| {
            Outcome::Fail(UploadError::Local("the upload ended in a bug".to_string()))
        });
        self.settle(&file, outcome);
    }

    pub(super) fn settle(self: &Arc<Self>, file: &Arc<StagedFile>, outcome: Outcome) {
        let now = self.clock.monotonic();
        let id = file.id();
        match outcome {
            Outcome::Uploaded(asset) => self.finish(file, &asset, now),
            Outcome::Withdrawn => self.let_go(file),
            Outcome::Fail(error) => {
                // A refusal of one file shows that the account is accepted.
                let refused = matches!(error, UploadError::Provider(ProviderError::Refused { .. }));
                let mended = refused && self.line().queue.unblock();
                log_mended(mended);
                self.give_up(file, error);
            }
            Outcome::LookAgain(after) => {
                file.requeue();
                self.line().queue.look_again(id, after, now);
            }
            Outcome::Lost(error) => {
                log::warn!(
                    "{}: {error}; looking whether it arrived before it is sent again",
                    file.name()
                );
                file.requeue();
                self.line().queue.lost(id, error, now);
            }
            Outcome::Retry(error) => {
                file.requeue();
                let text = format!("{} is not uploaded yet: {error}", file.name());
                let news = self.line().queue.retry(id, error, now);
                log::log!(level_of(news), "{text}");
            }
            Outcome::Pause(error, wait) => {
                file.requeue();
                let (pause, news) = self.line().queue.pause(id, error, wait, now);
                let seconds = pause.as_secs();
                log::log!(level_of(news), "uploads pause for {seconds} s: rate limit");
            }
            Outcome::Block(error) => {
                file.requeue();
                let news = self.line().queue.block(id, error.clone(), now);
                if news {
                    log::error!(
                        "uploads stop: {error}; tried again every {} s, files stay safe meanwhile",
                        queue::PROBE.as_secs()
                    );
                }
            }
        }
    }

    /// The file is an asset: the file system first, then the queue, then those who wait.
    pub(super) fn finish(&self, file: &Arc<StagedFile>, asset: &Asset, now: Instant) {
        log::info!("{} is in {}", file.name(), file.library());
        self.events.uploaded(file, asset);
        self.files().remove(&file.id());
        let mended = self.line().queue.succeeded(file.id(), now);
        log_mended(mended);
        for done in file.take_waiters() {
            done(Ok(()));
        }
    }

    /// The file left its turn unsent: changed, deleted, or kept here after all. Those who wait are
    /// told that there is nothing to wait for; if it was closed again meanwhile, it gets another.
    pub(super) fn let_go(self: &Arc<Self>, file: &Arc<StagedFile>) {
        let mut line = self.line();
        match file.settled_waiters() {
            Some(waiters) => {
                line.queue.leave(file.id());
                drop(line);
                for done in waiters {
                    done(Ok(()));
                }
            }
            None => {
                line.queue.leave(file.id());
                drop(line);
                self.enqueue(file);
            }
        }
    }

    pub(super) fn give_up(self: &Arc<Self>, file: &Arc<StagedFile>, error: UploadError) {
        let Some(waiters) = file.fail(&error) else {
            return self.let_go(file);
        };
        self.line().queue.leave(file.id());
        // Submitted again between the two lines above: that submission counts.
        if file.is_awaited() {
            self.enqueue(file);
        }
        log::error!("{} was not uploaded: {error}", file.name());
        self.events.failed(file, &error);
        for done in waiters {
            done(Err(error.clone()));
        }
    }

    pub(super) fn enqueue(self: &Arc<Self>, file: &Arc<StagedFile>) {
        self.line_up(file);
        let (shared, file) = (Arc::clone(self), Arc::clone(file));
        self.preparing.run(move || shared.prepare(&file));
    }

    pub(super) fn line_up(&self, file: &Arc<StagedFile>) {
        let waiting = match file.is_awaited() && !self.config.write_back {
            true => Waiting::Somebody,
            false => Waiting::Nobody,
        };
        let now = self.clock.monotonic();
        self.line().queue.submit(file.id(), key(file), waiting, now);
    }

    /// Makes a closed file safe, and ready in the queue.
    pub(super) fn prepare(self: &Arc<Self>, file: &Arc<StagedFile>) {
        let accept = |library, name: &str| self.config.content_type(library, name).map(drop);
        match file.prepare(is_local_name, accept) {
            Ok(Prepared::Queued) => {
                let known = self.line().queue.ready(file.id());
                if !known {
                    self.line_up(file);
                    self.line().queue.ready(file.id());
                }
                if self.config.write_back {
                    for done in file.take_waiters() {
                        done(Ok(()));
                    }
                }
            }
            Ok(Prepared::Sending) => {}
            Ok(Prepared::Local | Prepared::Over) => self.let_go(file),
            Err(error) => self.give_up(file, error),
        }
        self.wake.notify_all();
    }

    /// Tells those who wait for the file that there is nothing to wait for.
    pub(super) fn release(&self, file: &Arc<StagedFile>) {
        let waiters = file.take_waiters();
        self.preparing.run(move || {
            for done in waiters {
                done(Ok(()));
            }
        });
    }

    /// How far a file has come.
    pub(super) fn status(&self, file: &StagedFile) -> UploadStatus {
        let now = self.clock.monotonic();
        let outlook = self.line().queue.outlook(file.id(), now);
        let state = file.state();
        let given_up = match &state {
            UploadState::Failed { reason } => Some(reason.clone()),
            _ => None,
        };
        let last_error = outlook.last_error.map(|error| error.to_string());
        UploadStatus {
            library: file.library(),
            name: file.name(),
            size_bytes: file.size_bytes().unwrap_or(0),
            sent_bytes: file.sent_bytes(),
            failures: outlook.failures,
            next_try: outlook.next_try,
            error: given_up.or(last_error),
            state,
        }
    }

    /// Whether the service may have the file's bytes without our knowing.
    pub(super) fn may_have_arrived(&self, file: &StagedFile) -> Result<bool, UploadError> {
        let attempt = self.store.journal_entry(file.id())?.and_then(|e| e.attempt);
        Ok(attempt.is_some_and(|attempt| attempt.answer == Answer::Unknown))
    }
}

impl Line {
    /// Tells the queue whether bytes went out since the last time.
    pub(super) fn note_progress(&mut self, now: Instant) {
        let sent_bytes = self.sending.iter().map(|file| file.sent_bytes()).sum();
        if sent_bytes > self.sent_bytes {
            self.queue.progressed(now);
        }
        self.sent_bytes = sent_bytes;
    }
}

/// What is tried for ever is told once.
fn level_of(news: bool) -> log::Level {
    match news {
        true => log::Level::Warn,
        false => log::Level::Debug,
    }
}

fn log_mended(mended: bool) {
    if mended {
        log::info!("the service takes uploads again");
    }
}
