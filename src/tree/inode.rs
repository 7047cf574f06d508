//! Inode numbers: fixed ones for directories, hashes of the identity for files, so that a remount
//! gives the same file the same number. Pure.

use sha2::{Digest, Sha256};

use crate::provider::{AssetId, Library, Service};

/// FUSE's root.
pub const ROOT: u64 = 1;
/// The control directory.
pub const CONTROL: u64 = 5;
/// Directories and what else is fixed have numbers below this, files from here on.
const FIRST_FILE: u64 = 1 << 10;

/// What a number below [`FIRST_FILE`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    Root,
    /// Runflow's is [`Fixed::Library`].
    Service(Service),
    Library(Library),
    /// The mount's own, beside the services'.
    Control,
    ControlFile(ControlFile),
}

/// A file of the control directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlFile {
    Status,
    Metrics,
}

impl ControlFile {
    /// Every one, in the directory's order.
    pub const ALL: [ControlFile; 2] = [ControlFile::Metrics, ControlFile::Status];
}

/// What has this number; `None` for a listed file's, and for one that nothing has.
pub fn directory(ino: u64) -> Option<Fixed> {
    let fixed = match ino {
        ROOT => Fixed::Root,
        2 => Fixed::Service(Service::Runway),
        3 => Fixed::Service(Service::Ltx),
        4 => Fixed::Library(Library::Runflow),
        CONTROL => Fixed::Control,
        6 => Fixed::ControlFile(ControlFile::Status),
        7 => Fixed::ControlFile(ControlFile::Metrics),
        16 => Fixed::Library(Library::RunwayVideo),
        17 => Fixed::Library(Library::RunwayImage),
        18 => Fixed::Library(Library::RunwayAudio),
        32 => Fixed::Library(Library::LtxImages),
        33 => Fixed::Library(Library::LtxVideos),
        34 => Fixed::Library(Library::LtxAudio),
        35 => Fixed::Library(Library::LtxOther),
        _ => return None,
    };
    Some(fixed)
}

/// A service's directory.
pub fn of_service(service: Service) -> u64 {
    match service {
        Service::Runway => 2,
        Service::Ltx => 3,
        Service::Runflow => of_library(Library::Runflow),
    }
}

/// A library's directory. Runflow's library is its service's directory.
pub fn of_library(library: Library) -> u64 {
    match library {
        Library::Runflow => 4,
        Library::RunwayVideo => 16,
        Library::RunwayImage => 17,
        Library::RunwayAudio => 18,
        Library::LtxImages => 32,
        Library::LtxVideos => 33,
        Library::LtxAudio => 34,
        Library::LtxOther => 35,
    }
}

/// A file of the control directory.
pub fn of_control_file(file: ControlFile) -> u64 {
    match file {
        ControlFile::Status => 6,
        ControlFile::Metrics => 7,
    }
}

/// The number an asset asks for. Never a directory's; below 2^63, which every program can hold.
pub fn of_asset(service: Service, id: &AssetId) -> u64 {
    of_text(&format!("{service}/{id}"))
}

/// The number a file that isn't an asset yet asks for, from anything unique to it.
pub fn of_text(identity: &str) -> u64 {
    let digest = Sha256::digest(identity.as_bytes());
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest[..8]);
    (u64::from_be_bytes(first) >> 1).max(FIRST_FILE)
}

/// The number after `ino`, for the case that two identities ask for one.
pub fn next(ino: u64) -> u64 {
    if ino >= i64::MAX as u64 {
        FIRST_FILE
    } else {
        ino + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_one_number_for_ever() {
        let number = of_asset(Service::Runway, &AssetId::new("a"));
        assert_eq!(number, 2653516635413118674, "numbers survive releases");
        assert_eq!(number, of_asset(Service::Runway, &AssetId::new("a")));
        assert_ne!(number, of_asset(Service::Ltx, &AssetId::new("a")));
        assert!((FIRST_FILE..1 << 63).contains(&number));
    }

    #[test]
    fn directories_have_numbers_of_their_own() {
        for service in Service::ALL {
            for library in service.libraries() {
                let number = of_library(*library);
                assert_eq!(directory(number), Some(Fixed::Library(*library)));
            }
        }
        for service in [Service::Runway, Service::Ltx] {
            let number = of_service(service);
            assert_eq!(directory(number), Some(Fixed::Service(service)));
        }
        assert_eq!(directory(FIRST_FILE), None);
        let mut all = vec![ROOT, of_service(Service::Runway), of_service(Service::Ltx)];
        all.push(CONTROL);
        for file in ControlFile::ALL {
            let number = of_control_file(file);
            assert_eq!(directory(number), Some(Fixed::ControlFile(file)));
            all.push(number);
        }
        for service in Service::ALL {
            all.extend(service.libraries().iter().map(|l| of_library(*l)));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|ino| *ino < FIRST_FILE));
    }
}
