//! The only place where a failure becomes an errno. `docs/SEMANTICS.md` lists the same table.

use fuser::Errno;

use crate::fs::FsError;

/// The errno for a failure. Exhaustive on purpose: a new kind must choose.
pub fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Denied(_) => Errno::EACCES,
        FsError::Quota(_) => Errno::EDQUOT,
        FsError::UnsupportedType(_) => Errno::EOPNOTSUPP,
        FsError::ReadOnly => Errno::EROFS,
        FsError::Stale => Errno::ESTALE,
        FsError::RateLimited { .. } => Errno::EAGAIN,
        FsError::Io(_) => Errno::EIO,
        FsError::NoSpace => Errno::ENOSPC,
        FsError::NotPermitted(_) => Errno::EPERM,
        FsError::Exists => Errno::EEXIST,
        FsError::Busy => Errno::EBUSY,
        FsError::Interrupted => Errno::EINTR,
        FsError::Invalid(_) => Errno::EINVAL,
        FsError::BadName => Errno::EILSEQ,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::CrossDevice => Errno::EXDEV,
        FsError::BadHandle => Errno::EBADF,
        FsError::NoAttribute => Errno::ENODATA,
        FsError::Range => Errno::ERANGE,
        FsError::NotSupported => Errno::EOPNOTSUPP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_may_rely_on_keeps_its_errno() {
        let text = String::new;
        for (error, expected) in [
            (FsError::NotFound, Errno::ENOENT),
            (FsError::Denied(text()), Errno::EACCES),
            (FsError::Quota(text()), Errno::EDQUOT),
            (FsError::UnsupportedType(text()), Errno::EOPNOTSUPP),
            (FsError::ReadOnly, Errno::EROFS),
            (FsError::Stale, Errno::ESTALE),
            (FsError::RateLimited { retry_after: None }, Errno::EAGAIN),
            (FsError::Io(text()), Errno::EIO),
            (FsError::NoSpace, Errno::ENOSPC),
            (FsError::NotPermitted(""), Errno::EPERM),
            (FsError::CrossDevice, Errno::EXDEV),
            (FsError::BadName, Errno::EILSEQ),
            (FsError::Busy, Errno::EBUSY),
        ] {
            assert_eq!(i32::from(errno(&error)), i32::from(expected), "{error:?}");
        }
    }
}
