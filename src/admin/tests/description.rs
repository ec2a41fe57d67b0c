//! The description is of what is answered, and what is answered is described.

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::*;

async fn described(admin: &Running) -> Value {
    let (status, answer) = admin.ask("GET /api/v1/openapi.json").await;
    assert_eq!(status, 200, "{answer}");
    body(&answer)
}

fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    serde_json::from_str(body).expect("it is JSON")
}

/// Takes what a schema of the document takes, and no field that none of its schemas has.
fn validator(document: &Value, schema: &Value) -> Validator {
    let mut components = document["components"]["schemas"].clone();
    for schema in components.as_object_mut().expect("there are some").values_mut() {
        schema["unevaluatedProperties"] = false.into();
    }
    let whole = json!({ "$ref": "#/schema", "schema": schema, "components": { "schemas": components } });
    jsonschema::draft202012::new(&whole).expect("it is a schema")
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let methods = |of: &Value| of.as_object().expect("methods").clone();
    let all = paths.iter().flat_map(|(path, of)| {
        methods(of).into_iter().map(move |(method, it)| (method.to_uppercase(), path.clone(), it))
    });
    all.collect()
}

/// What the examples have in place of the names in a path, and what a query needs.
fn filled(path: &str, operation: &Value) -> String {
    let pool = if path.contains("/servers/") { "pay" } else { "SP-gs-1-pay@site_A" };
    let name = match path {
        _ if path.contains("/virtualservices/") => "pay@site_A",
        _ if path.contains("/gslbservices/") => "gs-1",
        _ if path.contains("/sites/") => "site_A",
        _ => pool,
    };
    let path = path.replace("{name}", name).replace("{addr}", "127.0.0.1:11301").replace("{order}", "drain");
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let needed = parameters.iter().filter(|it| it["in"] == "query" && it["required"] == true);
    let query = needed.map(|it| match it["name"].as_str().expect("a name") {
        "for" => "for=30m",
        "token" => "token=alice",
        "server" => "server=127.0.0.1:1&force=true",
        "cookie" => "cookie=1S",
        "client" => "client=192.0.2.1",
        "name" => "name=a.com",
        other => panic!("{path} needs {other}"),
    });
    let query = query.collect::<Vec<_>>().join("&");
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

#[tokio::test]
async fn every_operation_that_is_described_is_answered_as_described() {
    let admin = Running::start("127.0.0.1:0", &[], Terms::default()).await;
    let document = described(&admin).await;
    let operations = operations(&document);
    assert!(operations.len() > 20, "{}", operations.len());
    for (method, path, operation) in operations {
        let (status, answer) = admin.ask(&format!("{method} {}", filled(&path, &operation))).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        let content = &operation["responses"]["200"]["content"];
        let (kind, content) = content.as_object().and_then(|it| it.iter().next()).expect("a content type");
        assert!(answer.contains(&format!("content-type: {kind}")), "{method} {path}: {answer}");
        if kind == "application/json" {
            let validator = validator(&document, &content["schema"]);
            let wrong: Vec<_> = validator
                .iter_errors(&body(&answer))
                .map(|it| format!("{}: {it}", it.instance_path()))
                .collect();
            assert!(wrong.is_empty(), "{method} {path}: {wrong:#?}\n{answer}");
            assert!(!validator.is_valid(&json!("something else")), "{path}: {}", content["schema"]);
        }
        let names = path.matches('{').count();
        let declared = operation["parameters"].as_array().cloned().unwrap_or_default();
        assert_eq!(declared.iter().filter(|it| it["in"] == "path").count(), names, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_described_is_refused_in_the_shape_of_a_failure() {
    let admin = Running::start("127.0.0.1:0", &[], Terms::default()).await;
    let document = described(&admin).await;
    let failure = &document["components"]["responses"]["failure"]["content"]["application/json"]["schema"];
    let validator = validator(&document, failure);
    let mut paths = Map::new();
    for (method, path, operation) in operations(&document) {
        let methods = paths.entry(filled(&path, &operation)).or_insert_with(|| json!([]));
        methods.as_array_mut().expect("a list").push(method.into());
    }
    for (path, described) in &paths {
        let methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        let described = described.as_array().expect("a list");
        // Of these a query may belong to one method only.
        let alone = path.split('?').next().expect("a path");
        let elsewhere = |method: &Value| {
            paths.iter().any(|(other, methods)| {
                other.split('?').next() == Some(alone)
                    && methods.as_array().is_some_and(|it| it.contains(method))
            })
        };
        for method in methods.iter().filter(|it| !described.contains(&json!(it)) && !elsewhere(&json!(it))) {
            let (status, answer) = admin.ask(&format!("{method} {path}")).await;
            assert_eq!(status, 405, "{method} {path}: {answer}");
            assert!(validator.is_valid(&body(&answer)), "{method} {path}: {answer}");
        }
    }
    for request in ["GET /", "GET /api/v1", "GET /api/v1/pools/nothing", "POST /api/v1/gslb/sites/x/drain"] {
        let (status, answer) = admin.ask(request).await;
        assert!(status >= 400, "{request}: {answer}");
        assert!(validator.is_valid(&body(&answer)), "{request}: {answer}");
    }
    let (_, answer) = admin.ask("GET /api").await;
    for path in ["/metrics", "/api/v1/openapi.json", "POST /api/v1/reload", "DELETE /api/v1/sessions?token="]
    {
        assert!(answer.contains(path), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_refused_reload_has_the_shape_of_a_reload() {
    let admin = Running::start_with("127.0.0.1:0", &[], Terms::default(), example::refused_reload()).await;
    let document = described(&admin).await;
    let refused = &document["paths"]["/api/v1/reload"]["post"]["responses"]["422"];
    let validator = validator(&document, &refused["content"]["application/json"]["schema"]);
    let (status, answer) = admin.ask("POST /api/v1/reload").await;
    assert_eq!(status, 422, "{answer}");
    assert!(validator.is_valid(&body(&answer)), "{answer}");
}

#[tokio::test]
async fn every_operation_has_a_name_of_its_own_and_says_what_it_is_for() {
    let admin = Running::start("127.0.0.1:0", &[], Terms::default()).await;
    let document = described(&admin).await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = std::collections::BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].to_string()), "{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|it| !it.is_empty()), "{method} {path}");
        let open = ["/metrics", "/healthz", "/readyz"].contains(&path.as_str());
        assert_eq!(operation.get("security").is_some(), open, "{path}");
    }
}
