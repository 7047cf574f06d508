//! The wiring: where a [`Config`] becomes a file system. Alone in knowing all layers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::Stack;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Purpose};
use crate::fs::status::About;
use crate::fs::{Catalog, LibraryFs, Options, UploadRelay};
use crate::fuse::parking::ParkingLot;
use crate::fuse::{FuseAdapter, KernelNotifier, Owner};
use crate::health::Health;
use crate::http::{ApiClient, ApiToken, AssetClient, Deadlines, PreviewClient};
use crate::logging;
use crate::provider::ltx::LtxProvider;
use crate::provider::observed::observe;
use crate::provider::runflow::RunflowProvider;
use crate::provider::runway::RunwayProvider;
use crate::provider::{Provider, Service};
use crate::reader::{AssetReader, ReaderConfig};
use crate::store::Store;
use crate::thumbnail::Thumbnails;
use crate::upload::{UploadConfig, UploadState, UploadStatus, Uploads};

/// How long a rename that starts an upload waits for it. The kernel holds the directory meanwhile:
/// long enough for pictures and short clips to report their errors to `mv` and rsync, short
/// enough that an `ls` behind a long one is a pause and not a hang.
const RENAME_WAIT: Duration = Duration::from_secs(5);

/// What [`build_stack`] makes.
pub struct LibraryStack {
    fs: Arc<LibraryFs>,
    lot: Arc<ParkingLot>,
    uploads: Option<Arc<Uploads>>,
    services: Vec<Service>,
    owner: Owner,
    #[cfg(feature = "emulator")]
    _demo: Option<demo::Demo>,
}

/// Builds everything below the mount: transport, providers, stores, file system. Opens what is on
/// disk; asks no service.
pub fn build_stack(config: &Config, mount_point: &Path) -> anyhow::Result<LibraryStack> {
    match config.purpose {
        Purpose::Accounts => assemble(config, mount_point, &config.state_dir_for_mount()),
        #[cfg(feature = "emulator")]
        Purpose::Demo => demo::build(config, mount_point),
        #[cfg(not(feature = "emulator"))]
        Purpose::Demo => anyhow::bail!("this reelfs was built without the demo"),
    }
}

fn assemble(config: &Config, mount_point: &Path, state_dir: &Path) -> anyhow::Result<LibraryStack> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let deadlines = deadlines(config);
    let about = about(config, mount_point, &clock);
    let providers = providers(config, deadlines, &clock)?;
    let observed = |provider| observe(provider, Arc::clone(&about.health));
    let providers: Vec<Arc<dyn Provider>> = providers.into_iter().map(observed).collect();
    let store = Store::open(state_dir)?;
    let store = Arc::new(store);
    let catalog = Catalog::new(
        providers.clone(),
        Arc::clone(&store),
        Arc::clone(&clock),
        config.listing_ttl,
    );
    let reader = AssetReader::new(
        ReaderConfig {
            cache_bytes: config.cache_size_bytes,
            deadlines,
        },
        Arc::clone(&catalog) as Arc<_>,
        Arc::clone(&clock),
    )
    .context("cannot start the reader")?;
    let options = Options {
        read_only: config.read_only,
        allow_delete: config.allow_delete,
        rename_wait: match config.write_back {
            true => Duration::ZERO,
            false => RENAME_WAIT,
        },
        state_dir: state_dir.to_path_buf(),
    };
    let fs = LibraryFs::new(catalog, Arc::new(reader), &*clock, options, about);
    if let Some(folder) = &config.thumbnail_dir {
        set_thumbnails(&fs, folder, deadlines, mount_point);
    }
    let runway = providers.iter().find(|p| p.service() == Service::Runway);
    let uploads = match runway {
        Some(runway) if !config.read_only => {
            Some(uploads(config, state_dir, runway, store, clock, &fs)?)
        }
        _ => None,
    };
    Ok(LibraryStack {
        fs,
        lot: ParkingLot::start().context("cannot start a thread")?,
        uploads,
        services: providers.iter().map(|p| p.service()).collect(),
        owner: owner(config),
        #[cfg(feature = "emulator")]
        _demo: None,
    })
}

fn uploads(
    config: &Config,
    state_dir: &Path,
    runway: &Arc<dyn Provider>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    fs: &Arc<LibraryFs>,
) -> anyhow::Result<Arc<Uploads>> {
    let relay = Arc::new(UploadRelay::default());
    let upload_config = UploadConfig {
        write_back: config.write_back,
        deadline: config.deadline.max(UploadConfig::new(state_dir).deadline),
        ..UploadConfig::new(state_dir)
    };
    let events = Arc::clone(&relay);
    let uploads = Uploads::open(upload_config, store, Arc::clone(runway), events, clock)?;
    let uploads = Arc::new(uploads);
    fs.set_uploads(Arc::clone(&uploads));
    relay.connect(fs);
    Ok(uploads)
}

fn about(config: &Config, mount_point: &Path, clock: &Arc<dyn Clock>) -> About {
    let accounts = [
        (Service::Runway, &config.runway_email),
        (Service::Ltx, &config.ltx_email),
        (Service::Runflow, &config.runflow_organization),
    ];
    About {
        mount_point: mount_point.to_path_buf(),
        accounts: accounts
            .map(|(service, name)| (service, name.clone()))
            .into(),
        health: Health::new(Arc::clone(clock), logging::redact),
    }
}

fn owner(config: &Config) -> Owner {
    let me = || rustix::process::getuid().as_raw();
    let my_group = || rustix::process::getgid().as_raw();
    Owner {
        uid: config.uid.unwrap_or_else(me),
        gid: config.gid.unwrap_or_else(my_group),
        umask: config.umask,
    }
}

