//! What is known locally of assets: attributes that the user set, and copies kept for reading.

use std::time::SystemTime;

use rusqlite::types::FromSql;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use super::{Digest, Store, StoreError, from_ns, from_size, service_from, to_ns, to_size};
use crate::provider::{AssetId, Service};

/// What this machine knows of an asset beyond what the service says. Every field but the key and
/// the inode may be unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetMeta {
    pub service: Service,
    pub id: AssetId,
    /// The inode number under which the file was made here.
    pub ino: u64,
    /// The name that the user gave it.
    pub display_name: Option<String>,
    /// The name that the service had for it when it was uploaded.
    pub service_name: Option<String>,
    pub mtime: Option<SystemTime>,
    pub atime: Option<SystemTime>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Of the bytes that were uploaded.
    pub sha256: Option<Digest>,
    pub size_bytes: Option<u64>,
    /// The order of local uploads: the greater is the later. 0 for assets not uploaded from here.
    pub sequence: u64,
    /// The copy kept in `<state_dir>/kept`, by its id.
    pub local_copy: Option<Uuid>,
    /// When the service last changed the asset, by its answer to the upload. Where it says another
    /// time later, the bytes may no longer be those that were uploaded.
    pub updated_at: Option<SystemTime>,
}

impl AssetMeta {
    /// Nothing known but the inode number.
    pub fn new(service: Service, id: AssetId, ino: u64) -> Self {
        Self {
            service,
            id,
            ino,
            display_name: None,
            service_name: None,
            mtime: None,
            atime: None,
            mode: None,
            sha256: None,
            size_bytes: None,
            sequence: 0,
            local_copy: None,
            updated_at: None,
        }
    }
}

/// A copy of an uploaded file that is kept for reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCopy {
    pub service: Service,
    pub id: AssetId,
    pub copy: Uuid,
    pub size_bytes: u64,
}

const COLUMNS: &str = "service, asset_id, ino, display_name, service_name, mtime_ns, atime_ns, \
                       mode, sha256, size_bytes, sequence, local_copy, updated_ns";

