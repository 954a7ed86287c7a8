//! From the text of a file to a resolved pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use acequia_connector_api::Registry;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics, SourceText};
use super::env::{self, Env};
use super::file::{ErrorsTable, TOP_LEVEL, TransformTable, check_delivery, check_grants, check_limits};
use super::kind::{Kind, SinkKind, SourceKind};
use super::model::{DeliveryConfig, ErrorsConfig, PipelineConfig, SinkStage, SourceStage, TransformStage};
use super::nearest::{did_you_mean, list, nearest};
use super::recover::{Parser, Section};
use super::shape::Shape;
use super::syntax::syntax_errors;
use super::tree;

const EXAMPLE: &str = "the smallest pipeline is\n[source]\ntype = \"rate\"\n\n[[sink]]\ntype = \"console\"";

/// The name of the pipeline in that file: the file's stem.
///
/// # Errors
/// If the stem can't be a name: it also names metrics, paths of the REST interface and files of the state folder.
pub fn pipeline_name(path: &Path) -> Result<String, Diagnostics> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    if is_name(&stem) {
        return Ok(stem.into_owned());
    }
    let message = format!("`{}` can't be the name of a pipeline", stem.escape_debug());
    let help = "rename the file: letters (A-Z, a-z), digits, `.`, `_` and `-`, beginning with a letter or a digit, at most 200";
    Err(Diagnostic::of_file(path, message).help(help).into())
}

fn is_name(name: &str) -> bool {
    name.len() <= 200
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-'))
}

/// Parse the text of a pipeline's file and check all that can be checked without opening anything.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn parse(text: &str, path: &Path, registry: &Registry, env: &Env) -> Result<PipelineConfig, Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = SourceText::new(path, text);
    let mut diagnostics = Vec::new();
    let name = pipeline_name(path).map_err(|wrong| diagnostics.extend(wrong.0)).unwrap_or_default();

    let (tree, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        diagnostics.extend(syntax_errors(&source, &syntax));
        return Err(Diagnostics(diagnostics));
    }
    let mut root = tree.into_inner();
    if root.is_empty() {
        diagnostics.push(Diagnostic::of_file(path, "the file configures nothing").help(EXAMPLE));
        return Err(Diagnostics(diagnostics));
    }
    let replacements = env::collect(&root, env, &source, &mut diagnostics);
    env::apply(&mut root, &replacements);
    let parser = Parser { source, replacements: &replacements, diagnostics };
    let mut reader = Reader { parser, registry, misspelt: Vec::new() };
    let parts = reader.read(root);

    let mut diagnostics = reader.parser.diagnostics;
    if let Some(parts) = parts.filter(|_| diagnostics.is_empty()) {
        let config = PipelineConfig {
            name,
            path: path.to_owned(),
            text: Arc::from(text),
            description: parts.description,
            source: parts.source,
            transforms: parts.transforms,
            sinks: parts.sinks,
            errors: parts.errors,
            delivery: parts.delivery,
        };
        diagnostics.extend(super::conflicts(&[&config]).into_iter().map(|(_, diagnostic)| diagnostic));
        if diagnostics.is_empty() {
            return Ok(config);
        }
    }
    if diagnostics.is_empty() {
        diagnostics.push(Diagnostic::of_file(path, "the file can't be checked without its environment variables"));
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.place.as_ref().map(|place| place.span.start));
    Err(Diagnostics(diagnostics))
}

struct Reader<'r, 'i> {
    parser: Parser<'i>,
    registry: &'r Registry,
    /// What unknown tables were most likely meant to be: they are not reported as missing as well.
    misspelt: Vec<&'static str>,
}

struct Parts {
    description: Option<String>,
    source: SourceStage,
    transforms: Vec<TransformStage>,
    sinks: Vec<SinkStage>,
    errors: ErrorsConfig,
    delivery: DeliveryConfig,
}

/// A table of the file.
struct Table<'i> {
    table: DeTable<'i>,
    place: Range<usize>,
}

