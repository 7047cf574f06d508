//! Everything that can go wrong on the way to a service, one thing at a time. `docs/RELIABILITY.md`
//! says what each module proves and shows the table that `matrix` makes.
//!
//! Most of it mounts within this process, without a kernel, so that hundreds of mounts can wait for
//! their deadlines side by side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
#[allow(dead_code)] // It serves other binaries too.
mod support;

mod bench;
mod cell;
mod cuts;
mod doors;
mod expected;
mod hostile;
mod kinds;
mod kth;
mod logged;
mod matrix;
mod mounted;
