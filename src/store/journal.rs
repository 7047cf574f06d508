//! The journal of staged files: what a crash must not forget. `upload.rs` has the protocol.

use std::error::Error;
use std::time::SystemTime;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use super::assets::{self, AssetMeta};
use super::{Digest, Store, StoreError, from_ns, from_size, to_ns, to_size};
use crate::provider::{AssetId, Library, Service};

/// How far a staged file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Being changed after it was whole once; its bytes can't be trusted.
    Open,
    /// Whole, and kept on this machine.
    Local,
    /// Whole, and to be uploaded.
    Queued,
    /// Whole, and its upload was given up; tried again at the next mount.
    Failed,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Open => "open",
            Stage::Local => "local",
            Stage::Queued => "queued",
            Stage::Failed => "failed",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Stage::Open, Stage::Local, Stage::Queued, Stage::Failed]
            .into_iter()
            .find(|stage| stage.name() == name)
    }
}

/// Whether the service may have an attempt's bytes without our knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The attempt began and no answer was recorded: look before sending again.
    Unknown,
    /// The service said that it did nothing, or its listing showed so.
    NotDone,
}

/// The record that is written before the first byte of an attempt goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When the first attempt with these bytes began, by this machine's clock.
    pub began_at: SystemTime,
    /// The name that was sent.
    pub name: String,
    pub size_bytes: u64,
    pub sha256: Digest,
    /// The assets of this name that the service had before.
    pub known_ids: Vec<AssetId>,
    pub answer: Answer,
}

/// What a caller sets of a journal entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedRecord {
    pub id: Uuid,
    pub library: Library,
    pub name: String,
    pub ino: u64,
    /// Permission bits.
    pub mode: u32,
    pub stage: Stage,
    /// Why it failed, in words.
    pub reason: Option<String>,
}

/// A journal entry as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    pub record: StagedRecord,
    /// Grows with every submission.
    pub sequence: u64,
    pub attempt: Option<Attempt>,
}

const COLUMNS: &str = "id, sequence, library, name, ino, mode, stage, reason, answer_unknown, \
                       began_ns, attempt_name, attempt_size_bytes, attempt_sha256, known_ids";

