//! Connections that stand ready before they are needed.

use super::*;

impl Rig {
    fn url(&self) -> SignedUrl {
        let policy = UrlPolicy::for_api(&Url::parse(&self.urls.base).unwrap());
        SignedUrl::parse(&self.urls.base, None, &policy).unwrap()
    }
}

#[test]
fn a_host_that_is_likely_to_be_read_is_connected_to_and_asked_for_nothing() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", MIB);
    rig.reader.prepare(&rig.url());
    until(|| rig.host.connections() == 4);
    rig.reader.prepare(&rig.url());
    assert_eq!(rig.host.hits().len(), 0);
    assert_eq!(rig.host.sent_bytes(), 0);
    rig.expect_in_order(&file, &data, 100 * KIB);
    assert_eq!(rig.host.connections(), 4, "those that were ready were used");
}

#[test]
fn the_first_touch_of_a_large_file_connects_for_the_rest_and_asks_for_no_more_bytes() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 64 * MIB);
    let at = 20 * MIB;
    assert_eq!(rig.read(&file, at, 4096).unwrap(), part(&data, at, 4096));
    until(|| rig.host.connections() == window::MAX_STREAMS as u64);
    rig.settle();
    assert_eq!(rig.host.hits().len(), 1);
    assert_eq!(rig.host.sent_bytes(), 4096);
}

#[test]
fn a_small_file_needs_one_connection() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 100 * KIB);
    rig.expect_in_order(&file, &data, 100 * KIB);
    assert_eq!(rig.host.connections(), 1);
}

#[test]
fn reading_in_order_keeps_to_its_connections() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 100 * MIB);
    rig.expect_in_order(&file, &data, MIB);
    // One for the read itself.
    let most = window::MAX_STREAMS as u64 + 1;
    assert!(rig.host.connections() <= most, "{}", rig.host.connections());
}