fn deadlines(config: &Config) -> Deadlines {
    let usual = Deadlines::default();
    Deadlines {
        connect: usual.connect.min(config.deadline),
        // Two attempts must fit.
        stall: usual.stall.min(config.deadline / 2),
        total: config.deadline,
    }
}

fn providers(
    config: &Config,
    deadlines: Deadlines,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Vec<Arc<dyn Provider>>> {
    let client = |url: &url::Url, token: &ApiToken| {
        ApiClient::new(url.clone(), token.clone(), deadlines, Arc::clone(clock))
            .context("cannot set up the HTTP client")
    };
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    if let Some(token) = &config.useapi_token {
        let api = client(&config.useapi_url, token)?;
        let runway = RunwayProvider::new(api.clone(), config.runway_email.clone());
        providers.push(Arc::new(runway));
        providers.push(Arc::new(LtxProvider::new(api, config.ltx_email.clone())));
    }
    if let Some(token) = &config.runflow_token {
        let api = client(&config.runflow_url, token)?;
        let organization = config.runflow_organization.clone();
        providers.push(Arc::new(RunflowProvider::new(api, organization)));
    }
    Ok(providers)
}

/// A mount without pictures is a mount: what is wrong with them is only told.
fn set_thumbnails(fs: &LibraryFs, folder: &Path, deadlines: Deadlines, mount_point: &Path) {
    let thumbnails = || {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let client = AssetClient::new(deadlines, Arc::clone(&clock))?;
        let client = PreviewClient::new(client, deadlines)?;
        Thumbnails::new(folder, mount_point, client, clock)
            .with_context(|| format!("{} can't be used", folder.display()))
    };
    match thumbnails() {
        Ok(thumbnails) => fs.set_thumbnails(thumbnails),
        Err(error) => log::warn!("there will be no thumbnails: {error:#}"),
    }
}

impl Stack for LibraryStack {
    type Fs = FuseAdapter;

    fn filesystem(&mut self) -> FuseAdapter {
        FuseAdapter::new(Arc::clone(&self.fs), Arc::clone(&self.lot), self.owner)
    }

    fn mounted(&self, notifier: fuser::Notifier) {
        match KernelNotifier::start(notifier) {
            Ok(kernel) => self.fs.catalog().set_kernel(Arc::new(kernel)),
            Err(error) => log::warn!("the kernel won't be told of changes: {error}"),
        }
    }

    fn activity(&self) -> String {
        let services = self.services.iter().map(|service| service.name());
        let services = services.collect::<Vec<_>>().join(", ");
        match &self.uploads {
            Some(uploads) => format!("{services}; {}", in_words(&uploads.statuses())),
            None => format!("{services}; read-only"),
        }
    }

    fn shutdown(&self, timeout: Duration) -> Vec<String> {
        let remaining = match &self.uploads {
            Some(uploads) => uploads.drain(timeout),
            None => Vec::new(),
        };
        self.fs.catalog().store_all_learnt();
        remaining
    }
}

/// `no uploads`, or `3 uploads (a.mp4 40%), 1 given up`.
fn in_words(uploads: &[UploadStatus]) -> String {
    let waiting = |upload: &&UploadStatus| {
        matches!(
            upload.state,
            UploadState::Queued | UploadState::Sending { .. }
        )
    };
    let sending = uploads.iter().filter_map(|upload| match upload.state {
        UploadState::Sending { percent } => Some(format!("{} {percent}%", upload.name)),
        _ => None,
    });
    let mut words = match uploads.iter().filter(waiting).count() {
        0 => "no uploads".to_string(),
        1 => "1 upload".to_string(),
        many => format!("{many} uploads"),
    };
    let sending = sending.collect::<Vec<_>>().join(", ");
    if !sending.is_empty() {
        words.push_str(&format!(" ({sending})"));
    }
    let failed = |upload: &&UploadStatus| matches!(upload.state, UploadState::Failed { .. });
    match uploads.iter().filter(failed).count() {
        0 => words,
        given_up => format!("{words}, {given_up} given up"),
    }
}

#[cfg(feature = "emulator")]
mod demo {
    //! The demo's services and its throw-away state.

    use std::path::{Path, PathBuf};

    use super::{Config, LibraryStack, assemble};
    use crate::emulator::{Emulator, EmulatorConfig};
    use crate::http::ApiToken;

    /// Lives as long as the mount.
    pub struct Demo {
        _emulator: Emulator,
        _scratch: Scratch,
    }

    /// A directory that goes when the demo ends.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            if let Err(error) = std::fs::remove_dir_all(&self.0) {
                log::warn!("{} is left behind: {error}", self.0.display());
            }
        }
    }

    /// Starts the services and builds the stack over them.
    pub fn build(config: &Config, mount_point: &Path) -> anyhow::Result<LibraryStack> {
        let emulator = Emulator::with_sample_library(EmulatorConfig::default())?;
        let name = format!("demo-{}", uuid::Uuid::new_v4());
        let scratch = Scratch(config.state_dir_for_mount().join(name));
        let demo = Config {
            useapi_token: ApiToken::new(&emulator.useapi_token()),
            runflow_token: ApiToken::new(&emulator.runflow_token()),
            useapi_url: emulator.useapi_url().parse()?,
            runflow_url: emulator.runflow_url().parse()?,
            ..config.clone()
        };
        let mut stack = assemble(&demo, mount_point, &scratch.0)?;
        stack._demo = Some(Demo {
            _emulator: emulator,
            _scratch: scratch,
        });
        Ok(stack)
    }
}
