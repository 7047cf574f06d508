//! The changes of state of a staged file: submitted, queued, sent, confirmed, given up, renamed,
//! deleted. Each is whole in the journal before it shows, and none runs while bytes are written.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Intent, StagedFile, State, SubmitDone, sync_directory};
use crate::provider::{AssetId, Library};
use crate::store::{Digest, Stage};
use crate::upload::crash;
use crate::upload::error::UploadError;

/// What [`StagedFile::prepare`] made of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upload) enum Prepared {
    Queued,
    /// Kept here, nothing to send.
    Local,
    /// Already an asset, removed, or changed again since: this submission is over.
    Over,
    /// Under way already.
    Sending,
}

/// A file whose bytes stand still while they are sent.
pub(in crate::upload) struct Sending {
    pub library: Library,
    pub name: String,
    pub size_bytes: u64,
    pub sent_bytes: Arc<AtomicU64>,
}

impl StagedFile {
    pub(in crate::upload) fn submitted(&self, done: Option<SubmitDone>) {
        let mut facts = self.facts();
        facts.intent = Intent::Keep;
        facts.waiters.extend(done);
    }

    /// Whether somebody waits for the outcome of a submission.
    pub(in crate::upload) fn is_awaited(&self) -> bool {
        !self.facts().waiters.is_empty()
    }

    /// Those who wait, if there is nothing left to wait for: the file stays here, is an asset or
    /// deleted, or is being changed, so that its next close has the outcome. `None` if it is to be
    /// sent.
    pub(in crate::upload) fn settled_waiters(&self) -> Option<Vec<SubmitDone>> {
        let mut facts = self.facts();
        let settled = facts.intent == Intent::Write
            || matches!(
                facts.state,
                State::Local | State::Uploaded(_) | State::Removed
            );
        settled.then(|| std::mem::take(&mut facts.waiters))
    }

    /// How many bytes of the attempt under way were handed to the network.
    pub(in crate::upload) fn sent_bytes(&self) -> u64 {
        match &self.facts().state {
            State::Sending { sent_bytes, .. } => sent_bytes.load(Ordering::Relaxed),
            _ => 0,
        }
    }

    pub(in crate::upload) fn take_waiters(&self) -> Vec<SubmitDone> {
        std::mem::take(&mut self.facts().waiters)
    }

    /// Whether the bytes are whole, as far as the writes' answers say.
    pub fn is_broken(&self) -> bool {
        self.facts().broken.is_some()
    }

    /// Puts the bytes, their name and their journal entry on the disk, in this order. `local`
    /// says of a name whether the file stays here, `accept` whether it can be sent.
    pub(in crate::upload) fn prepare(
        &self,
        local: impl Fn(&str) -> bool,
        accept: impl Fn(Library, &str) -> Result<(), UploadError>,
    ) -> Result<Prepared, UploadError> {
        let _still = self.hold_transition();
        let (library, name) = {
            let facts = self.facts();
            match facts.state {
                State::Removed | State::Uploaded(_) => return Ok(Prepared::Over),
                State::Sending { .. } => return Ok(Prepared::Sending),
                State::Open | State::Local | State::Queued | State::Failed(_) => {}
            }
            if facts.intent == Intent::Write {
                return Ok(Prepared::Over);
            }
            match &facts.broken {
                None => {}
                // The last thing that a program hears of the file should be what it can mend.
                Some(UploadError::DiskFull) => return Err(UploadError::DiskFull),
                Some(error) => return Err(UploadError::NotWhole(error.to_string())),
            }
            (facts.library, facts.name.clone())
        };
        let stays = self.size_bytes()? == 0 || local(&name);
        if !stays {
            accept(library, &name)?;
        }
        self.sync()?;
        sync_directory(&self.directories.staging).map_err(|error| {
            UploadError::at("sync the directory", &self.directories.staging, &error)
        })?;
        crash::reached(crash::Step::Synced);
        let (stage, state, prepared) = match stays {
            true => (Stage::Local, State::Local, Prepared::Local),
            false => (Stage::Queued, State::Queued, Prepared::Queued),
        };
        self.store.put_staged(&self.record(stage, None))?;
        crash::reached(crash::Step::Journaled);
        let mut facts = self.facts();
        facts.journaled = true;
        facts.state = state;
        Ok(prepared)
    }

