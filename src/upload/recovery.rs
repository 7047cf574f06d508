//! What a mount finds of the mounts before it: step 7 of the protocol, and the kept copies.
//!
//! Promise: a file that a living process holds is left alone. A file that was whole goes on where
//! it stood; one that was not is moved to `recovered/`, never shown, sent or deleted.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::Shared;
use super::error::UploadError;
use super::name::is_local_name;
use super::staging::{StagedFile, UploadState, label, own, sync_directory};
use crate::provider::AssetId;
use crate::store::{JournalEntry, Stage};

impl Shared {
    /// Takes over what no living process holds, in the order of submission.
    pub(super) fn recover(&self) -> Result<Vec<Arc<StagedFile>>, UploadError> {
        let mut adopted: Vec<(u64, Arc<StagedFile>)> = Vec::new();
        let mut seen = HashSet::new();
        for (id, path) in files_in(&self.directories.staging)? {
            seen.insert(id);
            match self.recover_path(id, &path) {
                Ok(file) => adopted.extend(file),
                // One bad file must not keep the others from their upload.
                Err(error) => log::error!("{} stays as it is: {error}", path.display()),
            }
        }
        self.forget_entries_without_files(&seen)?;
        self.delete_orphaned_copies()?;
        adopted.sort_by_key(|(sequence, _)| *sequence);
        Ok(adopted.into_iter().map(|(_, file)| file).collect())
    }

    fn recover_path(
        &self,
        id: Uuid,
        path: &Path,
    ) -> Result<Option<(u64, Arc<StagedFile>)>, UploadError> {
        match open_unowned(path)? {
            Some(file) => self.recover_file(id, path, file),
            None => Ok(None),
        }
    }

    fn recover_file(
        &self,
        id: Uuid,
        path: &Path,
        file: File,
    ) -> Result<Option<(u64, Arc<StagedFile>)>, UploadError> {
        let size_bytes = file
            .metadata()
            .map_err(|error| UploadError::at("look at", path, &error))?
            .len();
        let Some(entry) = self.store.journal_entry(id)? else {
            self.recover_unjournaled(id, path, &file, size_bytes)?;
            return Ok(None);
        };
        let name = entry.record.name.clone();
        if entry.record.stage == Stage::Open && !is_local_name(&name) {
            self.move_to_recovered(id, path, Some(&name))?;
            self.store.forget_staged(id)?;
            return Ok(None);
        }
        self.adopt(entry, file, size_bytes).map(Some)
    }

    fn adopt(
        &self,
        mut entry: JournalEntry,
        file: File,
        size_bytes: u64,
    ) -> Result<(u64, Arc<StagedFile>), UploadError> {
        let record = &mut entry.record;
        // A crash between a rename to a real name and the submission that follows it.
        let whole = record.stage == Stage::Local && size_bytes > 0 && !is_local_name(&record.name);
        if whole || record.stage == Stage::Failed {
            record.stage = Stage::Queued;
            record.reason = None;
            self.store.put_staged(record)?;
        }
        let staged = StagedFile::adopt(&self.directories, &self.store, file, entry.record);
        if staged.state() == UploadState::Queued {
            log::info!(
                "{} was not confirmed when the last mount ended; it is sent now",
                staged.name()
            );
        }
        Ok((entry.sequence, staged))
    }

    /// A file that the journal doesn't know was never closed whole, or is confirmed already.
    fn recover_unjournaled(
        &self,
        id: Uuid,
        path: &Path,
        file: &File,
        size_bytes: u64,
    ) -> Result<(), UploadError> {
        if self.store.has_copy(id)? {
            self.keep_copy(id, true);
            return Ok(());
        }
        if size_bytes > 0 {
            return self.move_to_recovered(id, path, label(file).as_deref());
        }
        fs::remove_file(path).map_err(|error| UploadError::at("delete", path, &error))
    }

