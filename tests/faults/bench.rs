//! A library mounted within this process: every operation is called as the kernel would and
//! waited for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use reelfs::clock::SystemClock;
use reelfs::emulator::{Content, Emulator};
use reelfs::fs::status::About;
use reelfs::fs::{
    Attr, Catalog, Closer, Done, FsError, LibraryFs, OpenMode, Options, UploadRelay, WrittenBy,
};
use reelfs::health::Health;
use reelfs::http::{ApiClient, ApiToken, Deadlines};
use reelfs::provider::Library;
use reelfs::provider::Provider;
use reelfs::provider::ltx::LtxProvider;
use reelfs::provider::runflow::RunflowProvider;
use reelfs::provider::runway::RunwayProvider;
use reelfs::reader::{AssetReader, ReaderConfig};
use reelfs::store::Store;
use reelfs::tree::inode;
use reelfs::upload::{UploadConfig, Uploads};
use tempfile::TempDir;

/// An operation that takes longer hangs; far beyond every deadline here, for a busy machine.
pub const HANG: Duration = Duration::from_secs(60);
/// As a mount has it.
const RENAME_WAIT: Duration = Duration::from_secs(5);
/// Who opens, writes and closes.
const WRITER: u32 = 100;

/// How a bench is mounted.
#[derive(Clone)]
pub struct Settings {
    pub useapi: String,
    pub runflow: String,
    pub deadlines: Deadlines,
    pub cache_bytes: u64,
    pub listing_ttl: Duration,
    pub allow_delete: bool,
}

impl Settings {
    pub fn of(emulator: &Emulator, total: Duration) -> Self {
        Self {
            useapi: emulator.useapi_url(),
            runflow: emulator.runflow_url(),
            deadlines: Deadlines {
                connect: Duration::from_secs(1),
                stall: Duration::from_secs(1),
                total,
            },
            cache_bytes: 8 << 20,
            listing_ttl: Duration::from_secs(30),
            allow_delete: false,
        }
    }
}

/// See the module's head.
pub struct Bench {
    pub fs: Arc<LibraryFs>,
    pub reader: Arc<AssetReader>,
    pub uploads: Arc<Uploads>,
}

impl Bench {
    /// Mounts; the emulator gives the tokens alone.
    pub fn mount(emulator: &Emulator, state: &TempDir, settings: &Settings) -> Self {
        let client = |url: &str, token: &str| {
            let token = ApiToken::new(token).unwrap();
            let url = url.parse().unwrap();
            ApiClient::new(url, token, settings.deadlines, Arc::new(SystemClock)).unwrap()
        };
        let useapi = client(&settings.useapi, &emulator.useapi_token());
        let runflow = client(&settings.runflow, &emulator.runflow_token());
        let runway: Arc<dyn Provider> = Arc::new(RunwayProvider::new(useapi.clone(), None));
        let providers: Vec<Arc<dyn Provider>> = vec![
            Arc::clone(&runway),
            Arc::new(LtxProvider::new(useapi, None)),
            Arc::new(RunflowProvider::new(runflow, None)),
        ];
        let store = Arc::new(Store::open(state.path()).unwrap());
        let clock = Arc::new(SystemClock);
        let ttl = settings.listing_ttl;
        let catalog = Catalog::new(providers, Arc::clone(&store), clock.clone(), ttl);
        let reader_config = ReaderConfig {
            cache_bytes: settings.cache_bytes,
            deadlines: settings.deadlines,
        };
        let urls = Arc::clone(&catalog);
        let reader = AssetReader::new(reader_config, urls, clock.clone()).unwrap();
        let reader = Arc::new(reader);
        let options = Options {
            read_only: false,
            allow_delete: settings.allow_delete,
            rename_wait: RENAME_WAIT,
            state_dir: state.path().to_path_buf(),
        };
        let about = About {
            mount_point: "/mnt".into(),
            accounts: BTreeMap::new(),
            health: Health::new(clock.clone(), str::to_string),
        };
        let fs = LibraryFs::new(catalog, Arc::clone(&reader), &*clock, options, about);
        let relay = Arc::new(UploadRelay::default());
        let config = UploadConfig {
            deadline: settings.deadlines.total,
            ..UploadConfig::new(state.path())
        };
        let uploads = Uploads::open(config, store, runway, relay.clone(), clock);
        let uploads = Arc::new(uploads.unwrap());
        fs.set_uploads(Arc::clone(&uploads));
        relay.connect(&fs);
        Self {
            fs,
            reader,
            uploads,
        }
    }

