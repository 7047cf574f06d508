//! A status as text for people. Pure.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use indicatif::HumanBytes;

use crate::fs::status::{LibraryStatus, Reachable, ServiceStatus, Status, UploadLine};

/// The whole status, each part under its heading.
pub fn text(status: &Status, now: SystemTime) -> String {
    let mut text = text_without_uploads(status, now);
    for upload in &status.uploads {
        let size = HumanBytes(upload.size_bytes);
        line(
            &mut text,
            &format!("    {}  {size}, {}", upload.path, upload_state(upload)),
        );
    }
    text
}

/// As [`text`], ending where a screen has bars for the uploads.
pub fn text_without_uploads(status: &Status, now: SystemTime) -> String {
    let mut text = String::new();
    let point = status.mount_point.display();
    let since = ago(&status.mounted_at, now);
    let (version, pid) = (&status.version, status.process_id);
    line(
        &mut text,
        &format!("{point}  reelfs {version}, mounted {since}, process {pid}"),
    );
    line(&mut text, "  Services");
    for service in &status.services {
        line(
            &mut text,
            &format!("    {:<8} {}", service.name, contact(service, now)),
        );
    }
    line(&mut text, "  Libraries");
    for library in &status.libraries {
        let count = plural(library.entries as u64, "file");
        line(
            &mut text,
            &format!("    {:<14} {count:>12}  {}", library.path, listing(library)),
        );
    }
    reading(&mut text, status);
    errors(&mut text, status, now);
    let heading = match status.uploads.is_empty() {
        true => "  Uploads      none",
        false => "  Uploads",
    };
    line(&mut text, heading);
    text
}

fn line(text: &mut String, words: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}", words.trim_end());
}

fn contact(service: &ServiceStatus, now: SystemTime) -> String {
    let when = |time: &Option<String>| time.as_deref().map(|time| ago(time, now));
    let account = match &service.account {
        Some(account) => format!(", account {account}"),
        None => String::new(),
    };
    let why = service.failure.as_deref().unwrap_or_default();
    match (
        service.reachable,
        when(&service.last_success),
        when(&service.last_failure),
    ) {
        (Reachable::Yes, Some(success), _) => format!("answered {success}{account}"),
        (Reachable::No, Some(success), Some(failure)) => {
            format!("failed {failure}, answered {success}{account}: {why}")
        }
        (Reachable::No, None, Some(failure)) => format!("failed {failure}{account}: {why}"),
        _ => format!("not asked yet{account}"),
    }
}

fn listing(library: &LibraryStatus) -> String {
    let age = library.listing_age_seconds.map(|age| {
        let age = Duration::from_secs_f64(age.max(0.0));
        format!("listed {} ago", rounded(age))
    });
    let state = match age {
        Some(age) if library.stale => format!("{age}, stands in while the service is unwell"),
        Some(age) => age,
        None if library.path == "runflow" => "asked for one by one".to_string(),
        None => "not listed yet".to_string(),
    };
    match &library.problem {
        Some(problem) => format!("{state}: {problem}"),
        None => state,
    }
}

fn reading(text: &mut String, status: &Status) {
    let (cache, streams) = (&status.cache, &status.streams);
    let used = HumanBytes(cache.used_bytes);
    let capacity = HumanBytes(cache.capacity_bytes);
    let rate = match cache.hit_rate {
        Some(rate) => {
            let reads = plural(cache.hits + cache.misses, "read");
            format!(", {:.0} % of {reads} from memory", rate * 100.0)
        }
        None => String::new(),
    };
    line(text, &format!("  Cache        {used} of {capacity}{rate}"));
    line(
        text,
        &format!(
            "  Streams      {} under way, {} so far, {} fetched",
            streams.active,
            plural(streams.requests, "request"),
            HumanBytes(streams.fetched_bytes)
        ),
    );
    for file in &streams.open_files {
        let (served, size) = (HumanBytes(file.served_bytes), HumanBytes(file.size_bytes));
        line(
            text,
            &format!("    {}  {served} read, of {size}", file.path),
        );
    }
}

