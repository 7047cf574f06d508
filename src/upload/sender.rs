//! One attempt to turn a queued file into an asset: steps 3 to 6 of the protocol.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::crash::{self, Step};
use super::error::UploadError;
use super::name::{extension, same_name};
use super::staging::{Sending, StagedFile};
use super::{Shared, UploadConfig};
use crate::provider::{Asset, AssetId, Library, ProviderError, Service, Upload};
use crate::store::{Answer, AssetMeta, Attempt, Digest, Order};

/// A listing may lag some seconds behind an upload: after an answer was lost it is looked through at
/// once, then after 1 s, 3 s and 6 s more, before the file counts as not arrived. A file that waits
/// in vain for 10 s is better than one that the service has twice.
const LOOK_DELAYS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
];

/// How long before the attempt an asset may have been made, by the service's clock, and still be
/// the attempt's. The two clocks differ by seconds where both are kept, but by up to 14 h where a
/// machine takes its local time for UTC. What is older by that is compared byte for byte.
const CLOCK_MARGIN: Duration = Duration::from_secs(15 * 3_600);

/// Read at a time when the digest is counted.
const HASH_BLOCK_BYTES: usize = 256 << 10;

/// What became of a turn.
pub(super) enum Outcome {
    /// It is this asset now.
    Uploaded(Asset),
    /// It was changed, renamed or deleted before it could be sent.
    Withdrawn,
    /// The answer was lost and the listing doesn't show the asset yet.
    LookAgain(Duration),
    /// The answer was lost.
    Lost(UploadError),
    /// Not done; the same may succeed later.
    Retry(UploadError),
    /// The account's rate limit.
    Pause(UploadError, Option<Duration>),
    /// The account is refused.
    Block(UploadError),
    /// The same won't succeed.
    Fail(UploadError),
}

/// What the listing says of an attempt whose answer was lost.
enum Seen {
    Arrived(Box<Asset>),
    NotYet,
    Never,
}

impl Shared {
    /// One turn of a file whose listing was looked through `looks` times since its last attempt.
    pub(super) fn attempt(&self, file: &Arc<StagedFile>, looks: u32) -> Outcome {
        let Some(job) = file.begin_sending() else {
            return Outcome::Withdrawn;
        };
        self.try_send(file, &job, looks)
            .unwrap_or_else(classify_before_sending)
    }

    fn try_send(
        &self,
        file: &Arc<StagedFile>,
        job: &Sending,
        looks: u32,
    ) -> Result<Outcome, UploadError> {
        let sha256 = file.digest(digest)?;
        crash::reached(Step::Hashed);
        let before = self
            .store
            .journal_entry(file.id())?
            .and_then(|entry| entry.attempt)
            .filter(|attempt| attempt.sha256 == sha256 && attempt.size_bytes == job.size_bytes);
        if let Some(attempt) = before.as_ref().filter(|a| a.answer == Answer::Unknown) {
            match self.look(job.library, attempt, looks)? {
                Seen::Arrived(asset) => {
                    log::info!(
                        "{} had arrived although its answer was lost; not sent again",
                        job.name
                    );
                    return self.confirm(file, job, *asset, sha256, Order::OfSubmission);
                }
                Seen::NotYet => return Ok(Outcome::LookAgain(LOOK_DELAYS[looks as usize])),
                Seen::Never => self.store.settle_attempt(file.id())?,
            }
        }
        if let Some(asset) = self.identical(job, &sha256)? {
            log::info!("{} is in {} already, byte for byte", job.name, job.library);
            return self.confirm(file, job, asset, sha256, Order::OfAsset);
        }
        let attempt = self.next_attempt(job, sha256, before)?;
        self.send(file, job, attempt)
    }