    pub fn lookup(&self, library: Library, name: &str) -> Result<Attr, FsError> {
        let parent = inode::of_library(library);
        let found = now(|done| self.fs.lookup(parent, OsStr::new(name), done))?;
        self.fs.remember(found.ino);
        Ok(found)
    }

    /// Names in the directory, without `.` and `..`.
    pub fn ls(&self, library: Library) -> Result<Vec<String>, FsError> {
        let fh = self.fs.opendir(inode::of_library(library))?;
        let listed = now(|done| self.fs.readdir(fh, true, done));
        self.fs.releasedir(fh);
        let names = listed?.iter().skip(2).map(|e| e.name.to_string()).collect();
        Ok(names)
    }

    pub fn open(&self, ino: u64) -> Result<u64, FsError> {
        Ok(now(|done| self.fs.open_to_read(ino, done))?.fh)
    }

    pub fn read(&self, fh: u64, offset: u64, len: u32) -> Result<Bytes, FsError> {
        now(|done| self.fs.read(fh, offset, len, done))
    }

    /// Opens, reads from `offset` and closes.
    pub fn read_part(&self, ino: u64, offset: u64, len: u32) -> Result<Bytes, FsError> {
        let fh = self.open(ino)?;
        let bytes = self.read(fh, offset, len);
        self.fs.release(fh);
        bytes
    }

    /// What `cp` does; the outcome of the close. A file that stands there is written over.
    pub fn copy_in(&self, library: Library, name: &str, bytes: &[u8]) -> Result<(), FsError> {
        let how = OpenMode {
            truncate: true,
            append: false,
            exclusive: false,
            opener: WRITER,
        };
        let opened = match self.lookup(library, name) {
            Ok(attr) => now(|done| self.fs.open_to_write(attr.ino, how, done))?,
            Err(FsError::NotFound) => {
                let parent = inode::of_library(library);
                let name = OsStr::new(name);
                let made = now(|done| self.fs.create(parent, name, 0o644, how, done));
                let (attr, opened) = made?;
                self.fs.remember(attr.ino);
                opened
            }
            Err(error) => return Err(error),
        };
        let by = WrittenBy::Descriptor;
        let written = now(|done| self.fs.write(opened.fh, 0, bytes, by, done));
        let closer = Closer {
            process: WRITER,
            killed: false,
        };
        let closed = now(|done| self.fs.flush(opened.fh, closer, done));
        self.fs.release(opened.fh);
        written?;
        closed
    }

    pub fn rename(&self, library: Library, from: &str, to: &str) -> Result<(), FsError> {
        let parent = inode::of_library(library);
        let (from, to) = ((parent, OsStr::new(from)), (parent, OsStr::new(to)));
        now(|done| self.fs.rename(from, to, true, done))
    }

    pub fn unlink(&self, library: Library, name: &str) -> Result<(), FsError> {
        let parent = inode::of_library(library);
        now(|done| self.fs.unlink(parent, OsStr::new(name), done))
    }

    /// Ends the mount and waits until nothing holds it any more.
    pub fn end(self) {
        // The next mount leaves alone what a thread of this one still holds.
        let staged: Vec<_> = self.uploads.staged().iter().map(Arc::downgrade).collect();
        let fs = Arc::downgrade(&self.fs);
        drop(self);
        crate::support::until("the mount is gone", || {
            fs.strong_count() == 0 && staged.iter().all(|file| file.strong_count() == 0)
        });
    }
}

/// Waits for an operation; panics where it hangs.
pub fn now<T: Send + 'static>(operation: impl FnOnce(Done<T>)) -> Result<T, FsError> {
    let (send, receive) = mpsc::channel();
    operation(Box::new(move |outcome| {
        let _ = send.send(outcome);
    }));
    receive.recv_timeout(HANG).expect("an answer, exactly one")
}

/// `ok`, `WRONG BYTES`, or the errno that a program would see.
pub fn outcome_of(read: &Result<Bytes, FsError>, content: &Content, offset: u64) -> String {
    match read {
        Ok(bytes) if !bytes.is_empty() && content.verify(offset, bytes) => "ok".to_string(),
        Ok(_) => "WRONG BYTES".to_string(),
        Err(error) => errno_name(error),
    }
}

/// The errno's name.
pub fn errno_name(error: &FsError) -> String {
    let number = i32::from(reelfs::fuse::errno::errno(error));
    let names = [
        (libc::ENOENT, "ENOENT"),
        (libc::EACCES, "EACCES"),
        (libc::EDQUOT, "EDQUOT"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ESTALE, "ESTALE"),
        (libc::EIO, "EIO"),
    ];
    let name = names.iter().find(|(known, _)| *known == number);
    name.map_or(format!("errno {number}"), |(_, name)| name.to_string())
}
