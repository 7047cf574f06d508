//! Whole listings: which pages are asked for, and when a library counts as read.

use std::sync::{Barrier, Mutex};

use super::*;
use crate::http::test_server::Reply;

fn page_of(ids: &[String], seen: &Seen) -> Vec<String> {
    let (offset, limit) = (seen.number("offset"), seen.number("limit"));
    ids.iter().skip(offset).take(limit).cloned().collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("a{n:04}")).collect()
}

fn offsets(server: &TestServer) -> Vec<usize> {
    let mut offsets: Vec<_> = server.seen().iter().map(|s| s.number("offset")).collect();
    offsets.sort();
    offsets
}

#[test]
fn a_listing_asks_as_the_page_says() {
    let server = TestServer::start(|_| answer(200, "[]"));
    let provider = RunwayProvider::new(api(&server), Some("a+b@c.example".into()));
    assert!(provider.list(Library::RunwayAudio).unwrap().is_empty());
    let seen = &server.seen()[0];
    assert!(
        seen.target
            .starts_with("/v1/runwayml/assets/?offset=0&limit=50"),
        "{}",
        seen.target
    );
    assert_eq!(seen.query("mediaType").as_deref(), Some("audio"));
    assert_eq!(seen.query("email").as_deref(), Some("a+b@c.example"));
    assert_eq!(server.count(), 1);
}

#[test]
fn a_page_in_another_format_is_an_error_and_no_empty_library() {
    let page = json!([{ "assetId": 7, "name": ["a"], "createdAt": 24 }]);
    let server = TestServer::start(move |_| answer(200, page.clone()));
    let error = list(&server).unwrap_err();
    assert!(matches!(error, ProviderError::Malformed(_)), "{error}");
}

#[test]
fn an_asset_of_another_library_is_not_shown_but_one_of_an_unknown_kind_is() {
    assert!(listed_item(json!({ "id": "1", "mediaType": "image" })).is_empty());
    assert_eq!(
        listed_item(json!({ "id": "1", "mediaType": "hologram" })).len(),
        1
    );
}

#[test]
fn a_page_that_is_not_a_list_of_objects_is_an_error_for_all() {
    for page in ["{}", "null", "[1]", "[{\"id\":\"1\"}, null]", "\"x\""] {
        let server = TestServer::start(move |_| answer(200, page));
        let error = list(&server).unwrap_err();
        assert!(
            matches!(error, ProviderError::Malformed(_)),
            "{page}: {error}"
        );
    }
}

