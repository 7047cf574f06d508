//! The matrix as it has to be, written by hand from `docs/SEMANTICS.md` and the API's pages.
//!
//! Before the slash: the trouble happens once. Behind it: it lasts beyond the deadline. `ok` is the
//! right bytes, the whole listing, the file at the service exactly once. `-`: there is no such
//! case. Further on in its row, `"` repeats what stands to its left.

pub const TABLE: &str = r#"
connection refused          | ok/EIO | " | " | " | " | " | " | "
no such host (DNS)          | -/EIO | " | - | -/EIO | " | " | " | -
TLS: answered in plain text | ok/EIO | " | " | " | " | " | " | "
TLS: unknown certificate    | ok/EIO | " | " | " | " | " | " | "
dropped before the answer   | ok/EIO | " | " | " | " | " | " | "
dropped after 0 bytes of it | ok/EIO | " | " | " | " | ok/ok | ok/EIO | "
dropped after 1 byte        | ok/EIO | " | " | " | - | ok/ok | ok/EIO | "
dropped after 100,000       | - | " | " | " | " | " | ok/ok | "
slow: 50,000 bytes/s        | ok/ok | " | " | " | " | " | " | "
a trickle: 100 bytes/s      | EIO/EIO | " | " | " | - | ok/ok | EIO/EIO | "
silent for ever             | ok/EIO | " | " | " | " | " | " | "
400                         | EIO/EIO | " | " | " | ok/EACCES | EIO/EIO | ok/EACCES | "
401                         | EACCES/EACCES | " | " | " | ok/EACCES | EACCES/EACCES | ok/EACCES | "
402                         | EDQUOT/EDQUOT | " | " | " | ok/EIO | EDQUOT/EDQUOT | ok/EIO | "
403                         | EACCES/EACCES | " | " | " | ok/EACCES | EACCES/EACCES | ok/EACCES | "
404                         | EIO/EIO | " | ENOENT/ENOENT | " | ok/ENOENT | ok/EIO | ok/ENOENT | "
408                         | ok/EIO | " | " | " | " | " | " | "
410                         | EIO/EIO | " | ENOENT/ENOENT | " | ok/ENOENT | ok/EIO | ok/ENOENT | "
412                         | EIO/EIO | " | " | " | ok/EIO | EIO/EIO | ok/EIO | "
416                         | EIO/EIO | " | " | " | ok/EIO | EIO/EIO | ok/EIO | "
422                         | EIO/EIO | " | " | " | ok/EIO | EIO/EIO | ok/EIO | "
429                         | ok/EAGAIN | " | " | " | " | " | " | "
429, Retry-After: 1         | ok/EAGAIN | " | " | " | " | " | " | "
429, Retry-After: 3600      | EAGAIN/EAGAIN | " | " | " | " | " | " | "
500                         | ok/EIO | " | " | " | " | " | " | "
502 as HTML                 | ok/EIO | " | " | " | " | " | " | "
503                         | ok/EIO | " | " | " | " | " | " | "
504                         | ok/EIO | " | " | " | " | " | " | "
522 as HTML                 | ok/EIO | " | " | " | " | " | " | "
596                         | EACCES/EACCES | " | " | " | ok/EIO | EACCES/EACCES | ok/EIO | "
200 with HTML               | ok/EIO | " | " | " | " | " | " | "
malformed JSON              | ok/EIO | " | " | " | - | ok/ok | - | "
wrong types                 | EIO/EIO | " | " | ok/EIO | - | ok/ok | - | "
JSON of another kind        | EIO/EIO | " | " | " | - | ok/EIO | - | "
huge body (17 MiB more)     | EIO/EIO | " | " | " | ok/EIO | ok/ok | ok/EIO | "
endless body                | EIO/EIO | " | " | " | ok/EIO | ok/ok | " | "
no Content-Length           | ok/ok | " | " | " | " | " | " | "
200 to a range              | - | " | " | " | ok/ok | - | ok/ok | "
wrong Content-Range         | - | " | " | " | ok/EIO | - | ok/EIO | "
changed ETag                | - | " | " | " | ok/ok | - | ok/ok | ESTALE/ESTALE
wrong length (5 less)       | - | " | " | " | ok/EIO | - | ok/EIO | "
redirect to itself          | ok/EIO | " | " | " | " | " | " | "
redirect to another host    | EIO/EIO | " | " | " | " | ok/EIO | EIO/EIO | "
"#;

/// The cells of each row by its name, `(once, always)`; `None` where there is no such case.
pub fn rows() -> Vec<(&'static str, Vec<[Option<&'static str>; 2]>)> {
    TABLE.trim().lines().map(row).collect()
}

fn row(line: &'static str) -> (&'static str, Vec<[Option<&'static str>; 2]>) {
    let mut parts = line.split('|').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let mut before = [None; 2];
    let cells = parts.map(|text| {
        before = match text.split_once('/') {
            Some((once, always)) => [once, always].map(|text| Some(text).filter(|t| *t != "-")),
            None if text == "\"" => before,
            None => [None; 2],
        };
        before
    });
    (name, cells.collect())
}
