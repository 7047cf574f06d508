//! Each provider against the emulator, which reads the API pages on its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(feature = "emulator")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reelfs::clock::SystemClock;
use reelfs::emulator::{
    ABSENT, Content, Effect, Emulator, EmulatorConfig, Fault, HostKind, LtxAsset, RunflowAsset,
    RunwayAsset,
};
use reelfs::http::{ApiClient, ApiToken, Deadlines, TransportError};
use reelfs::provider::ltx::LtxProvider;
use reelfs::provider::runflow::RunflowProvider;
use reelfs::provider::runway::{MOST_LISTED, RunwayProvider};
use reelfs::provider::{Asset, AssetId, Library, Provider, ProviderError, Upload};
use serde_json::json;

const UUID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

fn emulator() -> Emulator {
    Emulator::start(EmulatorConfig::default()).unwrap()
}

fn two_accounts() -> Emulator {
    Emulator::start(EmulatorConfig {
        accounts: vec!["a@example.com".into(), "b@example.com".into()],
        ..EmulatorConfig::default()
    })
    .unwrap()
}

fn deadlines() -> Deadlines {
    Deadlines {
        connect: Duration::from_secs(2),
        stall: Duration::from_secs(3),
        total: Duration::from_secs(12),
    }
}

fn client(url: &str, token: &str, deadlines: Deadlines) -> ApiClient {
    let token = ApiToken::new(token).unwrap();
    ApiClient::new(
        url.parse().unwrap(),
        token,
        deadlines,
        Arc::new(SystemClock),
    )
    .unwrap()
}

fn useapi(emulator: &Emulator) -> ApiClient {
    client(
        &emulator.useapi_url(),
        &emulator.useapi_token(),
        deadlines(),
    )
}

fn runway(emulator: &Emulator) -> RunwayProvider {
    RunwayProvider::new(useapi(emulator), None)
}

fn ltx(emulator: &Emulator) -> LtxProvider {
    LtxProvider::new(useapi(emulator), None)
}

fn runflow(emulator: &Emulator) -> RunflowProvider {
    let api = client(
        &emulator.runflow_url(),
        &emulator.runflow_token(),
        deadlines(),
    );
    RunflowProvider::new(api, None)
}

fn small() -> Content {
    Content::stored(&b"some bytes"[..])
}

fn add_videos(emulator: &Emulator, count: usize) -> BTreeSet<String> {
    (0..count)
        .map(|n| emulator.add_runway(RunwayAsset::named(&format!("clip {n}.mp4"), small())))
        .collect()
}

fn add_images(emulator: &Emulator, count: usize) -> BTreeSet<String> {
    (0..count)
        .map(|_| emulator.add_ltx(LtxAsset::new("image/png", small())))
        .collect()
}

fn ids(assets: &[Asset]) -> BTreeSet<String> {
    assets.iter().map(|asset| asset.id.to_string()).collect()
}

fn download(asset: &Asset) -> Vec<u8> {
    let url = asset.url.as_ref().unwrap().expose().clone();
    let answer = reqwest::blocking::get(url).unwrap().error_for_status();
    answer.unwrap().bytes().unwrap().to_vec()
}

fn fault(emulator: &Emulator, method: &str, times: u64, effect: Effect) {
    let fault = Fault::at(HostKind::Useapi).method(method).times(times);
    emulator.add_fault(fault.does(effect));
}

fn upload<'a>(library: Library, name: &'a str, content_type: &'a str, bytes: &[u8]) -> Upload<'a> {
    let mut body: File = tempfile::tempfile().unwrap();
    body.write_all(bytes).unwrap();
    Upload {
        library,
        name,
        content_type,
        body,
        size_bytes: bytes.len() as u64,
        sent_bytes: Arc::new(AtomicU64::new(0)),
    }
}

fn upload_png(emulator: &Emulator) -> Result<Asset, ProviderError> {
    let bytes = vec![7; 300_000];
    runway(emulator).upload(upload(Library::RunwayImage, "one.png", "image/png", &bytes))
}

#[test]
fn runway_lists_each_library_whole_and_apart() {
    let emulator = emulator();
    let videos = add_videos(&emulator, 130);
    let image = emulator.add_runway(RunwayAsset::named("Race car.jpg", small()));
    let provider = runway(&emulator);
    assert_eq!(ids(&provider.list(Library::RunwayVideo).unwrap()), videos);
    let images = provider.list(Library::RunwayImage).unwrap();
    assert_eq!(ids(&images), BTreeSet::from([image]));
    assert_eq!(images[0].name.as_deref(), Some("Race car.jpg"));
    assert_eq!(images[0].size_bytes, Some(10));
    assert!(images[0].created_at.is_some());
    assert_eq!(download(&images[0]), b"some bytes");
    assert!(provider.list(Library::RunwayAudio).unwrap().is_empty());
}

