//! Bytes that this machine has: a staged file, or the copy that is kept of an uploaded one.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::FsError;
use crate::upload::StagedFile;

#[derive(Clone)]
pub(super) enum LocalBytes {
    Staged(Arc<StagedFile>),
    Kept(Arc<File>),
    /// Made when it was opened.
    Made(Bytes),
}

impl LocalBytes {
    pub(super) fn size_bytes(&self) -> Result<u64, FsError> {
        match self {
            LocalBytes::Staged(file) => Ok(file.size_bytes()?),
            LocalBytes::Kept(file) => Ok(file.metadata()?.len()),
            LocalBytes::Made(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Reads `len` bytes at `offset`, fewer only at the end.
    pub(super) fn read(&self, offset: u64, len: u32) -> Result<Bytes, FsError> {
        if let LocalBytes::Made(bytes) = self {
            let from = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
            let to = bytes.len().min(from.saturating_add(len as usize));
            return Ok(bytes.slice(from..to));
        }
        let left = self.size_bytes()?.saturating_sub(offset);
        let mut buffer = BytesMut::zeroed(left.min(len.into()) as usize);
        let filled = match self {
            LocalBytes::Staged(file) => file.read_at(&mut buffer, offset)?,
            LocalBytes::Kept(file) => read_whole(file, &mut buffer, offset)?,
            LocalBytes::Made(_) => 0,
        };
        buffer.truncate(filled);
        Ok(buffer.freeze())
    }
}

fn read_whole(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, FsError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}