impl Store {
    /// Every entry that can be read, the first submitted first. Of the others an error is logged:
    /// they stay as they are, and so do their files.
    pub fn journal(&self) -> Result<Vec<JournalEntry>, StoreError> {
        let entries = self.read(|db| {
            let mut query = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM uploads ORDER BY sequence, id"
            ))?;
            let rows = query.query_map([], |row| Ok(entry_from(row)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let readable = entries.into_iter().filter_map(|entry| {
            let entry = entry.map_err(|unreadable| self.unreadable(unreadable));
            entry.inspect_err(|error| log::error!("{error}")).ok()
        });
        Ok(readable.collect())
    }

    /// The entry of one staged file, with its attempt. One that can't be read is an error.
    pub fn journal_entry(&self, id: Uuid) -> Result<Option<JournalEntry>, StoreError> {
        let entry = self.read(|db| {
            db.prepare_cached(&format!("SELECT {COLUMNS} FROM uploads WHERE id = ?1"))?
                .query_row([id.to_string()], |row| Ok(entry_from(row)))
                .optional()
        })?;
        entry
            .transpose()
            .map_err(|unreadable| self.unreadable(unreadable))
    }

    fn unreadable(&self, entry: Unreadable) -> StoreError {
        StoreError::Entry {
            path: self.path.clone(),
            id: entry.id,
            reason: entry.reason,
        }
    }

    /// Writes an entry or changes it; what is known of its attempts stays. An entry that becomes
    /// [`Stage::Queued`] goes to the end of the order.
    pub fn put_staged(&self, record: &StagedRecord) -> Result<(), StoreError> {
        self.transact(|tx| {
            let sequence = next_sequence(tx)?;
            tx.prepare_cached(
                "INSERT INTO uploads (id, sequence, library, name, ino, mode, stage, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (id) DO UPDATE SET
                    sequence = CASE WHEN excluded.stage = 'queued' AND stage <> 'queued'
                                    THEN excluded.sequence ELSE sequence END,
                    library = excluded.library, name = excluded.name, mode = excluded.mode,
                    stage = excluded.stage, reason = excluded.reason",
            )?
            .execute(params![
                record.id.to_string(),
                to_size(sequence),
                record.library.to_string(),
                record.name,
                record.ino.cast_signed(),
                record.mode,
                record.stage.name(),
                record.reason,
            ])
            .map(drop)
        })
    }

    /// Gives an entry another name or mode; does nothing where there is no such entry.
    pub fn rename_staged(
        &self,
        id: Uuid,
        library: Library,
        name: &str,
        mode: u32,
    ) -> Result<(), StoreError> {
        self.transact(|tx| {
            tx.prepare_cached(
                "UPDATE uploads SET library = ?2, name = ?3, mode = ?4 WHERE id = ?1",
            )?
            .execute(params![id.to_string(), library.to_string(), name, mode])
            .map(drop)
        })
    }

    /// Records an attempt, before its first byte goes out.
    pub fn begin_attempt(&self, id: Uuid, attempt: &Attempt) -> Result<(), StoreError> {
        let known: Vec<&str> = attempt.known_ids.iter().map(AssetId::as_str).collect();
        let known = serde_json::Value::from(known).to_string();
        self.transact(|tx| {
            let changed = tx
                .prepare_cached(
                    "UPDATE uploads SET attempts = attempts + 1, answer_unknown = 1,
                        began_ns = ?2, attempt_name = ?3, attempt_size_bytes = ?4,
                        attempt_sha256 = ?5, known_ids = ?6 WHERE id = ?1",
                )?
                .execute(params![
                    id.to_string(),
                    to_ns(attempt.began_at),
                    attempt.name,
                    to_size(attempt.size_bytes),
                    attempt.sha256,
                    known,
                ])?;
            match changed {
                0 => Err(rusqlite::Error::QueryReturnedNoRows),
                _ => Ok(()),
            }
        })
    }

    /// Records that the service did nothing with the last attempt.
    pub fn settle_attempt(&self, id: Uuid) -> Result<(), StoreError> {
        self.transact(|tx| {
            tx.prepare_cached("UPDATE uploads SET answer_unknown = 0 WHERE id = ?1")?
                .execute([id.to_string()])
                .map(drop)
        })
    }

    /// In one transaction: `meta` is known of the asset, and the entry is gone. `meta.sequence`
    /// is set from the entry, or from the asset where `order` says that it is not a new one.
    /// Returns the copy that the asset had before, whose file is now to be deleted.
    pub fn confirm(
        &self,
        id: Uuid,
        meta: &AssetMeta,
        order: Order,
    ) -> Result<Option<Uuid>, StoreError> {
        self.transact(|tx| {
            let before: Option<(i64, Option<String>)> = tx
                .prepare_cached(
                    "SELECT sequence, local_copy FROM asset_meta
                     WHERE service = ?1 AND asset_id = ?2",
                )?
                .query_row(params![meta.service.name(), meta.id.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let submitted: Option<i64> = tx
                .prepare_cached("SELECT sequence FROM uploads WHERE id = ?1")?
                .query_row([id.to_string()], |row| row.get(0))
                .optional()?;
            let mut meta = meta.clone();
            meta.sequence = match (order, &before) {
                (Order::OfAsset, Some((sequence, _))) => from_size(*sequence),
                _ => from_size(submitted.unwrap_or(0)),
            };
            assets::put(tx, &meta)?;
            delete(tx, id)?;
            Ok(before
                .and_then(|(_, copy)| copy)
                .and_then(|copy| Uuid::parse_str(&copy).ok())
                .filter(|copy| Some(*copy) != meta.local_copy))
        })
    }

    /// Removes an entry.
    pub fn forget_staged(&self, id: Uuid) -> Result<(), StoreError> {
        self.transact(|tx| delete(tx, id))
    }
}

/// Where a confirmed asset stands in the order of local uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Where this submission stands: the asset is new.
    OfSubmission,
    /// Where the asset stood before: its bytes were there already.
    OfAsset,
}

fn delete(tx: &Transaction<'_>, id: Uuid) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM uploads WHERE id = ?1")?
        .execute([id.to_string()])
        .map(drop)
}

fn next_sequence(tx: &Transaction<'_>) -> rusqlite::Result<u64> {
    tx.prepare_cached(
        "UPDATE counter SET value = value + 1 WHERE name = 'sequence' RETURNING value",
    )?
    .query_row([], |row| row.get(0))
    .map(from_size)
}

fn library_from(path: &str) -> Option<Library> {
    Service::ALL
        .into_iter()
        .flat_map(|service| service.libraries())
        .copied()
        .find(|library| library.to_string() == path)
}

/// A row that is no entry: damaged, or of a library or stage that this version doesn't know.
struct Unreadable {
    /// As far as it can be told.
    id: String,
    reason: String,
}

fn entry_from(row: &Row<'_>) -> Result<JournalEntry, Unreadable> {
    read_entry(row).map_err(|error| Unreadable {
        id: row.get(0).unwrap_or_else(|_| "?".to_string()),
        reason: error.to_string(),
    })
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<JournalEntry> {
    let id = Uuid::parse_str(&row.get::<_, String>(0)?);
    let id = id.map_err(|error| meaningless(0, error))?;
    let library = row.get::<_, String>(2)?;
    let library =
        library_from(&library).ok_or_else(|| meaningless(2, format!("library {library:?}")))?;
    let stage = row.get::<_, String>(6)?;
    let stage =
        Stage::from_name(&stage).ok_or_else(|| meaningless(6, format!("stage {stage:?}")))?;
    Ok(JournalEntry {
        record: StagedRecord {
            id,
            library,
            name: row.get(3)?,
            ino: row.get::<_, i64>(4)?.cast_unsigned(),
            mode: row.get(5)?,
            stage,
            reason: row.get(7)?,
        },
        sequence: from_size(row.get(1)?),
        attempt: attempt_from(row)?,
    })
}

/// Of the right type, but nothing that this program writes.
fn meaningless(column: usize, why: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.into())
}

fn attempt_from(row: &Row<'_>) -> rusqlite::Result<Option<Attempt>> {
    let is_unknown = row.get::<_, bool>(8)?;
    let began_ns = match row.get::<_, Option<i64>>(9)? {
        Some(began_ns) => began_ns,
        None if is_unknown => return Err(meaningless(9, "no time of the attempt")),
        None => return Ok(None),
    };
    // Without them an older asset could be taken for the upload: none is not the same as unreadable.
    let known: Vec<String> =
        serde_json::from_str(&row.get::<_, String>(13)?).map_err(|error| meaningless(13, error))?;
    Ok(Some(Attempt {
        began_at: from_ns(began_ns),
        name: row.get(10)?,
        size_bytes: from_size(row.get(11)?),
        sha256: row.get(12)?,
        known_ids: known.into_iter().map(AssetId::new).collect(),
        answer: match is_unknown {
            true => Answer::Unknown,
            false => Answer::NotDone,
        },
    }))
}