impl Store {
    /// What is kept of one asset.
    pub fn asset_meta(
        &self,
        service: Service,
        id: &AssetId,
    ) -> Result<Option<AssetMeta>, StoreError> {
        self.read(|db| {
            db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM asset_meta WHERE service = ?1 AND asset_id = ?2"
            ))?
            .query_row(params![service.name(), id.as_str()], meta_from)
            .optional()
        })
        .map(Option::flatten)
    }

    /// Everything known of the service's assets, in no order.
    pub fn all_asset_meta(&self, service: Service) -> Result<Vec<AssetMeta>, StoreError> {
        self.read(|db| {
            let mut query = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM asset_meta WHERE service = ?1"
            ))?;
            let rows = query.query_map(params![service.name()], meta_from)?;
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// The service's assets whose bytes came from here.
    pub fn uploaded_from_here(&self, service: Service) -> Result<Vec<AssetId>, StoreError> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT asset_id FROM asset_meta WHERE service = ?1 AND sha256 IS NOT NULL",
            )?;
            let ids = query.query_map(params![service.name()], |row| {
                row.get::<_, String>(0).map(AssetId::new)
            })?;
            ids.collect()
        })
    }

    /// Replaces everything known of the asset.
    pub fn put_asset_meta(&self, meta: &AssetMeta) -> Result<(), StoreError> {
        self.transact(|tx| put(tx, meta))
    }

    /// Sets the given attributes and leaves the others; `ino` is used only where the asset was
    /// not known yet.
    pub fn set_asset_attributes(
        &self,
        service: Service,
        id: &AssetId,
        ino: u64,
        mtime: Option<SystemTime>,
        atime: Option<SystemTime>,
        mode: Option<u32>,
    ) -> Result<(), StoreError> {
        self.transact(|tx| {
            tx.prepare_cached(
                "INSERT INTO asset_meta (service, asset_id, ino, mtime_ns, atime_ns, mode)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (service, asset_id) DO UPDATE SET
                    mtime_ns = COALESCE(excluded.mtime_ns, mtime_ns),
                    atime_ns = COALESCE(excluded.atime_ns, atime_ns),
                    mode = COALESCE(excluded.mode, mode)",
            )?
            .execute(params![
                service.name(),
                id.as_str(),
                ino.cast_signed(),
                mtime.map(to_ns),
                atime.map(to_ns),
                mode,
            ])
            .map(drop)
        })
    }

    /// Forgets an asset that the service no longer has. A copy of it that was kept is found and
    /// deleted at the next mount.
    pub fn forget_asset_meta(&self, service: Service, id: &AssetId) -> Result<(), StoreError> {
        self.transact(|tx| {
            tx.prepare_cached("DELETE FROM asset_meta WHERE service = ?1 AND asset_id = ?2")?
                .execute(params![service.name(), id.as_str()])
                .map(drop)
        })
    }

    /// The copies kept for reading, the oldest upload first.
    pub fn kept_copies(&self) -> Result<Vec<KeptCopy>, StoreError> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT service, asset_id, local_copy, COALESCE(size_bytes, 0) FROM asset_meta
                 WHERE local_copy IS NOT NULL ORDER BY sequence",
            )?;
            let rows = query.query_map([], |row| {
                let service = service_from(&row.get::<_, String>(0)?);
                let id: String = row.get(1)?;
                let copy = known::<String>(row, 2).and_then(|text| Uuid::parse_str(&text).ok());
                let size_bytes = known(row, 3).map_or(0, from_size);
                Ok(service.zip(copy).map(|(service, copy)| KeptCopy {
                    service,
                    id: AssetId::new(id),
                    copy,
                    size_bytes,
                }))
            })?;
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// Whether an asset has this copy.
    pub fn has_copy(&self, copy: Uuid) -> Result<bool, StoreError> {
        self.read(|db| {
            db.prepare_cached("SELECT EXISTS (SELECT 1 FROM asset_meta WHERE local_copy = ?1)")?
                .query_row([copy.to_string()], |row| row.get(0))
        })
    }

    /// Forgets a copy, before its file is deleted.
    pub fn forget_copy(&self, copy: Uuid) -> Result<(), StoreError> {
        self.transact(|tx| {
            tx.prepare_cached("UPDATE asset_meta SET local_copy = NULL WHERE local_copy = ?1")?
                .execute([copy.to_string()])
                .map(drop)
        })
    }
}

pub(super) fn put(tx: &Transaction<'_>, meta: &AssetMeta) -> rusqlite::Result<()> {
    tx.prepare_cached(&format!(
        "INSERT OR REPLACE INTO asset_meta ({COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    ))?
    .execute(params![
        meta.service.name(),
        meta.id.as_str(),
        meta.ino.cast_signed(),
        meta.display_name,
        meta.service_name,
        meta.mtime.map(to_ns),
        meta.atime.map(to_ns),
        meta.mode,
        meta.sha256,
        meta.size_bytes.map(to_size),
        to_size(meta.sequence),
        meta.local_copy.map(|copy| copy.to_string()),
        meta.updated_at.map(to_ns),
    ])
    .map(drop)
}

/// `None` for a row of a service that this version doesn't know.
fn meta_from(row: &Row<'_>) -> rusqlite::Result<Option<AssetMeta>> {
    let Some(service) = service_from(&row.get::<_, String>(0)?) else {
        return Ok(None);
    };
    Ok(Some(AssetMeta {
        service,
        id: AssetId::new(row.get::<_, String>(1)?),
        ino: row.get::<_, i64>(2)?.cast_unsigned(),
        display_name: known(row, 3),
        service_name: known(row, 4),
        mtime: known(row, 5).map(from_ns),
        atime: known(row, 6).map(from_ns),
        mode: known(row, 7),
        sha256: known(row, 8),
        size_bytes: known(row, 9).map(from_size),
        sequence: known(row, 10).map_or(0, from_size),
        local_copy: known::<String>(row, 11).and_then(|text| Uuid::parse_str(&text).ok()),
        updated_at: known(row, 12).map(from_ns),
    }))
}

/// A field, if it is there and can be read: one that can't must not cost what else is known.
fn known<T: FromSql>(row: &Row<'_>, column: usize) -> Option<T> {
    row.get(column).unwrap_or_else(|error| {
        log::warn!("a field of what is known of an asset is left out: {error}");
        None
    })
}