#[test]
fn a_failed_page_fails_the_listing() {
    let all = numbered(120);
    let server = TestServer::start(move |seen| match seen.number("offset") {
        98 => answer(400, r#"{"error":"no","code":400}"#),
        _ => answer(
            200,
            json!(
                page_of(&all, seen)
                    .iter()
                    .map(|id| json!({ "id": id }))
                    .collect::<Vec<_>>()
            ),
        ),
    });
    assert!(matches!(list(&server), Err(ProviderError::Refused { .. })));
}

#[test]
fn every_asset_is_listed_once_in_order_whatever_their_number() {
    for count in [0, 1, 49, 50, 51, 98, 99, 100, 149, 333, 1000, 1049, 1050] {
        let all = numbered(count);
        let shown = all.clone();
        let server = paged(move |seen| page_of(&shown, seen));
        assert_eq!(ids(&list(&server).unwrap()), all, "{count}");
    }
}

#[test]
fn no_offset_goes_beyond_what_the_page_allows_and_the_rest_is_told_once() {
    let all = numbered(2000);
    let server = paged(move |seen| page_of(&all, seen));
    let provider = provider(&server);
    let listed = provider.list(VIDEO).unwrap();
    assert_eq!(ids(&listed), numbered(MOST_LISTED));
    let asked = offsets(&server);
    assert_eq!(
        (asked.len(), asked.last()),
        (Cut { limit: PAGE }.pages(), Some(&1000))
    );
}

/// The wave that a page is asked for in: of 1, 3, 10 and 8.
fn wave_of(seen: &Seen) -> usize {
    match seen.number("offset").div_ceil(Cut { limit: PAGE }.step()) {
        0 => 0,
        1..4 => 1,
        4..14 => 2,
        _ => 3,
    }
}

/// What the issue of speed asks for: at most six round trips and the connect. Each wave is one,
/// and connections are opened meanwhile.
#[test]
fn a_thousand_assets_take_four_waves() {
    // Each page waits for all others of its wave: pages asked for one by one would never come.
    let waves: Vec<Barrier> = [1, 3, 10, 8].map(Barrier::new).into();
    let all = numbered(1_000);
    let server = paged(move |seen| {
        waves[wave_of(seen)].wait();
        page_of(&all, seen)
    });
    assert_eq!(list(&server).unwrap().len(), 1_000);
    assert_eq!(server.count(), 22);
}

#[test]
fn a_page_is_asked_for_as_soon_as_one_of_ten_has_come() {
    // The third wave's first page waits for the last page of all.
    let last_page = Cut { limit: PAGE }.pages() - 1;
    let both = Barrier::new(2);
    let all = numbered(MOST_LISTED);
    let server = paged(move |seen| {
        let page = seen.number("offset").div_ceil(Cut { limit: PAGE }.step());
        if page == 4 || page == last_page {
            both.wait();
        }
        page_of(&all, seen)
    });
    assert_eq!(list(&server).unwrap().len(), MOST_LISTED);
}

#[test]
fn few_pages_are_asked_for_in_vain() {
    for (count, most) in [(0, 1), (7, 2), (50, 4), (60, 4), (145, 4), (200, 14)] {
        let all = numbered(count);
        let server = paged(move |seen| page_of(&all, seen));
        assert_eq!(list(&server).unwrap().len(), count);
        assert!(server.count() <= most, "{count}: {}", server.count());
    }
}

#[test]
fn a_service_that_gives_fewer_a_page_than_asked_for_is_listed_whole() {
    for (clamp, count) in [
        (20, 120),
        (20, 21),
        (20, 20),
        (20, 40),
        (49, 300),
        (1, 3),
        (2, 9),
    ] {
        let all = numbered(count);
        let served = all.clone();
        let server = paged(move |seen| {
            let limit = seen.number("limit").min(clamp);
            served
                .iter()
                .skip(seen.number("offset"))
                .take(limit)
                .cloned()
                .collect()
        });
        assert_eq!(ids(&list(&server).unwrap()), all, "{count} by {clamp}");
    }
}

#[test]
fn a_short_page_is_the_end_once_a_longer_one_was_seen() {
    let counts = Mutex::new(vec![7, 30]);
    let server = paged(move |seen| {
        let counts = counts.lock().unwrap();
        let is_image = seen.query("mediaType").as_deref() == Some("image");
        page_of(&numbered(counts[usize::from(!is_image)]), seen)
    });
    let provider = provider(&server);
    provider.list(VIDEO).unwrap();
    assert_eq!(
        offsets(&server),
        [0, 30],
        "the asset after the page is asked for"
    );
    provider.list(Library::RunwayImage).unwrap();
    assert_eq!(offsets(&server), [0, 0, 30]);
}

#[test]
fn a_deletion_between_pages_makes_the_listing_again() {
    let server = shifting(|ids| {
        ids.drain(0..2);
    });
    let listed = ids(&list(&server).unwrap());
    assert_eq!(listed, numbered(120)[2..]);
}

#[test]
fn an_asset_added_between_pages_is_no_reason_to_list_again() {
    let server = shifting(|ids| ids.insert(0, "new".into()));
    assert_eq!(ids(&list(&server).unwrap()), numbered(120));
    assert_eq!(offsets(&server), [0, 49, 98, 147]);
}

#[test]
fn assets_that_vanish_so_that_the_next_page_is_empty_make_the_listing_again() {
    let server = shifting(|ids| ids.truncate(30));
    assert_eq!(ids(&list(&server).unwrap()), numbered(30));
}

/// 120 assets that `change` after the first page was given.
fn shifting(change: impl Fn(&mut Vec<String>) + Send + Sync + 'static) -> TestServer {
    let ids = Mutex::new((numbered(120), false));
    paged(move |seen| {
        let mut state = ids.lock().unwrap();
        let page = page_of(&state.0, seen);
        if !state.1 {
            change(&mut state.0);
            state.1 = true;
        }
        page
    })
}

#[test]
fn a_service_that_sorts_differently_each_time_is_listed_all_the_same() {
    // Pages never meet, but both passes bring the same assets.
    let server = paged(move |seen| {
        let all = numbered(60);
        match seen.number("offset") {
            0 => all[..50].to_vec(),
            _ => all[50..].to_vec(),
        }
    });
    assert_eq!(ids(&list(&server).unwrap()), numbered(60));
    assert_eq!(server.count(), 8, "two passes over four pages");
}

#[test]
fn other_services_libraries_are_not_listed() {
    let server = TestServer::start(|_| Reply::Drop);
    assert!(matches!(
        provider(&server).list(Library::LtxAudio),
        Err(ProviderError::Unsupported)
    ));
}