#[test]
fn runways_limit_is_reached_and_never_passed() {
    let emulator = emulator();
    add_videos(&emulator, MOST_LISTED + 20);
    let listed = runway(&emulator).list(Library::RunwayVideo).unwrap();
    assert_eq!(ids(&listed).len(), MOST_LISTED);
    assert!(emulator.requests().iter().all(|r| r.status == Some(200)));
}

#[test]
fn runways_odd_assets_are_listed_with_what_they_have() {
    let emulator = emulator();
    let add = |asset: RunwayAsset| emulator.add_runway(asset);
    let named = || RunwayAsset::named("a.mp4", small());
    let all = BTreeSet::from([
        add(named().without_name().without_url()),
        add(named().with_older_metadata()),
        add(named().with_json_patch(
            json!({ "fileSize": "many", "createdAt": 5, "metadata": null, "brandNew": {} }),
        )),
        add(named().with_json_patch(json!({ "id": ABSENT, "updatedAt": ABSENT }))),
    ]);
    let listed = runway(&emulator).list(Library::RunwayVideo).unwrap();
    assert_eq!(ids(&listed), all);
}

#[test]
fn two_accounts_need_an_email_and_are_listed_apart() {
    let emulator = two_accounts();
    emulator.add_runway(RunwayAsset::named("of a.mp4", small()));
    let of_b =
        emulator.add_runway(RunwayAsset::named("of b.mp4", small()).in_account("b@example.com"));
    let error = runway(&emulator).list(Library::RunwayVideo).unwrap_err();
    assert!(
        matches!(&error, ProviderError::Denied(text) if text.contains("RUNWAY_EMAIL")),
        "{error}"
    );
    let error = ltx(&emulator).list(Library::LtxImages).unwrap_err();
    assert!(
        matches!(&error, ProviderError::Denied(text) if text.contains("LTX_EMAIL")),
        "{error}"
    );
    let provider = RunwayProvider::new(useapi(&emulator), Some("b@example.com".into()));
    assert_eq!(
        ids(&provider.list(Library::RunwayVideo).unwrap()),
        BTreeSet::from([of_b])
    );
    let bytes = upload(Library::RunwayImage, "b.png", "image/png", b"x");
    let uploaded = provider.upload(bytes).unwrap();
    assert_eq!(provider.refresh(&uploaded).unwrap().id, uploaded.id);
    assert_eq!(provider.list(Library::RunwayImage).unwrap().len(), 1);
}

#[test]
fn an_expired_runway_url_is_renewed() {
    let emulator = emulator();
    add_videos(&emulator, 1);
    let provider = runway(&emulator);
    emulator.set_url_lifetime(Duration::ZERO);
    let listed = provider.list(Library::RunwayVideo).unwrap().remove(0);
    emulator.set_url_lifetime(Duration::from_secs(60));
    let fresh = provider.refresh(&listed).unwrap();
    assert_eq!((&fresh.id, &fresh.locator), (&listed.id, &listed.locator));
    assert!(fresh.url.as_ref().unwrap().expires_at() > listed.url.unwrap().expires_at());
    assert_eq!(download(&fresh), b"some bytes");
    emulator.remove(fresh.id.as_str());
    assert!(matches!(
        provider.refresh(&fresh),
        Err(ProviderError::NotFound)
    ));
}

#[test]
fn an_upload_arrives_with_its_name_type_and_bytes_and_is_the_asset_that_is_listed() {
    let emulator = emulator();
    let bytes: Vec<u8> = (0..1_500_000u32).map(|i| (i % 253) as u8).collect();
    let sent = upload(Library::RunwayAudio, "été & co?.webm", "audio/webm", &bytes);
    let progress = Arc::clone(&sent.sent_bytes);
    let provider = runway(&emulator);
    let asset = provider.upload(sent).unwrap();
    assert_eq!(progress.load(Ordering::Relaxed), 1_500_000);
    let stored = emulator.runway_assets();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].name.as_deref(), Some("été & co?.webm"));
    assert_eq!(stored[0].content_type, "audio/webm");
    assert!(stored[0].content.verify(0, &bytes) && stored[0].size_bytes() == 1_500_000);
    let listed = provider.list(Library::RunwayAudio).unwrap();
    assert_eq!(
        (&listed[0].id, &listed[0].locator),
        (&asset.id, &asset.locator)
    );
    assert_eq!(
        (&listed[0].name, listed[0].size_bytes),
        (&asset.name, asset.size_bytes)
    );
    assert_eq!(listed[0].created_at, asset.created_at);
    assert!(download(&asset) == bytes);
}

