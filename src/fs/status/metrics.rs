//! [`Status`] in Prometheus' text format 0.0.4. Pure.
//!
//! Promises: every metric has its HELP and TYPE once, before its samples; names carry their base
//! unit (`_bytes`, `_seconds`) and counters end in `_total`; a label's value is escaped; the order
//! is always the same.

use std::fmt::Write as _;

use super::{Reachable, Status};

/// What a label is called, and its value.
type Label<'a> = (&'a str, &'a str);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

/// States of uploads, each always shown, so that a graph has no holes.
const STATES: [&str; 5] = ["open", "local", "queued", "sending", "failed"];

/// The whole text.
pub fn text(status: &Status) -> String {
    let mut page = Page(String::new());
    page.one("reelfs_up", Kind::Gauge, "The mount answers.", 1.0);
    page.many(
        "reelfs_build_info",
        Kind::Gauge,
        "Always 1; the version is the label.",
        [(vec![("version", &*status.version)], 1.0)],
    );
    page.one(
        "reelfs_start_time_seconds",
        Kind::Gauge,
        "When it was mounted, in seconds since 1970.",
        unix_seconds(&status.mounted_at),
    );
    services(&mut page, status);
    libraries(&mut page, status);
    reading(&mut page, status);
    uploads(&mut page, status);
    let errors = status.error_counts.iter().map(|error| {
        let labels = vec![("service", &*error.service), ("kind", &*error.kind)];
        (labels, error.count as f64)
    });
    page.many(
        "reelfs_errors_total",
        Kind::Counter,
        "What went wrong, by whose doing and of what kind.",
        errors,
    );
    page.0
}

fn services(page: &mut Page, status: &Status) {
    let known = status.services.iter().filter_map(|service| {
        let up = match service.reachable {
            Reachable::Yes => 1.0,
            Reachable::No => 0.0,
            Reachable::Unknown => return None,
        };
        Some((vec![("service", &*service.name)], up))
    });
    page.many(
        "reelfs_service_up",
        Kind::Gauge,
        "Whether the service's last answer was as it should be; absent before the first.",
        known,
    );
    let answered = status.services.iter().filter_map(|service| {
        let at = service.last_success.as_deref()?;
        Some((vec![("service", &*service.name)], unix_seconds(at)))
    });
    page.many(
        "reelfs_service_last_success_timestamp_seconds",
        Kind::Gauge,
        "When the service last answered as it should, in seconds since 1970.",
        answered,
    );
}

fn libraries(page: &mut Page, status: &Status) {
    let label = |path| vec![("library", path)];
    let ages = status.libraries.iter().filter_map(|library| {
        let age = library.listing_age_seconds?;
        Some((label(&*library.path), age))
    });
    page.many(
        "reelfs_listing_age_seconds",
        Kind::Gauge,
        "How old the listing that stands is; absent before the first.",
        ages,
    );
    let entries = status.libraries.iter();
    page.many(
        "reelfs_listing_entries",
        Kind::Gauge,
        "Files in the directory.",
        entries.map(|library| (label(&*library.path), library.entries as f64)),
    );
    let stale = status.libraries.iter();
    page.many(
        "reelfs_listing_stale",
        Kind::Gauge,
        "1 while an older listing stands in for a service that is unwell.",
        stale.map(|library| (label(&*library.path), f64::from(u8::from(library.stale)))),
    );
}

fn reading(page: &mut Page, status: &Status) {
    let (cache, streams) = (&status.cache, &status.streams);
    page.one(
        "reelfs_cache_bytes",
        Kind::Gauge,
        "Memory that holds assets' bytes.",
        cache.used_bytes as f64,
    );
    page.one(
        "reelfs_cache_capacity_bytes",
        Kind::Gauge,
        "Memory that may hold assets' bytes.",
        cache.capacity_bytes as f64,
    );
    page.many(
        "reelfs_reads_total",
        Kind::Counter,
        "Reads that memory answered (hit) or that waited for a host (miss).",
        [
            (vec![("result", "hit")], cache.hits as f64),
            (vec![("result", "miss")], cache.misses as f64),
        ],
    );
    page.one(
        "reelfs_asset_requests_total",
        Kind::Counter,
        "Requests to asset hosts.",
        streams.requests as f64,
    );
    page.one(
        "reelfs_fetched_bytes_total",
        Kind::Counter,
        "Bytes that asset hosts sent.",
        streams.fetched_bytes as f64,
    );
    page.one(
        "reelfs_streams",
        Kind::Gauge,
        "Requests to asset hosts under way.",
        streams.active as f64,
    );
    page.one(
        "reelfs_open_files",
        Kind::Gauge,
        "Assets that programs have open.",
        streams.open_files.len() as f64,
    );
}

