//! The admin API's description of itself, held against what a running homing answers.

use serde_json::{Value, json};

use crate::support::{
    client::Request,
    config::{APP, CLONES, Federation},
    eventually,
    homing::Homing,
    origin::Origin,
};

#[tokio::test]
async fn what_a_running_homing_answers_is_of_its_own_description() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let fed = Federation::new();
    let site = fed.site_a(&[&app]).clone_to(&[&clone]).monitored(APP, "http");
    let homing = site.start().await;
    Request::get("/").cookie("SID=ann").send(homing.addr).await;
    let table = format!("clone:web@site_A:{CLONES}");
    eventually("the session is known", async || {
        homing.json("/api/v1/sessions").await["tables"].to_string().contains(&table)
    })
    .await;

    let description = homing.json("/api/v1/openapi.json").await;
    let server = format!("/api/v1/pools/{APP}/servers/{}", app.addr);
    for (method, path, described) in [
        ("GET", "/api/v1/openapi.json".to_owned(), "/api/v1/openapi.json"),
        ("GET", "/api/v1/virtualservices".into(), "/api/v1/virtualservices"),
        ("GET", "/api/v1/virtualservices/web@site_A".into(), "/api/v1/virtualservices/{name}"),
        (
            "GET",
            "/api/v1/virtualservices/web@site_A/explain?cookie=x".into(),
            "/api/v1/virtualservices/{name}/explain",
        ),
        ("GET", "/api/v1/pools".into(), "/api/v1/pools"),
        ("GET", "/api/v1/pools/SP-gs-web@site_A".into(), "/api/v1/pools/{name}"),
        ("POST", format!("{server}/drain"), "/api/v1/pools/{name}/servers/{addr}/{order}"),
        ("POST", format!("{server}/enable"), "/api/v1/pools/{name}/servers/{addr}/{order}"),
        ("GET", "/api/v1/gslbservices/gs/runtime".into(), "/api/v1/gslbservices/{name}/runtime"),
        ("GET", "/api/v1/gslb/sites".into(), "/api/v1/gslb/sites"),
        ("POST", "/api/v1/gslb/sites/site_B/drain?for=30m".into(), "/api/v1/gslb/sites/{name}/drain"),
        ("GET", "/api/v1/gslb/sites/site_B".into(), "/api/v1/gslb/sites/{name}"),
        ("POST", "/api/v1/gslb/sites/site_B/undrain".into(), "/api/v1/gslb/sites/{name}/undrain"),
        ("GET", "/api/v1/keys".into(), "/api/v1/keys"),
        ("GET", format!("/api/v1/sessions?table={table}"), "/api/v1/sessions"),
        ("GET", "/api/v1/sessions/explain?token=ann".into(), "/api/v1/sessions/explain"),
        ("POST", format!("/api/v1/sessions/move?token=ann&server={}", clone.addr), "/api/v1/sessions/move"),
        ("DELETE", "/api/v1/sessions?token=ann".into(), "/api/v1/sessions"),
        ("POST", "/api/v1/reload".into(), "/api/v1/reload"),
        ("GET", "/api/v1/configuration".into(), "/api/v1/configuration"),
    ] {
        let operation = &description["paths"][described][method.to_lowercase()];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        check(&homing, method, &path, &description, schema).await;
    }
}

async fn check(homing: &Homing, method: &str, path: &str, description: &Value, schema: &Value) {
    assert!(schema.is_object(), "{method} {path} is described: {schema}");
    let whole = json!({ "$ref": "#/schema", "schema": schema, "components": description["components"] });
    let validator = jsonschema::draft202012::new(&whole).expect("it is a schema");
    let answer = Request::new(method, path).host("localhost").send(homing.admin).await;
    assert_eq!(answer.status, 200, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
    let answer: Value = serde_json::from_slice(&answer.body).expect("the API answers JSON");
    let wrong: Vec<_> = validator.iter_errors(&answer).map(|wrong| wrong.to_string()).collect();
    assert!(wrong.is_empty(), "{method} {path}: {wrong:#?}\n{answer:#}");
}