#[test]
fn a_lost_answer_is_told_and_the_asset_is_there_exactly_once() {
    let emulator = emulator();
    fault(&emulator, "POST", 1, Effect::AnswerLostAfterWork);
    let lost = upload_png(&emulator).unwrap_err();
    assert!(matches!(lost, ProviderError::AnswerLost(_)), "{lost}");
    assert_eq!(emulator.runway_assets().len(), 1);
}

#[test]
fn an_upload_that_breaks_or_fails_midway_is_a_lost_answer_and_is_not_repeated() {
    for effect in [
        Effect::DropWhileReceiving(100_000),
        Effect::html(502),
        Effect::status(500),
        Effect::MalformedJson,
    ] {
        let emulator = emulator();
        fault(&emulator, "POST", 1, effect.clone());
        let lost = upload_png(&emulator).unwrap_err();
        assert!(
            matches!(lost, ProviderError::AnswerLost(_)),
            "{effect:?}: {lost}"
        );
        assert_eq!(emulator.requests().len(), 1, "{effect:?}");
    }
}

#[test]
fn an_upload_never_goes_to_a_connection_that_was_idle() {
    let emulator = emulator();
    let provider = runway(&emulator);
    for _ in 0..2 {
        provider.list(Library::RunwayImage).unwrap();
        let bytes = upload(Library::RunwayImage, "a.png", "image/png", b"x");
        provider.upload(bytes).unwrap();
    }
    let requests = emulator.requests();
    let connections = |method: &str| -> BTreeSet<u64> {
        let of_method = requests.iter().filter(|r| r.method == method);
        of_method.map(|r| r.connection_id).collect()
    };
    assert_eq!(connections("GET").len(), 1, "calls share a connection");
    assert_eq!(connections("POST").len(), 2);
    assert!(connections("POST").is_disjoint(&connections("GET")));
}

#[test]
fn a_refused_upload_says_why_and_leaves_nothing() {
    let emulator = emulator();
    let webp = upload(Library::RunwayImage, "a.webp", "image/webp", b"x");
    let refused = runway(&emulator).upload(webp).unwrap_err();
    assert!(
        matches!(refused, ProviderError::Refused { status: 400, .. }),
        "{refused}"
    );
    assert!(emulator.runway_assets().is_empty());
}

#[test]
fn a_deleted_asset_is_gone_and_deleting_it_again_says_so() {
    let emulator = emulator();
    add_videos(&emulator, 2);
    let provider = runway(&emulator);
    let listed = provider.list(Library::RunwayVideo).unwrap();
    provider.delete(&listed[0]).unwrap();
    let left = provider.list(Library::RunwayVideo).unwrap();
    assert_eq!(ids(&left), ids(&listed[1..]));
    assert!(matches!(
        provider.delete(&listed[0]),
        Err(ProviderError::NotFound)
    ));
}

#[test]
fn passing_faults_are_not_seen_in_a_listing() {
    for effect in [
        Effect::DropBeforeAnswer,
        Effect::CutBodyAfter(200),
        Effect::html(502),
        Effect::status(503),
        Effect::MalformedJson,
        Effect::retry_after(429, 1),
        Effect::Silent,
    ] {
        let emulator = emulator();
        let videos = add_videos(&emulator, 120);
        fault(&emulator, "GET", 2, effect.clone());
        let listed = runway(&emulator).list(Library::RunwayVideo);
        assert_eq!(ids(&listed.unwrap()), videos, "{effect:?}");
    }
}

