//! The file system without a kernel: the real catalog, reader, uploads, store and providers over
//! the emulator. `world` is the vocabulary; each other file holds the behaviours of one subject.

#[path = "../../tests/support/cases.rs"]
mod cases;
#[path = "../../tests/support/families.rs"]
mod families;

mod ahead;
mod changing;
mod listings;
mod memory;
mod model;
mod reading;
mod sizes;
mod world;
mod writing;
