//! reelfs: mounts AI studios' asset libraries as a file system.
//!
//! The modules are layers; imports point only downward (see `docs/ARCHITECTURE.md`):
//! entry (`cli`, `config`, `mount`) → protocol (`fuse`) → operations (`fs`) →
//! domain (`tree`, `reader`, `upload`, `thumbnail`, `store`) → `provider` → `http` → base
//! (`cache`, `range`, `clock`, `health`, `timestamp`, `workers`).
#![forbid(unsafe_code)]
// Where a test asserts, `unwrap` is an assertion too; the build without tests holds the product.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod doctor;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod fs;
pub mod fuse;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod generate;
pub mod health;
pub mod http;
pub mod logging;
pub mod mount;
pub mod provider;
pub mod range;
pub mod reader;
pub mod store;
pub mod thumbnail;
pub mod timestamp;
pub mod tree;
pub mod upload;
pub mod workers;
