//! `reelfs emulate`: the emulator by itself, for programs in other processes.
//!
//! Prints `USEAPI_URL=…`, `RUNFLOW_URL=…`, `ASSET_URL=…`, `USEAPI_TOKEN=…` and `RUNFLOW_TOKEN=…`
//! on standard output, a line each, once it serves; then serves until SIGTERM or SIGINT. Fails
//! where an address can't be bound or a file can't be read.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::grammar::GRAMMAR;
use super::{
    Content, Emulator, EmulatorConfig, Fault, Link, LoggedRequest, RequestWatch, RunwayAsset,
};

/// Run the emulated services by themselves, for tests and benchmarks.
#[derive(Debug, Clone, clap::Args)]
pub struct EmulateArgs {
    /// Where useapi.net's API listens; Runflow takes the next port, the asset host the one after.
    /// Port 0 takes any three free ports
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The token that Runway and LTX Studio accept
    #[arg(long, value_name = "TOKEN", default_value = "user:1234-emulated")]
    pub useapi_token: String,
    /// The token that Runflow accepts
    #[arg(long, value_name = "TOKEN", default_value = "rf-emulated")]
    pub runflow_token: String,
    /// A linked account; may be given several times, and makes `email` required with two
    #[arg(long = "account", value_name = "EMAIL")]
    pub accounts: Vec<String>,
    /// Fill each library with this many synthetic assets instead of the sample media
    #[arg(long, value_name = "N")]
    pub assets: Option<u32>,
    /// The size of a synthetic asset: bytes, or with a unit (`100K`, `4MiB`)
    #[arg(long, value_name = "SIZE", default_value = "100K", value_parser = size_bytes)]
    pub asset_size: u64,
    /// Add a file to Runway, under its own name; may be given several times
    #[arg(long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// The round trip time of every connection
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub rtt_ms: u64,
    /// Round trips that a new connection costs before its first byte: 1 for TCP, 2 with TLS
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub setup_round_trips: u32,
    /// The rate of one connection per second: bytes, or with a unit (`25M`)
    #[arg(long, value_name = "SIZE", value_parser = size_bytes)]
    pub rate: Option<u64>,
    /// How long a signed URL is valid: `90s`, `24h`
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    pub url_lifetime: Duration,
    /// A fault, HOST:METHOD:PATH:COUNT:EFFECT, such as
    /// `asset:GET:/path:3:status=503,retry-after=1`; may be given several times
    #[arg(long = "fault", value_name = "FAULT", long_help = GRAMMAR)]
    pub faults: Vec<Fault>,
    /// Also serve Runway's videos by name at the asset host's `/open/`, listed and unsigned, for
    /// other programs to be measured beside
    #[arg(long)]
    pub open_listing: bool,
    /// Print each request on standard error, without the query of its URL
    #[arg(long)]
    pub log_requests: bool,
}

fn size_bytes(text: &str) -> Result<u64, parse_size::Error> {
    parse_size::parse_size(text)
}

impl EmulateArgs {
    fn config(&self) -> EmulatorConfig {
        let mut config = EmulatorConfig {
            listen: self.listen,
            useapi_token: self.useapi_token.clone(),
            runflow_token: self.runflow_token.clone(),
            url_lifetime: self.url_lifetime,
            link: Link {
                rtt: Duration::from_millis(self.rtt_ms),
                setup_round_trips: self.setup_round_trips,
                bytes_per_s: self.rate,
            },
            open_listing: self.open_listing,
            on_request: self.log_requests.then(|| Arc::new(print) as RequestWatch),
            ..EmulatorConfig::default()
        };
        if !self.accounts.is_empty() {
            config.accounts.clone_from(&self.accounts);
        }
        config
    }

    /// The emulator that the arguments describe, serving.
    pub fn start(&self) -> anyhow::Result<Emulator> {
        let emulator = match self.assets {
            None => Emulator::with_sample_library(self.config())?,
            Some(count) => {
                let emulator = Emulator::start(self.config())?;
                emulator.add_synthetic(count, self.asset_size);
                emulator
            }
        };
        for path in &self.files {
            emulator.add_runway(asset_from(path)?);
        }
        for fault in &self.faults {
            emulator.add_fault(fault.clone());
        }
        Ok(emulator)
    }
}

