//! The real program, mounted over the emulated services and driven by real programs. One binary,
//! because each costs a link; `cargo test --test mounted reading::` runs one group.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/cases.rs"]
mod cases;
#[path = "../support/families.rs"]
mod families;
#[path = "../support/mod.rs"]
mod support;

mod calls;
mod conventions;
mod doctor;
mod hang;
mod life;
mod listing;
mod metadata;
mod model;
mod package;
mod reading;
mod refresh;
mod status;
mod thumbnails;
mod writing;