    /// From here on the bytes stand still; `None` if the file isn't queued any more.
    pub(in crate::upload) fn begin_sending(&self) -> Option<Sending> {
        let _still = self.hold_transition();
        let size_bytes = self.size_bytes().ok()?;
        let mut facts = self.facts();
        if !matches!(facts.state, State::Queued) {
            return None;
        }
        let sent_bytes = Arc::new(AtomicU64::new(0));
        facts.state = State::Sending {
            size_bytes,
            sent_bytes: Arc::clone(&sent_bytes),
        };
        Some(Sending {
            library: facts.library,
            name: facts.name.clone(),
            size_bytes,
            sent_bytes,
        })
    }

    /// The attempt is over and another one will follow.
    pub(in crate::upload) fn requeue(&self) {
        let mut facts = self.facts();
        if matches!(facts.state, State::Sending { .. }) {
            facts.state = State::Queued;
        }
    }

    /// Marks the file as given up and returns those who wait, who are to be told; `None` if it was
    /// changed, deleted or uploaded meanwhile.
    pub(in crate::upload) fn fail(&self, error: &UploadError) -> Option<Vec<SubmitDone>> {
        let _still = self.hold_transition();
        let reason = error.to_string();
        let waiters = {
            let mut facts = self.facts();
            match facts.state {
                State::Queued | State::Sending { .. } => {}
                State::Open | State::Local | State::Failed(_) if facts.intent == Intent::Keep => {}
                _ => return None,
            }
            facts.state = State::Failed(reason.clone());
            std::mem::take(&mut facts.waiters)
        };
        // What isn't whole must not be sent after the next mount either.
        if !self.is_broken() {
            match self
                .store
                .put_staged(&self.record(Stage::Failed, Some(reason)))
            {
                Ok(()) => self.facts().journaled = true,
                Err(error) => log::warn!("cannot note a failed upload: {error}"),
            }
        }
        Some(waiters)
    }

    /// Runs `commit` while nothing about the file changes, then calls it an asset.
    pub(in crate::upload) fn confirm<T>(
        &self,
        id: &AssetId,
        commit: impl FnOnce() -> Result<T, UploadError>,
    ) -> Result<T, UploadError> {
        let _still = self.hold_transition();
        let value = commit()?;
        let mut facts = self.facts();
        facts.journaled = false;
        facts.state = State::Uploaded(id.clone());
        Ok(value)
    }

    /// The bytes' digest, counted once for as long as they don't change.
    pub(in crate::upload) fn digest(
        &self,
        count: impl FnOnce(File) -> io::Result<Digest>,
    ) -> Result<Digest, UploadError> {
        let changes = self.changes();
        if let Some((_, digest)) = self.facts().digest.filter(|(at, _)| *at == changes) {
            return Ok(digest);
        }
        let digest = self
            .reader()
            .and_then(count)
            .map_err(|error| UploadError::local("read the staged file", &error))?;
        self.facts().digest = Some((changes, digest));
        Ok(digest)
    }

    /// Gives the file another place. `stays` says that it is kept here under the new name.
    pub(in crate::upload) fn rename(
        &self,
        library: Library,
        name: &str,
        stays: bool,
    ) -> Result<(), UploadError> {
        let _still = self.hold_transition();
        let (state, mode, journaled) = {
            let facts = self.facts();
            (facts.state.clone(), facts.mode, facts.journaled)
        };
        if matches!(state, State::Sending { .. } | State::Uploaded(_)) {
            return Err(UploadError::Busy);
        }
        if journaled {
            self.store.rename_staged(self.id, library, name, mode)?;
        }
        {
            let mut facts = self.facts();
            facts.library = library;
            facts.name = name.to_string();
        }
        self.write_label();
        if stays && matches!(state, State::Queued | State::Failed(_)) && !self.is_broken() {
            self.journal(Stage::Local, None)?;
            self.facts().state = State::Local;
        }
        Ok(())
    }

    /// Deletes the file; open handles go on working on its bytes.
    pub(in crate::upload) fn remove(&self) -> Result<(), UploadError> {
        let _still = self.hold_transition();
        let state = self.facts().state.clone();
        match state {
            State::Removed => return Ok(()),
            State::Sending { .. } | State::Uploaded(_) => return Err(UploadError::Busy),
            _ => {}
        }
        self.store.forget_staged(self.id)?;
        let path = self.directories.staged(self.id);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(UploadError::at("delete", &path, &error));
        }
        let mut facts = self.facts();
        facts.journaled = false;
        facts.state = State::Removed;
        Ok(())
    }
}
