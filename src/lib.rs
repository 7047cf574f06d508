//! reelfs: mounts AI studios' asset libraries as a file system.
//!
//! The modules are layers; imports point only downward (see `docs/ARCHITECTURE.md`):
//! entry (`cli`, `config`, `mount`) → protocol (`fuse`) → operations (`fs`) →
//! domain (`tree`, `reader`, `upload`, `store`) → `provider` → `http` → base
//! (`cache`, `range`, `clock`, `timestamp`, `workers`).
#![forbid(unsafe_code)]

pub mod clock;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod http;
pub mod provider;
pub mod range;
pub mod reader;
pub mod store;
pub mod timestamp;
pub mod upload;
pub mod workers;
