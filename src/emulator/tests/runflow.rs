use serde_json::json;

use super::*;

const ID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

fn holding(asset: RunflowAsset) -> Bench {
    let bench = Bench::new();
    bench.emulator.add_runflow(asset.with_id(ID));
    bench
}

fn clip() -> RunflowAsset {
    RunflowAsset::new("Clip.mp4", "video/mp4", Content::stored("clip"))
}

fn get(bench: &Bench, rest: &str) -> Response {
    bench.runflow(&format!("/v1/assets/{rest}")).send().unwrap()
}

/// An error in Runflow's own shape.
fn error(response: Response, status: u16) -> Value {
    assert_eq!(response.status(), status);
    let error: Value = response.json().unwrap();
    assert!(error["code"].is_string() && error["message"].is_string());
    assert!(error.get("errors").is_some() && error.get("error").is_none());
    error
}

#[test]
fn an_asset_has_the_shape_of_the_page() {
    let bench = holding(clip());
    let asset = page(get(&bench, ID));
    assert_eq!(asset["id"], ID);
    assert_eq!(asset["name"], "Clip.mp4");
    assert_eq!(asset["mime_type"], "video/mp4");
    assert_eq!(asset["size_bytes"], 4);
    assert_eq!(asset["created_at"], "2023-11-14T22:13:20Z");
    assert_eq!(asset["created_by_user"], Value::Null);
    assert_eq!(bench.download(&asset["url"]), b"clip");
    assert_ne!(page(get(&bench, ID))["url"], asset["url"]);
    assert_eq!(page(get(&bench, &ID.to_uppercase()))["id"], ID);
}

#[test]
fn only_documented_embeds_are_embedded() {
    let bench = holding(clip());
    let embedded = page(get(&bench, &format!("{ID}?embed=created_by_user")));
    assert!(embedded["created_by_user"]["email"].is_string());
    let refused = error(
        get(&bench, &format!("{ID}?embed=created_by_user,folder")),
        422,
    );
    assert!(refused["errors"]["embed"].is_array());
}

#[test]
fn unknown_ids_paths_parameters_and_methods_are_refused_in_its_own_shape() {
    let bench = holding(clip());
    error(get(&bench, "3c90c3cc-0d44-4b50-8888-8dd257360000"), 404);
    error(get(&bench, "not-a-uuid"), 422);
    error(get(&bench, &ID.replace('-', "")), 422);
    error(get(&bench, ""), 404);
    error(get(&bench, &format!("{ID}/")), 404);
    error(get(&bench, &format!("{ID}?fields=url")), 400);
    let url = format!("{}/v1/assets/{ID}", bench.emulator.runflow_url());
    let delete = bench.bare(Method::DELETE, &url).send().unwrap();
    assert_eq!(header(&delete, "allow"), "GET");
    error(delete, 405);
    error(bench.bare(Method::GET, &url).send().unwrap(), 401);
    let useapis = bench
        .bare(Method::GET, &url)
        .bearer_auth(bench.emulator.useapi_token());
    error(useapis.send().unwrap(), 401);
}

#[test]
fn another_organization_is_refused() {
    let bench = Bench::with(|config| config.runflow_organization = Some("ours".into()));
    bench.emulator.add_runflow(clip().with_id(ID));
    let within = |organization: &str| {
        let request = bench.runflow(&format!("/v1/assets/{ID}"));
        request
            .header("X-Organization-Id", organization)
            .send()
            .unwrap()
    };
    assert_eq!(page(within("ours"))["org_id"], "ours");
    error(within("theirs"), 403);
    page(get(&bench, ID));
}

#[test]
fn a_deleted_asset_says_so_and_has_no_url() {
    let bench = holding(clip().deleted());
    let asset = page(get(&bench, ID));
    assert!(asset["deleted_at"].is_string());
    assert!(asset["url"].is_null());
}

#[test]
fn every_field_can_be_null() {
    let patch =
        json!({"id": null, "name": null, "url": null, "size_bytes": null, "mime_type": null});
    let bench = holding(clip().with_json_patch(patch.clone()));
    let asset = page(get(&bench, ID));
    for name in patch.as_object().unwrap().keys() {
        assert!(asset.as_object().unwrap()[name].is_null(), "{name}");
    }
}
