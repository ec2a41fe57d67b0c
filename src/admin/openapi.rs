//! The admin API's description of itself: OpenAPI 3.1, made of the [`Operation`]s that are served and of the shapes
//! of [`view`].

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    operation::{Answer, Operation},
    view,
};

/// The whole document.
pub(super) fn document<S: Send + Sync + 'static>(operations: &[Operation<S>]) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with(|it| it.definitions_path = "/components/schemas".into());
    let mut schemas = settings.into_generator();
    let failure = json!({
        "description": "Refused: what is wrong, and what would be right",
        "content": { "application/json": { "schema": schemas.subschema_for::<view::Failure>() } },
    });
    let mut paths = Map::new();
    for operation in operations {
        let methods = paths.entry(operation.path).or_insert_with(|| json!({}));
        methods[operation.method.as_str().to_ascii_lowercase()] = described(operation, &mut schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "homing admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a running homing shows, and what operators change while it runs. Beyond loopback all \
                            but /metrics, /healthz and /readyz ask for the token of `admin.token_file`.",
        },
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "responses": { "failure": failure },
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn described<S: Send + Sync + 'static>(operation: &Operation<S>, schemas: &mut SchemaGenerator) -> Value {
    let content = match operation.answer {
        Answer::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Answer::Json(schema) => json!({ "application/json": { "schema": schema(schemas) } }),
    };
    let mut responses = json!({ "200": { "description": operation.summary, "content": content } });
    if let Some((status, when)) = operation.also {
        responses[status.to_string()] = json!({ "description": when, "content": content });
    }
    let mut described = json!({
        "operationId": id(operation),
        "summary": operation.summary,
        "responses": responses,
    });
    if operation.is_open {
        described["security"] = json!([{}]);
    } else {
        described["responses"]["default"] = json!({ "$ref": "#/components/responses/failure" });
    }
    let in_path = operation
        .path_parameters()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = operation.query.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "required": parameter.is_required,
            "description": parameter.what,
            "schema": { "type": "string" },
        })
    });
    let parameters: Vec<_> = in_path.chain(in_query).collect();
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    described
}

/// What generated clients call it: `get_pools_name`.
fn id<S: Send + Sync + 'static>(operation: &Operation<S>) -> String {
    let words = operation.path.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !["", "api", "v1"].contains(word));
    words.fold(operation.method.as_str().to_ascii_lowercase(), |id, word| id + "_" + word)
}