#[test]
fn assets_that_come_and_go_while_listing_cost_no_other_asset() {
    let emulator = emulator();
    let mut videos = add_videos(&emulator, 120);
    let gone: Vec<String> = videos.iter().take(3).cloned().collect();
    let first_page = |effect| {
        let first = Fault::at(HostKind::Useapi).path("offset=0&").times(1);
        emulator.add_fault(first.does(effect));
    };
    for id in &gone {
        first_page(Effect::ThenRemove(id.clone()));
        let listed = ids(&runway(&emulator).list(Library::RunwayVideo).unwrap());
        videos.remove(id);
        assert!(
            listed.is_superset(&videos),
            "lost {:?}",
            videos.difference(&listed)
        );
    }
    let new = RunwayAsset::named("new.mp4", small());
    first_page(Effect::ThenAdd(Box::new(new)));
    let listed = ids(&runway(&emulator).list(Library::RunwayVideo).unwrap());
    assert!(listed.is_superset(&videos));
}

#[test]
fn a_page_that_stays_bad_fails_the_listing() {
    let emulator = emulator();
    add_videos(&emulator, 120);
    let bad = Fault::at(HostKind::Useapi).path("offset=98");
    emulator.add_fault(bad.does(Effect::Json(json!({ "assets": [] }))));
    let error = runway(&emulator).list(Library::RunwayVideo).unwrap_err();
    assert!(matches!(error, ProviderError::Malformed(_)), "{error}");
}

