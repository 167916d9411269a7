//! `GET /api/v1/openapi.json`: OpenAPI 3.1, made from the table that the requests are answered by.

use super::fields::{Field, ID_MAX, Kind, NAMES_MAX};
use super::routes::{Route, all};
use super::schemas::{SCHEMAS, quoted, text as schema};
use crate::core::access::Act;
use crate::director::site::Site;

/// The document of a running Fleet.
pub fn text(site: &Site) -> String {
    made(&site.about.borrow().url)
}

/// The document for clients that reach the server here.
pub fn made(url: &str) -> String {
    let mut paths: Vec<&str> = Vec::new();
    for route in all() {
        if !paths.contains(&route.path) {
            paths.push(route.path);
        }
    }
    let of = |path: &str| {
        let operations: Vec<String> = all().filter(|r| r.path == path).map(operation).collect();
        format!("{}:{{{}}}", quoted(path), operations.join(","))
    };
    let paths: Vec<String> = paths.into_iter().map(of).collect();
    let schemas: Vec<String> = SCHEMAS.iter().map(|s| format!("{}:{}", quoted(s.name), schema(s))).collect();
    format!(
        "{{\"openapi\":\"3.1.0\",\"info\":{{\"title\":\"vmetric-fleet\",\"version\":{},\"description\":{}}},\"servers\":[{{\"url\":{}}}],\
         \"security\":[{{\"token\":[]}}],\"paths\":{{{}}},\"components\":{{\"securitySchemes\":{{\"token\":{{\"type\":\"http\",\
         \"scheme\":\"bearer\",\"description\":\"A token of `vmetric-fleet token create`.\"}}}},\"schemas\":{{\
         \"Document\":{{\"type\":\"object\",\"description\":\"An OpenAPI document.\"}},{}}}}}}}",
        quoted(env!("VMETRIC_BUILT_VERSION")),
        quoted("Fleet decides for the Directors of an organization. Times are seconds since 1970; codes are stable."),
        quoted(url),
        paths.join(","),
        schemas.join(","),
    )
}

fn operation(route: &Route) -> String {
    let place = route.place.iter().map(|field| parameter(field, "path"));
    let parameters: Vec<String> = place.chain(route.query.iter().map(|field| parameter(field, "query"))).collect();
    let body = route.body.map_or(String::new(), |fields| format!(",\"requestBody\":{}", body(fields)));
    let (security, who) = match route.need {
        None => (",\"security\":[]", " Needs no token.".to_string()),
        Some(Act::Look) => ("", String::new()),
        Some(act) => ("", format!(" Needs a token of the role {}.", act.lowest())),
    };
    format!(
        "{}:{{\"operationId\":{},\"summary\":{},\"parameters\":[{}]{body}{security},\"responses\":{{\"{}\":{},\"default\":{}}}}}",
        quoted(&route.method.to_ascii_lowercase()),
        quoted(route.id),
        quoted(&format!("{}{who}", route.about)),
        parameters.join(","),
        route.success,
        response("What was asked for.", route.answer),
        response("Why not.", "Error"),
    )
}

fn response(about: &str, schema: &str) -> String {
    format!(
        "{{\"description\":{},\"content\":{{\"application/json\":{{\"schema\":{{\"$ref\":\"#/components/schemas/{schema}\"}}}}}}}}",
        quoted(about)
    )
}

fn parameter(field: &Field, place: &str) -> String {
    format!(
        "{{\"name\":{},\"in\":\"{place}\",\"required\":{},\"description\":{},\"schema\":{}}}",
        quoted(field.name),
        field.required,
        quoted(field.about),
        kind(field.kind)
    )
}

fn body(fields: &[Field]) -> String {
    let required: Vec<String> = fields.iter().filter(|f| f.required).map(|f| quoted(f.name)).collect();
    let one = |f: &Field| {
        let schema = kind(f.kind);
        format!("{}:{{\"description\":{},{}", quoted(f.name), quoted(f.about), &schema[1..])
    };
    let properties: Vec<String> = fields.iter().map(one).collect();
    format!(
        "{{\"required\":{},\"content\":{{\"application/json\":{{\"schema\":{{\"type\":\"object\",\"additionalProperties\":false,\
         \"required\":[{}],\"properties\":{{{}}}}}}}}}}}",
        !required.is_empty(),
        required.join(","),
        properties.join(",")
    )
}

