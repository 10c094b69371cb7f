//! Are the interfaces of others on our side what they are on theirs?
//!
//! `published/<package>.txt` has one line per fact of the published interface, derived from its descriptors by a program; this
//! derives the same lines from ours. Derived from: container-storage-interface/spec v1.13.0, opiproject/opi-api 436ae83,
//! kubernetes/kubelet 63b3249 (pluginregistration/v1), kubevirt/kubevirt d923fdb (pkg/hooks), and googleapis-common-protos 1.76.0, of which only the part that our files use. A line:
//!
//! * `message`, `enum`, `service`: name, options
//! * `field`: name, number, label (`singular`, `optional`, `repeated`, `map`, `oneof:<name>`), type, options
//! * `value`: name, number, options
//! * `rpc`: path, streaming, request, answer, options
//! * `http`, `resource`: annotations of OPI
//! * `extension`: name, number, type, what it extends
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, MethodDescriptor, ReflectMessage, Value,
};

/// Decoded once: a pool is a handle.
fn pool() -> DescriptorPool {
    static POOL: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).unwrap());
    POOL.clone()
}

/// Facts of one package.
struct Facts {
    pool: DescriptorPool,
    lines: BTreeSet<String>,
}

impl Facts {
    fn of(package: &str) -> BTreeSet<String> {
        let mut facts = Self {
            pool: pool(),
            lines: BTreeSet::new(),
        };
        let pool = facts.pool.clone();
        for file in pool.files().filter(|f| f.package_name() == package) {
            file.messages().for_each(|m| facts.message(&m));
            file.enums().for_each(|e| facts.enumeration(&e));
            for extension in file.extensions() {
                let kind = kind(&extension.kind());
                let of = extension.containing_message().full_name().to_owned();
                facts.line(format!(
                    "extension {} {} {kind} {of}",
                    extension.full_name(),
                    extension.number()
                ));
            }
            for service in file.services() {
                let options = facts.options(&service.options(), "csi.v1.alpha_service");
                facts.line(format!("service {}{options}", service.full_name()));
                service.methods().for_each(|m| facts.method(&m));
            }
        }
        facts.lines
    }

    fn line(&mut self, line: String) {
        assert!(self.lines.insert(line.clone()), "twice: {line}");
    }

    fn message(&mut self, message: &MessageDescriptor) {
        let name = message.full_name();
        let options = message.options();
        self.line(format!(
            "message {name}{}",
            self.options(&options, "csi.v1.alpha_message")
        ));
        if let Some(resource) = self.extension(&options, "google.api.resource") {
            let kind = text(&resource, "type");
            let patterns = resource.get_field_by_name("pattern").unwrap();
            let patterns: Vec<_> = patterns
                .as_list()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            self.line(format!("resource {name} {kind} {}", patterns.join(" ")));
        }
        message.fields().for_each(|f| self.field(&f));
        message
            .child_messages()
            .filter(|m| !m.is_map_entry())
            .for_each(|m| self.message(&m));
        message.child_enums().for_each(|e| self.enumeration(&e));
    }

    fn field(&mut self, field: &FieldDescriptor) {
        let mut of_type = kind(&field.kind());
        let label = if field.is_map() {
            let entry = field.kind().as_message().unwrap().clone();
            let side = |f: FieldDescriptor| kind(&f.kind());
            of_type = format!(
                "map<{},{}>",
                side(entry.map_entry_key_field()),
                side(entry.map_entry_value_field())
            );
            "map".into()
        } else if let Some(oneof) = field.containing_oneof() {
            if oneof.is_synthetic() {
                "optional".into()
            } else {
                format!("oneof:{}", oneof.name())
            }
        } else if field.cardinality() == Cardinality::Repeated {
            "repeated".into()
        } else {
            "singular".to_owned()
        };
        let mut options = String::new();
        if let Some(Value::List(list)) =
            self.extension_value(&field.options(), "google.api.field_behavior")
        {
            let names = self
                .pool
                .get_enum_by_name("google.api.FieldBehavior")
                .unwrap();
            for number in list.iter().filter_map(Value::as_enum_number) {
                options += &format!(" {}", names.get_value(number).unwrap().name());
            }
        }
        if self.flag(&field.options(), "csi.v1.csi_secret") {
            options += " secret";
        }
        options += &self.options(&field.options(), "csi.v1.alpha_field");
        self.line(format!(
            "field {} {} {label} {of_type}{options}",
            field.full_name(),
            field.number()
        ));
    }

    fn enumeration(&mut self, of: &EnumDescriptor) {
        let name = of.full_name();
        self.line(format!(
            "enum {name}{}",
            self.options(&of.options(), "csi.v1.alpha_enum")
        ));
        for value in of.values() {
            let options = self.options(&value.options(), "csi.v1.alpha_enum_value");
            self.line(format!(
                "value {name}.{} {}{options}",
                value.name(),
                value.number()
            ));
        }
    }