/// Serves until SIGTERM or SIGINT; see the module's head.
pub fn run(args: &EmulateArgs) -> anyhow::Result<()> {
    // Before the addresses are printed: whoever reads them may stop us at once.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot wait for signals")?;
    let emulator = args.start()?;
    announce(&emulator, &mut io::stdout().lock()).context("cannot print the addresses")?;
    signals.forever().next();
    Ok(())
}

fn announce(emulator: &Emulator, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "USEAPI_URL={}", emulator.useapi_url())?;
    writeln!(out, "RUNFLOW_URL={}", emulator.runflow_url())?;
    writeln!(out, "ASSET_URL={}", emulator.asset_url())?;
    writeln!(out, "USEAPI_TOKEN={}", emulator.useapi_token())?;
    writeln!(out, "RUNFLOW_TOKEN={}", emulator.runflow_token())?;
    out.flush()
}

fn asset_from(path: &Path) -> anyhow::Result<RunwayAsset> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(RunwayAsset::named(&name, Content::stored(bytes)))
}

fn print(request: &LoggedRequest) {
    let status = request
        .status
        .map_or("dropped".to_string(), |s| s.to_string());
    eprintln!(
        "#{} {:?} {} {} {} {status}",
        request.connection_id,
        request.host,
        request.method,
        request.path(),
        request.range.as_deref().unwrap_or("-"),
    );
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        emulate: EmulateArgs,
    }

    fn args(line: &str) -> EmulateArgs {
        let words = line.split_whitespace();
        Program::parse_from(std::iter::once("emulate").chain(words)).emulate
    }

    #[test]
    fn flags_become_the_configuration() {
        let line = "--account a@x --account b@x --rtt-ms 40 --rate 25M --url-lifetime 90s";
        let config = args(line).config();
        assert_eq!(config.accounts, ["a@x", "b@x"]);
        assert_eq!(config.url_lifetime, Duration::from_secs(90));
        assert_eq!(
            config.link,
            Link {
                rtt: Duration::from_millis(40),
                setup_round_trips: 2,
                bytes_per_s: Some(25_000_000),
            }
        );
        assert_eq!(args("").config().accounts.len(), 1);
    }

    #[test]
    fn bad_flags_are_refused() {
        for bad in [
            "--rate fast",
            "--fault asset:GET",
            "--url-lifetime soon",
            "--listen here",
        ] {
            let words = bad.split_whitespace();
            let parsed = Program::try_parse_from(std::iter::once("emulate").chain(words));
            assert!(parsed.is_err(), "{bad}");
        }
    }

    #[test]
    fn each_library_is_filled_with_as_many_synthetic_assets_as_asked_for() {
        let emulator = args("--assets 3 --asset-size 1K").start().unwrap();
        let assets = emulator.runway_assets();
        assert_eq!(assets.len(), 3 * 3);
        assert!(assets.iter().all(|asset| asset.size_bytes() == 1000));
        let videos = assets.iter().filter(|asset| asset.media_type == "video");
        let names: Vec<&str> = videos.filter_map(|asset| asset.name.as_deref()).collect();
        assert_eq!(
            names,
            ["clip-000003.mp4", "clip-000002.mp4", "clip-000001.mp4"]
        );
        assert!(
            emulator
                .signed_url(&super::super::synthetic_runflow_id(3))
                .is_some()
        );
        assert!(
            emulator
                .signed_url(&super::super::synthetic_runflow_id(4))
                .is_none()
        );
    }

    #[test]
    fn a_file_is_added_to_runway_with_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("take.mov");
        std::fs::write(&path, b"frames").unwrap();
        let line = format!("--assets 0 --file {}", path.display());
        let assets = args(&line).start().unwrap().runway_assets();
        assert_eq!(assets[0].name.as_deref(), Some("take.mov"));
        assert_eq!(assets[0].content_type, "video/quicktime");
        assert_eq!(assets[0].content, Content::stored("frames"));
        let absent = args("--file /nowhere/take.mov").start().err().unwrap();
        assert!(absent.to_string().contains("/nowhere/take.mov"));
    }

    #[test]
    fn the_addresses_are_printed_as_variables() {
        let emulator = args("--assets 0").start().unwrap();
        let mut out = Vec::new();
        announce(&emulator, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&format!("USEAPI_URL={}\n", emulator.useapi_url())));
        assert!(text.contains(&format!("RUNFLOW_URL={}\n", emulator.runflow_url())));
        assert!(text.contains(&format!("ASSET_URL={}\n", emulator.asset_url())));
    }
}