    fn send(
        &self,
        file: &Arc<StagedFile>,
        job: &Sending,
        attempt: Attempt,
    ) -> Result<Outcome, UploadError> {
        let content_type = self.config.content_type(job.library, &job.name)?;
        let body = file
            .reader()
            .map_err(|error| UploadError::local("read the staged file", &error))?;
        self.store.begin_attempt(file.id(), &attempt)?;
        crash::reached(Step::AttemptRecorded);
        let answer = self.provider.upload(Upload {
            library: job.library,
            name: &job.name,
            content_type,
            body,
            size_bytes: job.size_bytes,
            sent_bytes: Arc::clone(&job.sent_bytes),
        });
        crash::reached(Step::Answered);
        match answer {
            Ok(asset) => self.confirm(file, job, asset, attempt.sha256, Order::OfSubmission),
            Err(error @ (ProviderError::AnswerLost(_) | ProviderError::Malformed(_))) => {
                Ok(Outcome::Lost(error.into()))
            }
            Err(error) => {
                self.store.settle_attempt(file.id())?;
                Ok(classify_answer(error))
            }
        }
    }

    /// Whether an attempt whose answer was lost has arrived after all.
    fn look(&self, library: Library, attempt: &Attempt, looks: u32) -> Result<Seen, UploadError> {
        let known = self.known_before(library.service(), attempt)?;
        let earliest = attempt.began_at.checked_sub(CLOCK_MARGIN);
        let candidates = self.provider.list(library)?.into_iter().filter(|asset| {
            let name = asset.name.as_deref().unwrap_or("");
            same_name(&attempt.name, name) && !known.contains(&asset.id)
        });
        let (mut found, mut older) = (None::<Asset>, Vec::new());
        for asset in candidates {
            let asset = self.with_size(asset)?;
            let made = asset.created_at.or(asset.updated_at);
            let newer = found
                .as_ref()
                .is_none_or(|f| f.created_at <= asset.created_at);
            if asset.size_bytes != Some(attempt.size_bytes) {
                continue;
            }
            if made.is_some_and(|made| earliest.is_some_and(|earliest| made < earliest)) {
                older.push(asset);
            } else if newer {
                found = Some(asset);
            }
        }
        // By a clock that is days ahead of the service's each is older: then its bytes tell.
        let is_this = |asset: &Asset| self.events.digest_of(asset) == Some(attempt.sha256);
        let found = found.or_else(|| older.into_iter().find(is_this));
        Ok(match found {
            Some(asset) => Seen::Arrived(Box::new(asset)),
            None if (looks as usize) < LOOK_DELAYS.len() => Seen::NotYet,
            None => Seen::Never,
        })
    }

    /// The assets that can't be this attempt's: there before it, or uploaded from here by another.
    fn known_before(
        &self,
        service: Service,
        attempt: &Attempt,
    ) -> Result<HashSet<AssetId>, UploadError> {
        let ours = self.store.uploaded_from_here(service)?;
        Ok(attempt.known_ids.iter().cloned().chain(ours).collect())
    }

    fn with_size(&self, asset: Asset) -> Result<Asset, UploadError> {
        if asset.size_bytes.is_some() {
            return Ok(asset);
        }
        match self.provider.refresh(&asset) {
            Ok(fresh) => Ok(fresh),
            Err(ProviderError::NotFound) => Ok(asset),
            Err(error) => Err(error.into()),
        }
    }

    /// The asset that stands under this name now, if it has these very bytes. One that the service
    /// changed since it was uploaded may have others, or only be a favorite now: it is looked at. Where
    /// it can't be, a second copy is better than none.
    fn identical(&self, job: &Sending, sha256: &Digest) -> Result<Option<Asset>, UploadError> {
        let Some(asset) = self.events.newest_named(job.library, &job.name) else {
            return Ok(None);
        };
        let meta = self.store.asset_meta(job.library.service(), &asset.id)?;
        let was_same = |meta: &AssetMeta| {
            meta.sha256.as_ref() == Some(sha256) && meta.size_bytes == Some(job.size_bytes)
        };
        let Some(meta) = meta.filter(was_same) else {
            return Ok(None);
        };
        let untouched = meta.updated_at == asset.updated_at;
        // A service that encodes what it is given anew has another size for it from the first.
        let known_untouched = untouched && asset.updated_at.is_some();
        let has_size = asset.size_bytes.is_none_or(|size| size == job.size_bytes);
        let same = known_untouched
            || has_size && (untouched || self.events.digest_of(&asset).as_ref() == Some(sha256));
        Ok(same.then_some(asset))
    }

