//! What must outlive the process: user-set attributes of assets, sizes learnt from asset hosts,
//! the Runflow ids seen so far, and the journal of staged uploads.
//!
//! One SQLite database, `<state_dir>/state.db`, because it survives `kill -9` and power loss
//! (write-ahead log, `synchronous=FULL`: a call that returned is on disk), because two mounts of
//! one account may share it (SQLite locks between processes), and because `sqlite3 state.db` shows
//! what it holds. The file is 0600 in a directory of 0700: it names the user's files.
//!
//! Promise: every method is one transaction; it is done whole or it is an error. Methods block on
//! the local disk, and up to [`BUSY_MS`] on another process, never on the network. A database that
//! SQLite calls damaged is moved aside with the time in its name, an error is logged that says
//! where, and a new one is begun. One made by a newer reelfs is left alone and refused.
//!
//! Lock order: `connection` is the only lock; it is taken last and nothing is called under it.

mod assets;
mod journal;
mod objects;

pub use assets::{AssetMeta, KeptCopy};
pub use journal::{Answer, Attempt, JournalEntry, Order, Stage, StagedRecord};
pub use objects::{SeenAsset, StoredObject};

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::provider::Service;

/// The SHA-256 of a file's bytes.
pub type Digest = [u8; 32];

/// How long a call waits for another process that writes, in milliseconds. Transactions here take
/// a few milliseconds, so this is a thousand of them.
const BUSY_MS: u64 = 5_000;

/// `MIGRATIONS[n]` takes a database from `user_version` n to n + 1.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE asset_meta (
        service TEXT NOT NULL,
        asset_id TEXT NOT NULL,
        ino INTEGER NOT NULL,
        display_name TEXT,
        service_name TEXT,
        mtime_ns INTEGER,
        atime_ns INTEGER,
        mode INTEGER,
        sha256 BLOB,
        size_bytes INTEGER,
        sequence INTEGER NOT NULL DEFAULT 0,
        local_copy TEXT,
        PRIMARY KEY (service, asset_id)
    ) WITHOUT ROWID;
    CREATE INDEX asset_meta_copy ON asset_meta (local_copy) WHERE local_copy IS NOT NULL;
    CREATE TABLE object_info (
        service TEXT NOT NULL,
        asset_id TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        etag TEXT,
        last_modified_ns INTEGER,
        content_type TEXT,
        PRIMARY KEY (service, asset_id)
    ) WITHOUT ROWID;
    CREATE TABLE runflow_seen (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        first_seen_ns INTEGER NOT NULL,
        details TEXT
    );
    CREATE TABLE uploads (
        id TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL,
        library TEXT NOT NULL,
        name TEXT NOT NULL,
        ino INTEGER NOT NULL,
        mode INTEGER NOT NULL,
        stage TEXT NOT NULL,
        reason TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        answer_unknown INTEGER NOT NULL DEFAULT 0,
        began_ns INTEGER,
        attempt_name TEXT,
        attempt_size_bytes INTEGER,
        attempt_sha256 BLOB,
        known_ids TEXT
    ) WITHOUT ROWID;
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO counter VALUES ('sequence', 0);
",
    "
    ALTER TABLE asset_meta ADD COLUMN updated_ns INTEGER;
",
];

/// Why something could not be remembered or recalled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file can't be made or moved.
    #[error("cannot use {path}: {reason}; check that it is yours and that the disk has room")]
    Directory { path: PathBuf, reason: String },
    /// The disk that holds the database is full.
    #[error("the local disk is full; free some space where {path} lies")]
    DiskFull { path: PathBuf },
    /// Made by a newer reelfs.
    #[error("{path} was made by a newer reelfs (format {found}, known {known}); update reelfs")]
    Newer {
        path: PathBuf,
        found: usize,
        known: usize,
    },
    /// A row of the journal of uploads.
    #[error("the entry of upload {id} in {path} cannot be read and is left alone: {reason}")]
    Entry {
        path: PathBuf,
        id: String,
        reason: String,
    },
    /// SQLite's own words.
    #[error("the state database {path} failed: {reason}")]
    Database { path: PathBuf, reason: String },
}