#[test]
fn a_rate_limit_beyond_the_deadline_is_told_with_its_wait() {
    let emulator = emulator();
    fault(&emulator, "GET", 1, Effect::retry_after(429, 120));
    let error = runway(&emulator).list(Library::RunwayVideo).unwrap_err();
    let ProviderError::RateLimited {
        retry_after: Some(wait),
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(wait, Duration::from_secs(120));
}

#[test]
fn a_wrong_token_names_the_variable_and_is_never_printed() {
    let emulator = emulator();
    let api = client(&emulator.useapi_url(), "user:9-wrong", deadlines());
    let error = RunwayProvider::new(api, None)
        .list(Library::RunwayVideo)
        .unwrap_err();
    assert!(
        matches!(&error, ProviderError::Denied(text) if text.contains("USEAPI_TOKEN")),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("user:9-wrong"));
}

#[test]
fn a_broken_account_and_a_spent_quota_are_told_apart() {
    let emulator = emulator();
    fault(&emulator, "GET", 1, Effect::status(596));
    let error = runway(&emulator).list(Library::RunwayVideo).unwrap_err();
    assert!(
        matches!(&error, ProviderError::Denied(text) if text.contains("useapi.net")),
        "{error}"
    );
    fault(&emulator, "GET", 1, Effect::status(402));
    let error = runway(&emulator).list(Library::RunwayVideo).unwrap_err();
    assert!(matches!(error, ProviderError::Quota(_)), "{error}");
}

#[test]
fn the_token_never_reaches_the_asset_host_even_by_a_redirect() {
    let emulator = emulator();
    let id = add_videos(&emulator, 1).pop_first().unwrap();
    let elsewhere = emulator.signed_url(&id).unwrap();
    fault(&emulator, "GET", 1, Effect::Redirect(elsewhere));
    let error = runway(&emulator).list(Library::RunwayVideo).unwrap_err();
    assert!(
        matches!(
            &error,
            ProviderError::Unavailable {
                source: TransportError::ForbiddenTarget { .. },
                ..
            }
        ),
        "{error}"
    );
    assert!(
        emulator
            .requests()
            .iter()
            .all(|r| r.host == HostKind::Useapi)
    );
    assert_eq!(emulator.refusals().tokens, 0);
}

#[test]
fn ltx_lists_each_library_whole_and_renews_by_page() {
    let emulator = emulator();
    let images = add_images(&emulator, 230);
    emulator.add_ltx(LtxAsset::new("video/mp4", small()));
    let provider = ltx(&emulator);
    let listed = provider.list(Library::LtxImages).unwrap();
    assert_eq!(ids(&listed), images);
    assert_eq!(listed[0].mime_type.as_deref(), Some("image/png"));
    assert_eq!(provider.list(Library::LtxVideos).unwrap().len(), 1);
    assert!(provider.list(Library::LtxAudio).unwrap().is_empty());
    emulator.clear_requests();
    let fresh = provider.refresh(&listed[120]).unwrap();
    assert_eq!((&fresh.id, fresh.locator.as_str()), (&listed[120].id, "3"));
    assert_eq!(emulator.requests().len(), 1);
    assert_eq!(download(&fresh), b"some bytes");
    emulator.remove(fresh.id.as_str());
    assert!(matches!(
        provider.refresh(&fresh),
        Err(ProviderError::NotFound)
    ));
}

#[test]
fn passing_faults_are_not_seen_in_an_ltx_listing() {
    for effect in [
        Effect::DropBeforeAnswer,
        Effect::html(522),
        Effect::MalformedJson,
    ] {
        let emulator = emulator();
        let images = add_images(&emulator, 120);
        fault(&emulator, "GET", 2, effect.clone());
        let listed = ltx(&emulator).list(Library::LtxImages);
        assert_eq!(ids(&listed.unwrap()), images, "{effect:?}");
    }
}

#[test]
fn an_ltx_page_without_a_list_is_an_error() {
    let emulator = emulator();
    add_images(&emulator, 3);
    let odd = Fault::at(HostKind::Useapi).does(Effect::Json(json!({ "items": "none" })));
    emulator.add_fault(odd);
    let error = ltx(&emulator).list(Library::LtxImages).unwrap_err();
    assert!(matches!(error, ProviderError::Malformed(_)), "{error}");
}

#[test]
fn runflow_finds_an_asset_by_its_uuid_and_nothing_else() {
    let emulator = emulator();
    let named = || RunflowAsset::new("hero.png", "image/png", small());
    emulator.add_runflow(named().with_id(UUID));
    let gone = emulator.add_runflow(named().deleted());
    let provider = runflow(&emulator);
    let asset = provider.find(&AssetId::new(UUID)).unwrap();
    assert_eq!(
        (asset.name.as_deref(), asset.size_bytes),
        (Some("hero.png"), Some(10))
    );
    assert_eq!(asset.mime_type.as_deref(), Some("image/png"));
    assert_eq!(download(&asset), b"some bytes");
    assert_ne!(
        provider.refresh(&asset).unwrap().url,
        asset.url,
        "a fresh one"
    );
    for unknown in [gone.as_str(), "00000000-0000-4000-8000-000000000000"] {
        let found = provider.find(&AssetId::new(unknown));
        assert!(matches!(found, Err(ProviderError::NotFound)), "{unknown}");
    }
}

#[test]
fn runflow_sends_its_organization_and_names_its_own_token() {
    let emulator = Emulator::start(EmulatorConfig {
        runflow_organization: Some("org-1".into()),
        ..EmulatorConfig::default()
    })
    .unwrap();
    emulator.add_runflow(RunflowAsset::new("a", "image/png", small()).with_id(UUID));
    let find = |token: &str, organization: &str| {
        let api = client(&emulator.runflow_url(), token, deadlines());
        RunflowProvider::new(api, Some(organization.into())).find(&AssetId::new(UUID))
    };
    assert!(find(&emulator.runflow_token(), "org-1").is_ok());
    assert!(find(&emulator.runflow_token(), "org-2").is_err());
    let error = find("wrong", "org-1").unwrap_err();
    assert!(
        matches!(&error, ProviderError::Denied(text) if text.contains("RUNFLOW_TOKEN")),
        "{error}"
    );
}

// ---- requests a listing costs ----

#[test]
fn a_listing_asks_for_no_page_twice_and_for_few_in_vain() {
    // Of Runway, waves of 1, 3 and 10 pages of 50 that overlap by one asset; behind a short first
    // page the next asset, once. LTX tells its pages.
    for (count, runway_requests, ltx_requests) in [
        (0, 1..=1, 1),
        (7, 2..=2, 1),
        (60, 4..=4, 2),
        (1000, 21..=22, 20),
    ] {
        let emulator = emulator();
        for n in 0..count {
            let name = format!("{n}.mp4");
            emulator.add_runway(RunwayAsset::named(&name, Content::synthetic(1, n)));
            emulator.add_ltx(LtxAsset::new("video/mp4", Content::synthetic(1, n)));
        }
        let asked = |provider: &dyn Provider, library| {
            emulator.clear_requests();
            assert_eq!(provider.list(library).unwrap().len(), count as usize);
            let pages = emulator.requests().into_iter().map(|r| r.path_and_query);
            let pages: Vec<String> = pages.collect();
            let different: BTreeSet<&String> = pages.iter().collect();
            assert_eq!(different.len(), pages.len(), "{pages:?}");
            pages.len()
        };
        let api = useapi(&emulator);
        let runway = RunwayProvider::new(api.clone(), None);
        let asked_runway = asked(&runway, Library::RunwayVideo);
        assert!(runway_requests.contains(&asked_runway), "{asked_runway}");
        let ltx = LtxProvider::new(api, None);
        assert_eq!(asked(&ltx, Library::LtxVideos), ltx_requests);
    }
}
