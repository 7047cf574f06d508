//! What was learnt of objects at their hosts, and the Runflow ids seen so far.

use std::collections::HashMap;
use std::time::SystemTime;

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, from_ns, from_size, to_ns, to_size};
use crate::provider::{AssetId, Service};

/// What an asset host said of an object, in the form in which it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    pub size_bytes: u64,
    /// As sent, with its quotes.
    pub etag: Option<String>,
    pub last_modified: Option<SystemTime>,
    pub content_type: Option<String>,
}

/// A Runflow asset that was looked up once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenAsset {
    pub id: AssetId,
    pub first_seen: SystemTime,
    /// What the caller wants to know of it at the next mount, as JSON.
    pub details: Option<String>,
}

/// Longer details than this are not remembered: they are a name, a type and a size.
const DETAILS_LIMIT_BYTES: usize = 64 << 10;

impl Store {
    /// What is known of those of `ids` that are known, read in one go.
    pub fn object_infos(
        &self,
        service: Service,
        ids: &[AssetId],
    ) -> Result<HashMap<AssetId, StoredObject>, StoreError> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT size_bytes, etag, last_modified_ns, content_type FROM object_info
                 WHERE service = ?1 AND asset_id = ?2",
            )?;
            let mut found = HashMap::new();
            for id in ids {
                let object = query
                    .query_row(params![service.name(), id.as_str()], |row| {
                        Ok(StoredObject {
                            size_bytes: from_size(row.get(0)?),
                            etag: row.get(1)?,
                            last_modified: row.get::<_, Option<i64>>(2)?.map(from_ns),
                            content_type: row.get(3)?,
                        })
                    })
                    .optional()?;
                found.extend(object.map(|object| (id.clone(), object)));
            }
            Ok(found)
        })
    }

    /// Remembers all of `objects`, or none, in one transaction.
    pub fn put_object_infos(
        &self,
        service: Service,
        objects: &[(AssetId, StoredObject)],
    ) -> Result<(), StoreError> {
        self.transact(|tx| {
            let mut insert = tx.prepare_cached(
                "INSERT OR REPLACE INTO object_info
                    (service, asset_id, size_bytes, etag, last_modified_ns, content_type)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for (id, object) in objects {
                insert.execute(params![
                    service.name(),
                    id.as_str(),
                    to_size(object.size_bytes),
                    object.etag,
                    object.last_modified.map(to_ns),
                    object.content_type,
                ])?;
            }
            Ok(())
        })
    }

    /// The Runflow assets seen so far, the first seen first.
    pub fn runflow_seen(&self) -> Result<Vec<SeenAsset>, StoreError> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT id, first_seen_ns, details FROM runflow_seen ORDER BY position",
            )?;
            let rows = query.query_map([], |row| {
                Ok(SeenAsset {
                    id: AssetId::new(row.get::<_, String>(0)?),
                    first_seen: from_ns(row.get(1)?),
                    details: row.get(2)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Remembers an asset, or what is known of it now; its place and first time stay.
    pub fn put_runflow_seen(&self, seen: &SeenAsset) -> Result<(), StoreError> {
        let details = seen
            .details
            .as_deref()
            .filter(|details| details.len() <= DETAILS_LIMIT_BYTES);
        self.transact(|tx| {
            tx.prepare_cached(
                "INSERT INTO runflow_seen (id, first_seen_ns, details) VALUES (?1, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET details = excluded.details",
            )?
            .execute(params![seen.id.as_str(), to_ns(seen.first_seen), details])
            .map(drop)
        })
    }

    /// Forgets an asset that the service no longer has.
    pub fn forget_runflow_seen(&self, id: &AssetId) -> Result<(), StoreError> {
        self.transact(|tx| {
            tx.prepare_cached("DELETE FROM runflow_seen WHERE id = ?1")?
                .execute([id.as_str()])
                .map(drop)
        })
    }
}