impl<'i> Reader<'_, 'i> {
    fn report(&mut self, span: Range<usize>, message: impl Into<String>, label: &str, help: Option<String>) {
        let diagnostic = self.parser.source.at(span, message).maybe_help(help);
        self.parser.report(if label.is_empty() { diagnostic } else { diagnostic.label(label) });
    }

    fn report_file(&mut self, message: &str, help: &str) {
        let path = self.parser.source.path().to_owned();
        self.parser.report(Diagnostic::of_file(&path, message).help(help));
    }

    fn read(&mut self, mut root: DeTable<'i>) -> Option<Parts> {
        for (key, value) in &root {
            let name = key.get_ref().as_ref();
            if !TOP_LEVEL.contains(&name) {
                self.misspelt.extend(nearest(name, TOP_LEVEL));
                // `[[sink]]` and `sink` look alike from here.
                let what = if value.get_ref().is_table() || value.get_ref().is_array() { "table" } else { "key" };
                let diagnostic = self
                    .parser
                    .source
                    .at(key.span(), format!("unknown {what} `{name}`"))
                    .label("not known at the top of the file")
                    .maybe_help(did_you_mean(name, TOP_LEVEL))
                    .help(format!("known there: {}", list(TOP_LEVEL)));
                self.parser.report(diagnostic);
            }
        }
        let description = self.description(&mut root);
        let source_header = root.get("source").map(Spanned::span);
        let source = match root.remove("source") {
            Some(value) => self.one_table(value, "source").and_then(|table| self.source(table)),
            None => {
                if !self.misspelt.contains(&"source") {
                    self.report_file("no `[source]`: nothing brings rows", EXAMPLE);
                }
                None
            }
        };
        let transforms = self.transforms(&mut root);
        let sinks = self.sinks(&mut root, source_header);
        let errors = self.errors(&mut root);
        let delivery = self.delivery(&mut root);
        Some(Parts {
            description,
            source: source?,
            transforms: transforms?,
            sinks: sinks?,
            errors: errors?,
            delivery: delivery?,
        })
    }

    fn description(&mut self, root: &mut DeTable<'i>) -> Option<String> {
        let value = root.remove("description")?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            other => {
                let label = format!("expected a string, found {}", a_type(other));
                self.report(value.span(), "wrong type for `description`", &label, None);
                None
            }
        }
    }

    /// The table under a key that may be there once.
    fn one_table(&mut self, value: Spanned<DeValue<'i>>, key: &str) -> Option<Table<'i>> {
        let place = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(Table { table, place }),
            DeValue::Array(array) if array.iter().all(|item| item.get_ref().is_table()) => {
                let second = array.get(1).map(Spanned::span);
                let label = if second.is_some() { "a second one" } else { "an array of tables" };
                let help = Some(format!("write `[{key}]`, once"));
                self.report(second.unwrap_or(place), format!("a pipeline has one `[{key}]`"), label, help);
                None
            }
            other => {
                let label = format!("expected a table, found {}", a_type(&other));
                self.report(place, format!("wrong type for `{key}`"), &label, Some(format!("write `[{key}]`")));
                None
            }
        }
    }

    /// The tables under a key that may be there often.
    fn many_tables(&mut self, root: &mut DeTable<'i>, key: &str) -> Option<Vec<Table<'i>>> {
        let Some(value) = root.remove(key) else { return Some(Vec::new()) };
        let place = value.span();
        let help = Some(format!("write `[[{key}]]`: there may be several"));
        match value.into_inner() {
            DeValue::Array(array) => {
                let mut tables = Some(Vec::with_capacity(array.len()));
                for item in array {
                    let place = item.span();
                    match item.into_inner() {
                        DeValue::Table(table) => tables.iter_mut().for_each(|tables| {
                            tables.push(Table { table: table.clone(), place: place.clone() });
                        }),
                        other => {
                            let label = format!("expected a table, found {}", a_type(&other));
                            self.report(place, format!("wrong type in `{key}`"), &label, help.clone());
                            tables = None;
                        }
                    }
                }
                tables
            }
            DeValue::Table(_) => {
                self.report(place, format!("`[{key}]` must be `[[{key}]]`"), "a single table", help);
                None
            }
            other => {
                let label = format!("expected tables, found {}", a_type(&other));
                self.report(place, format!("wrong type for `{key}`"), &label, help);
                None
            }
        }
    }

    fn source(&mut self, table: Table<'i>) -> Option<SourceStage> {
        let place = table.place.clone();
        let (spec, hash) = self.connector::<SourceKind>("[source]", table)?;
        Some(SourceStage { spec, place, hash })
    }

    fn sinks(&mut self, root: &mut DeTable<'i>, source_header: Option<Range<usize>>) -> Option<Vec<SinkStage>> {
        let tables = self.many_tables(root, "sink")?;
        if tables.is_empty() {
            if self.misspelt.contains(&"sink") {
                return None;
            }
            let help = "add a sink, for example\n[[sink]]\ntype = \"console\"";
            match source_header {
                Some(place) => {
                    let help = Some(help.to_owned());
                    self.report(place, "no `[[sink]]`", "nothing takes the rows of this source", help);
                }
                None => self.report_file("no `[[sink]]`: nothing takes the rows", help),
            }
            return None;
        }
        let mut sinks = Vec::with_capacity(tables.len());
        let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut complete = true;
        for table in tables {
            let place = table.place.clone();
            match self.connector::<SinkKind>("[[sink]]", table) {
                Some((spec, hash)) => {
                    let kind = spec.type_name();
                    let count = seen.entry(kind).or_insert(0);
                    *count += 1;
                    let id = if *count == 1 { kind.to_owned() } else { format!("{kind}-{count}") };
                    sinks.push(SinkStage { id, spec, place, hash });
                }
                None => complete = false,
            }
        }
        complete.then_some(sinks)
    }

    /// A connector's table: the type names who parses the rest.
    fn connector<K: Kind>(&mut self, title: &str, table: Table<'i>) -> Option<(Arc<K::Spec>, String)> {
        let Table { mut table, place } = table;
        let hash = tree::hash(&table);
        let names: Vec<&str> = K::known(self.registry).iter().map(|info| info.name).collect();
        let all = format!("known {}s: {}", K::NOUN, list(names.iter().copied()));
        let Some(value) = table.remove("type") else {
            let near = table.keys().find(|key| did_you_mean("type", [key.get_ref().as_ref()]).is_some());
            let (span, help) = match near {
                Some(key) => (key.span(), Some("did you mean `type`?".to_owned())),
                None => (place, None),
            };
            let diagnostic = self.parser.source.at(span, format!("missing key `type` in {title}"));
            self.parser.report(diagnostic.label("which connector?").maybe_help(help).help(all));
            return None;
        };
        let DeValue::String(name) = value.get_ref() else {
            let label = format!("expected a string, found {}", a_type(value.get_ref()));
            self.report(value.span(), "wrong type for `type`", &label, Some(all));
            return None;
        };
        let registry = self.registry;
        if self.parser.is_unknown(&value) {
            self.parser.report_unknown("type", &value.span());
            return None;
        }
        if !names.contains(&name.as_ref()) {
            let mut help = did_you_mean(name, names.iter().copied());
            if K::is_other(registry, name) {
                help = Some(format!("`{name}` is a {}", K::OTHER));
            }
            let diagnostic = self.parser.source.at(value.span(), format!("unknown {} `{name}`", K::NOUN));
            self.parser.report(diagnostic.label("no such connector").maybe_help(help).help(all));
            return None;
        }
        let shape = || K::shape(registry, name).unwrap_or_else(Shape::of::<()>);
        let section = Section { title, table: table.clone(), place: place.clone(), shape: &shape, taken: &["type"] };
        let spec = self.parser.parse(section, |value| {
            let missing = || serde::de::Error::custom(format!("no {} `{name}`", K::NOUN));
            K::parse(registry, name, value).unwrap_or_else(|| Err(missing()))
        })?;
        if let Err(error) = K::check(&spec) {
            let span = tree::value_of(&table, &error.key).map(Spanned::span).unwrap_or(place);
            if self.may_be_wrong(&table, &error.key) {
                return Some((spec, hash));
            }
            let message = match error.key.as_str() {
                "" => format!("wrong values in {title}"),
                key => format!("wrong value for `{key}`"),
            };
            self.report(span, message, &error.message, None);
            return None;
        }
        Some((spec, hash))
    }

    /// Whether the value under the key (or any of the table, if none is named) hangs on a variable that is not known:
    /// then nothing can be said against it.
    fn may_be_wrong(&self, table: &DeTable<'i>, key: &str) -> bool {
        match tree::value_of(table, key) {
            Some(value) => self.parser.is_unknown(value),
            None => table.values().any(|value| self.parser.is_unknown(value)),
        }
    }

    fn transforms(&mut self, root: &mut DeTable<'i>) -> Option<Vec<TransformStage>> {
        let tables = self.many_tables(root, "transform")?;
        let mut stages = Vec::with_capacity(tables.len());
        let mut taken = BTreeSet::new();
        let mut unnamed = Vec::new();
        let mut complete = true;
        for table in tables {
            let name_place = table.table.get("name").map(Spanned::span);
            let Some((stage, name)) = self.transform(table) else {
                complete = false;
                continue;
            };
            match (name, name_place) {
                (Some(name), Some(place)) => {
                    if !is_name(&name) {
                        let label = "expected letters (A-Z, a-z), digits, `.`, `_` and `-`";
                        self.report(place, "wrong value for `name`", label, None);
                        complete = false;
                    } else if !taken.insert(name.clone()) {
                        let message = format!("two transforms are named `{name}`");
                        let help = "state is kept under the name: it must be this transform's own".to_owned();
                        self.report(place, message, "the second of that name", Some(help));
                        complete = false;
                    }
                }
                _ => unnamed.push(stages.len()),
            }
            stages.push(stage);
        }
        // Names that were given come first: the others make way for them.
        for index in unnamed {
            if let Some(stage) = stages.get_mut(index) {
                let base = std::mem::take(&mut stage.id);
                let mut id = base.clone();
                let mut count = 1;
                while !taken.insert(id.clone()) {
                    count += 1;
                    id = format!("{base}-{count}");
                }
                stage.id = id;
            }
        }
        complete.then_some(stages)
    }

    /// One transform, and its name if it has one.
    fn transform(&mut self, table: Table<'i>) -> Option<(TransformStage, Option<String>)> {
        let Table { table, place } = table;
        let hash = tree::hash(&table);
        let title = "[[transform]]";
        let shape = Shape::of::<TransformTable>;
        let section = Section { title, table: table.clone(), place: place.clone(), shape: &shape, taken: &[] };
        let parsed = self.parser.parse(section, TransformTable::deserialize);

        let config = match table.get("config") {
            None => Some((serde_json::Value::Object(serde_json::Map::new()), BTreeMap::new())),
            Some(value) => match value.get_ref() {
                DeValue::Table(config) => match tree::table_to_json(config) {
                    Ok(json) => Some((json, tree::key_places(config))),
                    Err(fault) => {
                        self.report(fault.span, "wrong value in `config`", &fault.message, None);
                        None
                    }
                },
                other => {
                    let label = format!("expected a table, found {}", a_type(other));
                    let help = Some("write `config = { key = \"value\" }`".to_owned());
                    self.report(value.span(), "wrong type for `config`", &label, help);
                    None
                }
            },
        };
        let (parsed, (config, config_places)) = (parsed?, config?);
        let mut wrong = check_limits(&parsed.limits);
        wrong.extend(check_grants(&parsed.grants));
        let complete = self.report_wrong(&table, &place, wrong);
        let plugin_place = table.get("plugin").map(Spanned::span).unwrap_or(place.clone());
        if parsed.plugin.trim().is_empty() {
            self.report(plugin_place, "wrong value for `plugin`", "expected a name or a path", None);
            return None;
        }
        let id = parsed.name.clone().unwrap_or_else(|| stage_name(&parsed.plugin));
        let stage = TransformStage {
            id,
            plugin: parsed.plugin,
            config,
            limits: parsed.limits,
            grants: parsed.grants,
            place,
            plugin_place,
            config_places,
            unresolved: table.values().any(|value| self.parser.is_unknown(value)),
            hash,
        };
        complete.then_some((stage, parsed.name))
    }

    /// Report values that are wrong beyond their type. True: there are none.
    fn report_wrong(&mut self, table: &DeTable<'i>, place: &Range<usize>, wrong: Vec<(&'static str, String)>) -> bool {
        let mut complete = true;
        for (key, label) in wrong {
            if !self.may_be_wrong(table, key) {
                let span = tree::value_of(table, key).map(Spanned::span).unwrap_or(place.clone());
                self.report(span, format!("wrong value for `{key}`"), &label, None);
                complete = false;
            }
        }
        complete
    }

    fn errors(&mut self, root: &mut DeTable<'i>) -> Option<ErrorsConfig> {
        let Some(value) = root.remove("errors") else { return Some(ErrorsConfig::default()) };
        let Table { mut table, place } = self.one_table(value, "errors")?;
        let shape = Shape::of::<ErrorsTable>;
        let section = Section { title: "[errors]", table: table.clone(), place, shape: &shape, taken: &[] };
        let parsed = self.parser.parse(section, ErrorsTable::deserialize);
        let dead_letter = match table.remove("dead_letter") {
            Some(value) => {
                let table = self.one_table(value, "errors.dead_letter")?;
                let place = table.place.clone();
                let (spec, hash) = self.connector::<SinkKind>("[errors.dead_letter]", table)?;
                Some(SinkStage { id: "dead-letter".to_owned(), spec, place, hash })
            }
            None => None,
        };
        Some(ErrorsConfig { on_error: parsed?.on_error, dead_letter })
    }

    fn delivery(&mut self, root: &mut DeTable<'i>) -> Option<DeliveryConfig> {
        let Some(value) = root.remove("delivery") else { return Some(DeliveryConfig::default()) };
        let Table { table, place } = self.one_table(value, "delivery")?;
        let shape = Shape::of::<DeliveryConfig>;
        let section =
            Section { title: "[delivery]", table: table.clone(), place: place.clone(), shape: &shape, taken: &[] };
        let delivery = self.parser.parse(section, DeliveryConfig::deserialize)?;
        self.report_wrong(&table, &place, check_delivery(&delivery)).then_some(delivery)
    }
}

/// The name of a stage that has none of its own: the plugin's.
fn stage_name(plugin: &str) -> String {
    let stem = Path::new(plugin).file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    let stem = if plugin.ends_with(".wasm") || plugin.contains('/') { stem } else { plugin.into() };
    let legal = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let name: String = stem.chars().map(|letter| if legal(letter) { letter } else { '-' }).collect();
    if is_name(&name) { name } else { "transform".to_owned() }
}

/// `an integer`, `a table`.
fn a_type(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name}")
}
