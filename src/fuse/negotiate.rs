//! What the kernel is asked for when it begins.

use fuser::{InitFlags, KernelConfig};

/// The kernel's largest request: 256 pages of 4 KiB. It bounds reads too.
const MAX_REQUEST_BYTES: u32 = 256 * 4096;
/// Requests for pages that the kernel lets wait at once before it makes readers queue, those of other
/// services included: 64 are enough for speed, but then 64 readers of a silent host would hold up all
/// others. What waits costs a parked reply, the kernel's pages, and memory that the reader bounds.
const MAX_BACKGROUND: u16 = 4096;

/// Capabilities worth having, each where the kernel knows it.
const CAPABILITIES: [InitFlags; 6] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// Takes what the kernel has of what is worth having.
pub(super) fn settle(config: &mut KernelConfig) {
    for capability in CAPABILITIES {
        // One at a time: a set with one bit that the kernel lacks is refused whole.
        if config.add_capabilities(capability).is_err() {
            log::debug!("the kernel lacks {capability:?}");
        }
    }
    if let Err(most) = config.set_max_write(MAX_REQUEST_BYTES) {
        let _ = config.set_max_write(most);
    }
    if let Err(most) = config.set_max_background(MAX_BACKGROUND) {
        let _ = config.set_max_background(most);
    }
}