/// A kind as a schema.
fn kind(kind: Kind) -> String {
    // Without the control characters that the reader refuses, too.
    let text = |max: usize| {
        format!("{{\"type\":\"string\",\"minLength\":1,\"maxLength\":{max},\"pattern\":\"^[^\\\\u0000-\\\\u001f\\\\u007f-\\\\u009f]+$\"}}")
    };
    match kind {
        Kind::Text(max) => text(max),
        Kind::Word(words) => {
            let words: Vec<String> = words.iter().map(|w| quoted(w)).collect();
            format!("{{\"type\":\"string\",\"enum\":[{}]}}", words.join(","))
        }
        Kind::Number(low, high) => format!("{{\"type\":\"integer\",\"minimum\":{low},\"maximum\":{high}}}"),
        Kind::Flag => "{\"type\":\"boolean\"}".into(),
        Kind::Texts => format!("{{\"type\":\"array\",\"minItems\":1,\"maxItems\":{NAMES_MAX},\"items\":{}}}", text(ID_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use miniserde::json::{self, Object, Value};

    use super::super::schemas::HOLDS;
    use super::*;

    fn object<'v>(value: &'v Value, name: &str) -> &'v Object {
        match value {
            Value::Object(object) => match object.get(name) {
                Some(Value::Object(found)) => found,
                other => panic!("{name}: {other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn document() -> Value {
        json::from_str(&made("https://fleet.example.org:8443")).expect("the document is JSON")
    }

    #[test]
    fn the_document_has_every_route_and_nothing_else() {
        let document = document();
        let mut told = BTreeSet::new();
        for (path, operations) in object(&document, "paths") {
            let Value::Object(operations) = operations else { panic!("{path}") };
            for (method, operation) in operations {
                let Value::Object(operation) = operation else { panic!("{path} {method}") };
                let Some(Value::String(summary)) = operation.get("summary") else { panic!("{path} {method}") };
                assert!(summary.len() > 10 && summary.ends_with('.'), "{method} {path} has no description: '{summary}'");
                told.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let routes: BTreeSet<String> = all().map(|r| format!("{} {}", r.method, r.path)).collect();
        assert_eq!(routes.len(), all().count(), "a route is there twice");
        assert_eq!(told, routes);
        let ids: BTreeSet<&str> = all().map(|r| r.id).collect();
        assert!(ids.len() == all().count() && !ids.contains(""), "operation ids are unique");
    }

    #[test]
    fn every_value_and_every_answer_is_described() {
        let document = document();
        let Value::Object(components) = &document else { panic!() };
        let schemas: BTreeSet<&String> = object(&components["components"], "schemas").keys().collect();
        for route in all() {
            assert!(schemas.contains(&route.answer.to_string()), "{}: no schema {}", route.path, route.answer);
            let in_path = route.path.split('/').find_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            assert_eq!(in_path, route.place.as_ref().map(|f| f.name), "{}", route.path);
            let fields = route.place.iter().chain(route.query).chain(route.body.unwrap_or_default());
            for field in fields {
                assert!(field.about.len() > 10 && field.about.ends_with('.'), "{}: {}", route.path, field.name);
            }
            assert!(route.method == "GET" || route.need.is_some_and(|act| act != Act::Look), "{} {}: who may", route.method, route.path);
        }
        let text = made("https://fleet.example.org");
        for schema in SCHEMAS {
            assert!(text.contains(&format!("schemas/{}\"", schema.name)), "{} is used nowhere", schema.name);
        }
        // A table that names a field which is gone would describe nothing.
        for (place, what) in HOLDS {
            let (name, field) = place.split_once('.').unwrap();
            let schema = object(object_of(&document), "schemas").get(name).unwrap_or_else(|| panic!("{place}"));
            assert!(object(schema, "properties").contains_key(field), "{place}");
            let plain = what.trim_matches(['[', ']']);
            assert!(matches!(plain, "string" | "integer" | "boolean") || schemas.contains(&plain.to_string()), "{place}: {what}");
        }
    }

    fn object_of(document: &Value) -> &Value {
        match document {
            Value::Object(object) => &object["components"],
            other => panic!("{other:?}"),
        }
    }
}