fn errors(text: &mut String, status: &Status, now: SystemTime) {
    if status.errors.is_empty() {
        return line(text, "  Last errors  none");
    }
    line(text, "  Last errors");
    for error in &status.errors {
        let times = match error.times {
            1 => String::new(),
            times => format!(" ({times} times)"),
        };
        let when = ago(&error.at, now);
        line(
            text,
            &format!("    {when}, {}: {}{times}", error.place, error.text),
        );
    }
}

/// How far an upload has come, without its size.
pub fn upload_state(upload: &UploadLine) -> String {
    let mut state = match (&*upload.state, upload.size_bytes) {
        ("sending", size) if size > 0 => {
            let percent = upload.sent_bytes.min(size) as f64 / size as f64 * 100.0;
            format!("sending, {percent:.0} %")
        }
        ("open", _) => "being written".to_string(),
        ("local", _) => "kept on this machine".to_string(),
        (state, _) => state.to_string(),
    };
    if upload.failures > 0 {
        state += &format!(", {} failed", plural(upload.failures.into(), "attempt"));
    }
    if let Some(wait) = upload.next_try_seconds.filter(|wait| *wait >= 1.0) {
        state += &format!(", next in {wait:.0} s");
    }
    if let Some(error) = &upload.error {
        state += &format!(": {error}");
    }
    state
}

fn plural(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// How long ago a time of a status was, in two units at most.
fn ago(time: &str, now: SystemTime) -> String {
    let Ok(then) = humantime::parse_rfc3339(time) else {
        return "at an unknown time".to_string();
    };
    let age = now.duration_since(then).unwrap_or_default();
    match age.as_secs() {
        0 => "just now".to_string(),
        _ => format!("{} ago", rounded(age)),
    }
}

fn rounded(age: Duration) -> String {
    let seconds = age.as_secs();
    let coarse = match seconds {
        0..60 => seconds,
        60..86_400 => seconds / 60 * 60,
        _ => seconds / 3600 * 3600,
    };
    humantime::format_duration(Duration::from_secs(coarse)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(state: &str) -> UploadLine {
        UploadLine {
            path: "runway/image/a.png".to_string(),
            state: state.to_string(),
            size_bytes: 200,
            sent_bytes: 50,
            failures: 0,
            next_try_seconds: None,
            error: None,
        }
    }

    #[test]
    fn an_upload_says_how_far_it_is_and_what_comes_next() {
        assert_eq!(upload_state(&upload("sending")), "sending, 25 %");
        let failed = UploadLine {
            failures: 2,
            next_try_seconds: Some(4.2),
            error: Some("the service is unwell".to_string()),
            ..upload("queued")
        };
        assert_eq!(
            upload_state(&failed),
            "queued, 2 attempts failed, next in 4 s: the service is unwell"
        );
    }

    #[test]
    fn ages_have_two_units_at_most() {
        let now = humantime::parse_rfc3339("2026-01-02T00:00:00Z").unwrap();
        for (time, said) in [
            ("2026-01-02T00:00:00Z", "just now"),
            ("2026-01-03T00:00:00Z", "just now"),
            ("2026-01-01T23:59:15Z", "45s ago"),
            ("2026-01-01T22:58:15Z", "1h 1m ago"),
            ("2025-12-30T22:58:15Z", "2days 1h ago"),
        ] {
            assert_eq!(ago(time, now), said, "{time}");
        }
    }

    #[test]
    fn a_listing_that_stands_in_says_why() {
        let library = LibraryStatus {
            path: "ltx/videos".to_string(),
            entries: 3,
            listing_age_seconds: Some(75.0),
            fresh: false,
            stale: true,
            problem: Some("it answered 500".to_string()),
        };
        assert_eq!(
            listing(&library),
            "listed 1m ago, stands in while the service is unwell: it answered 500"
        );
    }
}
