use super::{
    template::Template,
    texts::{Keys, Kind},
    *,
};
use crate::config::{Disk, files::Source, problem::Report, yaml::Node};

/// What is read of `x: yaml`; `None`: something is wrong with it.
fn texts(kind: Kind, yaml: &str) -> Option<Texts> {
    let report = Report::default();
    let source = Source { file: std::path::Path::new("x").into(), files: &Disk, report: &report };
    let tree = Node::parse(&format!("x: {yaml}")).ok()?;
    let keys = Keys { list: "value", kind };
    let texts = Object::read_root(&source, &tree, |o| o.object("x", |o| Texts::read(o, keys)));
    report.into_result().ok().and(texts??)
}

#[test]
fn a_text_is_compared_as_its_criteria_say() {
    for (criteria, case, text, value, fits) in [
        ("equals", "sensitive", "/a", "/a", true),
        ("equals", "sensitive", "/a", "/A", false),
        ("equals", "insensitive", "/a", "/A", true),
        ("does_not_equal", "sensitive", "/a", "/a", false),
        ("begins_with", "sensitive", "/a", "/ab", true),
        ("begins_with", "sensitive", "/ab", "/a", false),
        ("BEGINS_WITH", "INSENSITIVE", "/a", "/AB", true),
        ("does_not_begin_with", "sensitive", "/a", "/b", true),
        ("ends_with", "sensitive", ".js", "/x.js", true),
        ("ends_with", "sensitive", "/x.js", ".js", false),
        ("ends_with", "insensitive", ".js", "/x.JS", true),
        ("contains", "sensitive", "b", "abc", true),
        ("contains", "sensitive", "B", "abc", false),
        ("contains", "insensitive", "B", "abc", true),
        ("contains", "insensitive", "abcd", "abc", false),
        ("does_not_contain", "sensitive", "b", "abc", false),
        ("regex_match", "sensitive", "^/[0-9]+$", "/12", true),
        ("regex_match", "sensitive", "^/[0-9]+$", "/1x", false),
        ("regex_match", "insensitive", "^/x$", "/X", true),
        ("regex_does_not_match", "sensitive", "^/x$", "/x", false),
    ] {
        let yaml =
            format!("{{match_criteria: {criteria}, match_case: {case}, value: ['{text}', 'nothing']}}");
        let texts = texts(Kind::Plain, &yaml).unwrap_or_else(|| panic!("{yaml}"));
        assert_eq!(texts.fits(value), fits, "{yaml} {value}");
    }
}

#[test]
fn a_field_may_be_missing_or_there_twice() {
    let any = |criteria: &str, list: &str, values: &[&str]| {
        let yaml = format!("{{match_criteria: {criteria}{list}}}");
        texts(Kind::Field, &yaml).unwrap_or_else(|| panic!("{yaml}")).fit(values.iter().copied())
    };
    for (criteria, list, values, fits) in [
        ("exists", "", &[][..], false),
        ("exists", "", &[""], true),
        ("does_not_exist", "", &[], true),
        ("does_not_exist", "", &["x"], false),
        ("equals", ", value: [b]", &[], false),
        ("equals", ", value: [b]", &["a", "b"], true),
        ("does_not_equal", ", value: [b]", &[], true),
        ("does_not_equal", ", value: [b]", &["a", "b"], false),
    ] {
        assert_eq!(any(criteria, list, values), fits, "{criteria} {values:?}");
    }
}

#[test]
fn what_follows_a_text_and_groups_can_be_told() {
    let begins =
        texts(Kind::Plain, "{match_criteria: begins_with, value: [/old/, /older]}").expect("it is right");
    assert_eq!(
        (begins.rest("/old/x"), begins.rest("/older/x"), begins.rest("/x")),
        (Some("x"), Some("/x"), None)
    );
    let regex = texts(Kind::Plain, "{match_criteria: regex_match, value: ['^/(a)/(.*)$', '^/(b)$']}");
    let regex = regex.expect("it is right");
    assert_eq!(regex.groups(), 1, "so many have both");
    assert_eq!(
        (regex.group("/a/x", 2), regex.group("/b", 1), regex.group("/c", 1)),
        (Some("x"), Some("b"), None)
    );
}

#[test]
fn a_regular_expression_that_is_none_or_too_large_is_refused() {
    for wrong in ["(", "(?=x)", "\\\\1", "(x{1000}){1000}"] {
        let yaml = format!("{{match_criteria: regex_match, value: [\"{wrong}\"]}}");
        assert_eq!(texts(Kind::Plain, &yaml), None, "{wrong}");
    }
}

#[test]
fn a_template_is_texts_and_variables() {
    let filled = |text: &str| {
        let template = Template::parse(text).ok()?;
        let mut filled = String::new();
        template.fill(&mut filled, |variable, text| *text += &format!("<{variable:?}>"));
        Some(filled)
    };
    for (text, expected) in [
        ("plain", Some("plain")),
        ("{host}", Some("<Host>")),
        ("a{path}b{query}", Some("a<Path>b<Query>")),
        ("{1}{9}", Some("<Group(1)><Group(9)>")),
        ("{{host}}", Some("{host}")),
        ("a{{{host}}}b", Some("a{<Host>}b")),
        ("{0}", None),
        ("{hots}", None),
        ("{", None),
        ("}", None),
        ("a{host", None),
    ] {
        assert_eq!(filled(text).as_deref(), expected, "{text}");
    }
}