/// See the module's head.
pub struct Store {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl Store {
    /// Opens `<state_dir>/state.db`, making it and the directory where they are missing.
    pub fn open(state_dir: &Path) -> Result<Store, StoreError> {
        private_directory(state_dir).map_err(|e| directory_error(state_dir, &e))?;
        let path = state_dir.join("state.db");
        match open_connection(&path) {
            Ok(connection) => Ok(Self::with(connection, path)),
            Err(OpenError::Damaged(reason)) => {
                let aside = move_aside(&path).map_err(|e| directory_error(&path, &e))?;
                log::error!(
                    "the state database was damaged ({reason}); it is kept as {} and a new one \
                     was begun: times and modes set on uploaded files are forgotten",
                    aside.display()
                );
                let connection = open_connection(&path).map_err(|e| e.into_store(&path))?;
                Ok(Self::with(connection, path))
            }
            Err(error) => Err(error.into_store(&path)),
        }
    }

    fn with(connection: Connection, path: PathBuf) -> Self {
        Self {
            connection: Mutex::new(connection),
            path,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Runs `work` in one read or read-write transaction that is kept only if it succeeds.
    fn transact<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        // Immediate: a read that later writes could otherwise fail with BUSY without waiting.
        let attempt = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|tx| {
                let value = work(&tx)?;
                tx.commit()?;
                Ok(value)
            });
        attempt.map_err(|e| self.error(&e))
    }

    /// Runs `work`, which only reads.
    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        work(&self.lock()).map_err(|e| self.error(&e))
    }

    fn error(&self, error: &rusqlite::Error) -> StoreError {
        let path = self.path.clone();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::DiskFull { path },
            _ => StoreError::Database {
                path,
                reason: error.to_string(),
            },
        }
    }
}

/// Makes `path` a directory that only its owner can enter.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    // A sticky directory is a shared one such as /tmp, which is not ours to close.
    if mode & 0o077 != 0 && mode & 0o1000 == 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

enum OpenError {
    Damaged(String),
    Newer(usize),
    Sqlite(rusqlite::Error),
    File(io::Error),
}

impl OpenError {
    fn into_store(self, path: &Path) -> StoreError {
        let path = path.to_path_buf();
        match self {
            OpenError::Newer(found) => StoreError::Newer {
                path,
                found,
                known: MIGRATIONS.len(),
            },
            OpenError::File(error) => directory_error(&path, &error),
            OpenError::Sqlite(error) => StoreError::Database {
                path,
                reason: error.to_string(),
            },
            OpenError::Damaged(reason) => StoreError::Database { path, reason },
        }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                OpenError::Damaged(error.to_string())
            }
            _ => OpenError::Sqlite(error),
        }
    }
}

fn open_connection(path: &Path) -> Result<Connection, OpenError> {
    // Made by us, so that it is never readable by others; SQLite gives its log the same mode.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
        .map_err(OpenError::File)?;
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(OpenError::Damaged(verdict));
    }
    migrate(&mut connection)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        return Err(OpenError::Newer(version));
    }
    for step in &MIGRATIONS[version..] {
        tx.execute_batch(step)?;
    }
    let newest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    tx.pragma_update(None, "user_version", newest)?;
    tx.commit()?;
    Ok(())
}

/// Renames the database and its log, so that both can still be looked into together.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut aside = PathBuf::new();
    for n in 0..1_000 {
        aside = path.with_file_name(format!("state.db.damaged-{seconds}-{n}"));
        if !aside.exists() {
            break;
        }
    }
    fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        let (from, to) = (with_suffix(path, suffix), with_suffix(&aside, suffix));
        match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

fn directory_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Directory {
        path: path.to_path_buf(),
        reason: error.to_string(),
    }
}

fn service_from(name: &str) -> Option<Service> {
    Service::ALL.into_iter().find(|s| s.name() == name)
}

/// Nanoseconds since 1970, negative before it, held to what 64 bits can say (1677 to 2262).
fn to_ns(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
    }
}

fn from_ns(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

/// A size as SQLite holds it; sizes beyond 2^63 - 1 don't exist on any disk.
fn to_size(size_bytes: u64) -> i64 {
    i64::try_from(size_bytes).unwrap_or(i64::MAX)
}

fn from_size(size: i64) -> u64 {
    u64::try_from(size).unwrap_or(0)
}

#[cfg(test)]
mod tests;