    /// The record of an attempt that begins now. Bytes that were sent before keep the time and the
    /// ids of their first attempt: if that one arrives late, it is still theirs.
    fn next_attempt(
        &self,
        job: &Sending,
        sha256: Digest,
        before: Option<Attempt>,
    ) -> Result<Attempt, UploadError> {
        if let Some(before) = before.filter(|before| before.name == job.name) {
            return Ok(before);
        }
        let known_ids = match self.events.ids_named(job.library, &job.name) {
            Some(ids) => ids,
            None => self
                .provider
                .list(job.library)?
                .into_iter()
                .filter(|asset| same_name(&job.name, asset.name.as_deref().unwrap_or("")))
                .map(|asset| asset.id)
                .collect(),
        };
        Ok(Attempt {
            began_at: self.clock.now(),
            name: job.name.clone(),
            size_bytes: job.size_bytes,
            sha256,
            known_ids,
            answer: Answer::Unknown,
        })
    }

    /// Calls the file an asset, in the store first, and keeps its bytes for reading.
    fn confirm(
        &self,
        file: &Arc<StagedFile>,
        job: &Sending,
        asset: Asset,
        sha256: Digest,
        order: Order,
    ) -> Result<Outcome, UploadError> {
        let keep = self.config.keep_bytes > 0;
        let replaced = file.confirm(&asset.id, || {
            let times = file.times()?;
            let meta = AssetMeta {
                display_name: Some(file.name()),
                service_name: asset.name.clone(),
                mtime: Some(times.mtime),
                atime: Some(times.atime),
                mode: Some(file.mode()),
                sha256: Some(sha256),
                size_bytes: Some(job.size_bytes),
                local_copy: keep.then_some(file.id()),
                updated_at: asset.updated_at,
                ..AssetMeta::new(job.library.service(), asset.id.clone(), file.ino())
            };
            let replaced = self.store.confirm(file.id(), &meta, order)?;
            crash::reached(Step::Confirmed);
            Ok(replaced)
        })?;
        self.keep_copy(file.id(), keep);
        crash::reached(Step::Kept);
        if let Some(copy) = replaced {
            self.delete_copy(copy);
        }
        self.evict_copies();
        Ok(Outcome::Uploaded(asset))
    }
}

impl UploadConfig {
    /// The content type for a file of this name, or the error that says that there is none.
    pub(super) fn content_type(
        &self,
        library: Library,
        name: &str,
    ) -> Result<&'static str, UploadError> {
        (self.content_types)(library, extension(name)).ok_or_else(|| UploadError::Type {
            library,
            name: name.to_string(),
        })
    }
}

/// What an error means that came before any byte was sent: listing, the store or the local disk.
fn classify_before_sending(error: UploadError) -> Outcome {
    match error {
        UploadError::Provider(ProviderError::RateLimited { retry_after }) => {
            Outcome::Pause(error, retry_after)
        }
        UploadError::Provider(ProviderError::Denied(_) | ProviderError::Quota(_)) => {
            Outcome::Block(error)
        }
        UploadError::Provider(_) | UploadError::Store(_) | UploadError::DiskFull => {
            Outcome::Retry(error)
        }
        UploadError::Busy
        | UploadError::Local(_)
        | UploadError::NotWhole(_)
        | UploadError::Type { .. }
        | UploadError::NotSent(_) => Outcome::Fail(error),
    }
}

/// What the service's answer to an upload means; every answer here says that nothing was done.
fn classify_answer(error: ProviderError) -> Outcome {
    match error {
        ProviderError::RateLimited { retry_after } => Outcome::Pause(error.into(), retry_after),
        ProviderError::Denied(_) | ProviderError::Quota(_) => Outcome::Block(error.into()),
        ProviderError::Unavailable { .. } => Outcome::Retry(error.into()),
        ProviderError::AnswerLost(_) | ProviderError::Malformed(_) => Outcome::Lost(error.into()),
        ProviderError::NotFound
        | ProviderError::Refused { .. }
        | ProviderError::LocalFile(_)
        | ProviderError::Unsupported => Outcome::Fail(error.into()),
    }
}

fn digest(mut file: File) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut block = vec![0; HASH_BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(n) => hasher.update(&block[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