    fn move_to_recovered(
        &self,
        id: Uuid,
        path: &Path,
        name: Option<&str>,
    ) -> Result<(), UploadError> {
        let name = name.unwrap_or("file").replace('/', "_");
        // The id and a dash take 37 of the 255 bytes that a name may have.
        let name: String = name
            .char_indices()
            .take_while(|(at, c)| at + c.len_utf8() <= 200)
            .map(|(_, c)| c)
            .collect();
        let to = self.directories.recovered.join(format!("{id}-{name}"));
        fs::rename(path, &to)
            .and_then(|()| sync_directory(&self.directories.recovered))
            .map_err(|error| UploadError::at("move aside", path, &error))?;
        log::warn!(
            "{name} was not closed when the last mount ended; it was not uploaded, and what was \
             written of it is kept as {}",
            to.display()
        );
        Ok(())
    }

    fn forget_entries_without_files(&self, seen: &HashSet<Uuid>) -> Result<(), UploadError> {
        for entry in self.store.journal()? {
            let id = entry.record.id;
            // Another mount may have made the file since the directory was read.
            if !seen.contains(&id) && !self.directories.staged(id).exists() {
                log::error!(
                    "the staged file of {} is gone from {}; it can't be uploaded",
                    entry.record.name,
                    self.directories.staging.display()
                );
                self.store.forget_staged(id)?;
            }
        }
        Ok(())
    }

    /// Deletes copies that no asset has: the service has their bytes.
    fn delete_orphaned_copies(&self) -> Result<(), UploadError> {
        for (id, _) in files_in(&self.directories.kept)? {
            if !self.store.has_copy(id)? {
                self.delete_copy(id);
            }
        }
        Ok(())
    }

    /// Moves a confirmed file to the kept copies, or deletes it.
    pub(super) fn keep_copy(&self, id: Uuid, keep: bool) {
        let path = self.directories.staged(id);
        let done = match keep {
            true => fs::rename(&path, self.directories.kept(id)),
            false => fs::remove_file(&path),
        };
        // On the disk too: a file that came back after a power cut would look unfinished.
        let done = done.and_then(|()| sync_directory(&self.directories.staging));
        if let Err(error) = done {
            log::warn!("cannot put away {}: {error}", path.display());
        }
    }

    pub(super) fn delete_copy(&self, id: Uuid) {
        let path = self.directories.kept(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("cannot delete {}: {error}", path.display());
            }
            _ => {}
        }
    }

    /// Deletes the oldest copies until the rest fit; the newest one always stays.
    pub(super) fn evict_copies(&self) {
        let copies = match self.store.kept_copies() {
            Ok(copies) => copies,
            Err(error) => return log::warn!("cannot look through the kept copies: {error}"),
        };
        let mut total_bytes: u64 = copies.iter().map(|copy| copy.size_bytes).sum();
        let oldest = copies.iter().take(copies.len().saturating_sub(1));
        for copy in oldest {
            if total_bytes <= self.config.keep_bytes {
                return;
            }
            if let Err(error) = self.store.forget_copy(copy.copy) {
                return log::warn!("cannot forget a kept copy: {error}");
            }
            self.delete_copy(copy.copy);
            total_bytes = total_bytes.saturating_sub(copy.size_bytes);
        }
    }

    /// The kept copy of an asset, open for reading, if there is one and it is whole.
    pub(super) fn local_copy(&self, id: &AssetId) -> Option<File> {
        let meta = self
            .store
            .asset_meta(self.provider.service(), id)
            .inspect_err(|error| log::warn!("cannot look for a kept copy: {error}"))
            .ok()??;
        let file = File::open(self.directories.kept(meta.local_copy?)).ok()?;
        (Some(file.metadata().ok()?.len()) == meta.size_bytes).then_some(file)
    }
}

/// The files of a directory whose names are ids.
fn files_in(directory: &Path) -> Result<Vec<(Uuid, PathBuf)>, UploadError> {
    let read = || -> io::Result<Vec<(Uuid, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|n| n.parse().ok());
            files.extend(id.map(|id| (id, entry.path())));
        }
        Ok(files)
    };
    read().map_err(|error| UploadError::at("read the directory", directory, &error))
}

/// Opens and locks a staged file, unless a living process holds it or has just put it away.
fn open_unowned(path: &Path) -> Result<Option<File>, UploadError> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nofollow)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(UploadError::at("open", path, &error)),
    };
    let owned = own(&file).map_err(|error| UploadError::at("lock", path, &error))?;
    Ok((owned && path.exists()).then_some(file))
}