fn uploads(page: &mut Page, status: &Status) {
    let counts = STATES.map(|state| {
        let count = status.uploads.iter().filter(|u| u.state == state).count();
        (vec![("state", state)], count as f64)
    });
    page.many(
        "reelfs_uploads",
        Kind::Gauge,
        "Files that are not assets yet, by state.",
        counts,
    );
    let under_way = || {
        let uploads = status.uploads.iter();
        uploads.filter(|upload| matches!(&*upload.state, "queued" | "sending"))
    };
    let all: u64 = under_way().map(|upload| upload.size_bytes).sum();
    let sent: u64 = under_way().map(|upload| upload.sent_bytes).sum();
    page.one(
        "reelfs_upload_pending_bytes",
        Kind::Gauge,
        "Bytes of queued files that are still to be sent.",
        all.saturating_sub(sent) as f64,
    );
    page.one(
        "reelfs_upload_sent_bytes",
        Kind::Gauge,
        "Bytes sent of the files that are being sent.",
        sent as f64,
    );
}

struct Page(String);

impl Page {
    fn one(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.many(name, kind, help, [(Vec::new(), value)]);
    }

    #[expect(
        single_use_lifetimes,
        reason = "an anonymous one can't stand in `impl Trait`"
    )]
    fn many<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<Label<'a>>, f64)>,
    ) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escape(value)))
                .collect();
            let labels = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", labels.join(",")),
            };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

fn escape(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    escaped.replace('\n', "\\n")
}

/// Of a time in a status; 0 for what is none.
fn unix_seconds(time: &str) -> f64 {
    let time = humantime::parse_rfc3339(time).ok();
    let since = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn status() -> Status {
        Status {
            version: "1.2.3".to_string(),
            process_id: 1,
            mount_point: "/mnt".into(),
            mounted_at: "1970-01-01T00:01:00Z".to_string(),
            read_only: false,
            services: Vec::new(),
            libraries: vec![LibraryStatus {
                path: "odd\"\\\nname".to_string(),
                entries: 2,
                listing_age_seconds: Some(1.5),
                fresh: false,
                stale: true,
                problem: None,
            }],
            cache: CacheStatus {
                capacity_bytes: 10,
                used_bytes: 5,
                hits: 3,
                misses: 1,
                hit_rate: Some(0.75),
            },
            streams: StreamStatus {
                active: 0,
                requests: 0,
                fetched_bytes: 1 << 40,
                open_files: Vec::new(),
            },
            uploads: Vec::new(),
            errors: Vec::new(),
            error_counts: Vec::new(),
        }
    }

    #[test]
    fn numbers_are_written_as_they_are() {
        let text = text(&status());
        for line in [
            "reelfs_fetched_bytes_total 1099511627776",
            "reelfs_start_time_seconds 60",
            "reelfs_reads_total{result=\"hit\"} 3",
            "reelfs_uploads{state=\"failed\"} 0",
            "reelfs_build_info{version=\"1.2.3\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_a_label_cannot_hold_is_escaped() {
        let text = text(&status());
        let line = "reelfs_listing_age_seconds{library=\"odd\\\"\\\\\\nname\"} 1.5";
        assert!(text.lines().any(|l| l == line), "{text}");
    }

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let text = text(&status());
        let types = text.lines().filter_map(|l| l.strip_prefix("# TYPE "));
        let types: Vec<(&str, &str)> = types.filter_map(|l| l.split_once(' ')).collect();
        assert!(types.len() > 15);
        for (name, kind) in &types {
            assert!(name.starts_with("reelfs_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
            assert_eq!(types.iter().filter(|(n, _)| n == name).count(), 1, "{name}");
        }
    }
}