    fn method(&mut self, method: &MethodDescriptor) {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let streaming = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => "unary",
            (false, true) => "server-stream",
            (true, false) => "client-stream",
            (true, true) => "bidi",
        };
        let (input, output) = (method.input(), method.output());
        let options = self.options(&method.options(), "csi.v1.alpha_method");
        self.line(format!(
            "rpc {path} {streaming} {} {}{options}",
            input.full_name(),
            output.full_name()
        ));
        if let Some(rule) = self.extension(&method.options(), "google.api.http") {
            let verbs = ["get", "put", "post", "delete", "patch"];
            let verb = verbs
                .into_iter()
                .find(|v| rule.has_field_by_name(v))
                .unwrap();
            let body = text(&rule, "body");
            let body = if body.is_empty() {
                body
            } else {
                format!(" body={body}")
            };
            self.line(format!("http {path} {verb} {}{body}", text(&rule, verb)));
        }
    }

    fn options(&self, options: &DynamicMessage, alpha: &str) -> String {
        let deprecated = options
            .get_field_by_name("deprecated")
            .and_then(|v| v.as_bool());
        let mut text = String::new();
        if self.flag(options, alpha) {
            text += " alpha";
        }
        if deprecated == Some(true) {
            text += " deprecated";
        }
        text
    }

    fn flag(&self, options: &DynamicMessage, extension: &str) -> bool {
        self.extension_value(options, extension)
            .and_then(|v| v.as_bool())
            == Some(true)
    }

    fn extension(&self, options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
        self.extension_value(options, name)?.as_message().cloned()
    }

    /// The value, if it is set.
    fn extension_value(&self, options: &DynamicMessage, name: &str) -> Option<Value> {
        let extension = self.pool.get_extension_by_name(name)?;
        let is_for = extension.containing_message() == options.descriptor();
        (is_for && options.has_extension(&extension))
            .then(|| options.get_extension(&extension).into_owned())
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message
        .get_field_by_name(field)
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned()
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().into(),
        Kind::Enum(of) => of.full_name().into(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

/// Lines that only one side has.
fn differences(published: &str, ours: &BTreeSet<String>) -> Vec<String> {
    let theirs: BTreeSet<String> = published.lines().map(Into::into).collect();
    let missing = theirs.difference(ours).map(|l| format!("missing: {l}"));
    let extra = ours.difference(&theirs).map(|l| format!("extra: {l}"));
    missing.chain(extra).collect()
}

fn check(package: &str, published: &str) {
    let differences = differences(published, &Facts::of(package));
    assert!(
        differences.is_empty(),
        "{package} is not the published interface: {differences:#?}"
    );
}

#[test]
fn csi_is_the_published_interface() {
    check("csi.v1", include_str!("published/csi.v1.txt"));
}

#[test]
fn opi_is_the_published_interface() {
    check(
        "opi_api.storage.v1",
        include_str!("published/opi_api.storage.v1.txt"),
    );
}

#[test]
fn plugin_registration_is_the_published_interface() {
    check(
        "pluginregistration",
        include_str!("published/pluginregistration.txt"),
    );
}

#[test]
fn hooks_of_kubevirt_are_the_published_interface() {
    check(
        "kubevirt.hooks.info",
        include_str!("published/kubevirt.hooks.info.txt"),
    );
    check(
        "kubevirt.hooks.v1alpha1",
        include_str!("published/kubevirt.hooks.v1alpha1.txt"),
    );
    check(
        "kubevirt.hooks.v1alpha2",
        include_str!("published/kubevirt.hooks.v1alpha2.txt"),
    );
    check(
        "kubevirt.hooks.v1alpha3",
        include_str!("published/kubevirt.hooks.v1alpha3.txt"),
    );
}

/// Ours are stubs: what they have must be right, and they need not have all.
#[test]
fn annotations_of_google_api_have_their_published_numbers() {
    let differences = differences(
        include_str!("published/google.api.txt"),
        &Facts::of("google.api"),
    );
    let wrong: Vec<_> = differences
        .iter()
        .filter(|d| d.starts_with("extra"))
        .collect();
    assert!(
        wrong.is_empty(),
        "google.api is not the published interface: {wrong:#?}"
    );
}

/// Our own: conventions that keep a later version compatible and a caller's code plain.
#[test]
fn our_own_enums_begin_with_unspecified_and_calls_have_messages_of_their_own() {
    let mut offenders = Vec::new();
    let pool = pool();
    for of in pool
        .all_enums()
        .filter(|e| e.package_name().starts_with("outboard."))
    {
        let zero = of
            .get_value(0)
            .map(|v| v.name().to_owned())
            .unwrap_or_default();
        if !zero.ends_with("_UNSPECIFIED") {
            offenders.push(format!("{}: 0 is {zero}", of.full_name()));
        }
    }
    for service in pool
        .services()
        .filter(|s| s.package_name().starts_with("outboard."))
    {
        for method in service.methods() {
            if method.input().name() != format!("{}Request", method.name()) {
                offenders.push(format!(
                    "{}: takes {}",
                    method.full_name(),
                    method.input().full_name()
                ));
            }
        }
    }
    assert!(offenders.is_empty(), "{offenders:#?}");
}

/// The comparison itself: it sees a field that is gone, one that is new, and one whose number is another.
#[test]
fn a_difference_is_named() {
    let published = "field a.B.gone 1 singular string\nfield a.B.moved 2 singular string";
    let ours = [
        "field a.B.moved 3 singular string",
        "field a.B.new 4 singular bool",
    ];
    let differences = differences(published, &ours.map(String::from).into());
    assert_eq!(
        differences,
        [
            "missing: field a.B.gone 1 singular string",
            "missing: field a.B.moved 2 singular string",
            "extra: field a.B.moved 3 singular string",
            "extra: field a.B.new 4 singular bool",
        ]
    );
}
