//! Jinja2's filters and tests.

use std::borrow::Cow;
use std::sync::Arc;

use crate::jinja_renderer::Renderer;
use crate::jinja_syntax::Name;
use crate::python_arguments::{Arguments, Given};
use crate::python_format::format_percent;
use crate::python_methods::Attribute;
use crate::python_operators::{
    binary, compare, contains, equals, is_same, negated, reversed, sorted, Comparison, Operator,
};
use crate::python_strings::{
    capitalized, center, is_lower, is_space, is_upper, is_word, lines, replace, strip, title_case,
    Side,
};
use crate::python_values::{json_dumps, python_str, JsonForm};
use crate::value::{key_of, refuse, too_many_items, Key, Object, Result, Value, MAX_ITEMS};

const MAX_INDENT: usize = 64;
/// Of digits before and after the point; no float has more.
const MAX_PRECISION: i64 = 400;
/// Of the items that a filter adds by itself.
const MAX_FILLING: usize = 1 << 20;

/// Those that are known and not supported, as they tell by chance or need a library of their own,
/// fail when they are called.
const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];
const TESTS: &[&str] = &[
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

pub fn is_filter(name: &str) -> bool {
    FILTERS.contains(&name)
}

pub fn is_test(name: &str) -> bool {
    TESTS.contains(&name)
}

/// str(value) without a copy of what is a string.
fn text_of(value: &Value, max_bytes: usize) -> Result<Cow<'_, str>> {
    match value.as_text() {
        Some(text) => Ok(Cow::Borrowed(text)),
        None => python_str(value, max_bytes).map(Cow::Owned),
    }
}

/// What is marked up stays so.
fn like(value: &Value, text: String) -> Value {
    match value {
        Value::Markup(_) => Value::Markup(Arc::new(text)),
        _ => text.into(),
    }
}

/// value|name(...).
pub fn filter(renderer: &mut Renderer, name: &str, value: Value, given: Given) -> Result<Value> {
    let max_bytes = renderer.max_bytes;
    match name {
        "map" => map(renderer, &value, given),
        "select" => select(renderer, &value, given, true, false),
        "reject" => select(renderer, &value, given, false, false),
        "selectattr" => select(renderer, &value, given, true, true),
        "rejectattr" => select(renderer, &value, given, false, true),
        "sort" => sort(renderer, &value, given),
        "unique" => unique(renderer, &value, given),
        "min" => extreme(renderer, &value, given, false),
        "max" => extreme(renderer, &value, given, true),
        "groupby" => groupby(renderer, &value, given),
        "sum" => sum(renderer, &value, given),
        "join" => join(renderer, &value, given),
        "attr" => {
            let arguments = Arguments::bind(given, &["name"])?;
            let name = Name::from(arguments.required_text(0)?);
            match renderer.own_attribute(&value, &name)? {
                Attribute::Found(found) => Ok(found),
                _ => Ok(Value::Undefined(Some(name))),
            }
        }
        "format" => {
            let Some(text) = value.as_text() else {
                return format_percent(
                    &python_str(&value, max_bytes)?,
                    &operand(given)?,
                    max_bytes,
                )
                .map(Value::from);
            };
            format_percent(text, &operand(given)?, max_bytes).map(Value::from)
        }
        "length" | "count" | "list" | "first" | "last" | "reverse" | "items" | "batch"
        | "slice" | "dictsort" => of_items(name, &value, given),
        "abs" | "int" | "float" | "round" | "filesizeformat" => of_number(name, &value, given),
        _ => of_text(name, value, given, max_bytes),
    }
}

/// What the format takes: all that is given by place, or all by name.
fn operand(given: Given) -> Result<Value> {
    match (given.by_place.is_empty(), given.by_name.is_empty()) {
        (false, false) => Err(refuse("format takes arguments by place or by name, not both")),
        (_, true) => Ok(Value::tuple(given.by_place)),
        (true, false) => {
            let named = given.by_name.into_iter();
            Ok(named
                .map(|(name, value)| (Key(Value::from(&*name)), value))
                .collect::<crate::value::Dict>()
                .into())
        }
    }
}

fn of_text(name: &str, value: Value, given: Given, max_bytes: usize) -> Result<Value> {
    let plain = |given: Given| Arguments::bind(given, &[]).map(|_| ());
    match name {
        "default" | "d" => {
            let arguments = Arguments::bind(given, &["default_value", "boolean"])?;
            let missing = value.is_undefined() || (arguments.is_true(1) && !value.is_true());
            return Ok(match missing {
                true => arguments.given(0).cloned().unwrap_or_else(|| "".into()),
                false => value,
            });
        }
        "tojson" => {
            let parameters = ["ensure_ascii", "indent", "separators", "sort_keys"];
            return tojson(&value, &Arguments::bind(given, &parameters)?, max_bytes);
        }
        "indent" => {
            let parameters = ["width", "first", "blank"];
            return indent(&value, &Arguments::bind(given, &parameters)?, max_bytes);
        }
        "truncate" => {
            let parameters = ["length", "killwords", "end", "leeway"];
            return truncate(&value, &Arguments::bind(given, &parameters)?);
        }
        "urlencode" => {
            plain(given)?;
            return urlencode(&value, max_bytes);
        }
        "escape" | "e" | "forceescape" | "safe" | "string" => {
            plain(given)?;
            return Ok(match (name, value) {
                ("forceescape", value) => {
                    Value::Markup(Arc::new(escaped(&text_of(&value, max_bytes)?)))
                }
                (_, value @ Value::Markup(_)) => value,
                ("string", value) => python_str(&value, max_bytes)?.into(),
                ("safe", value) => Value::Markup(Arc::new(python_str(&value, max_bytes)?)),
                (_, value) => Value::Markup(Arc::new(escaped(&text_of(&value, max_bytes)?))),
            });
        }
        "xmlattr" => return xmlattr(&value, &Arguments::bind(given, &["autospace"])?, max_bytes),
        _ => {}
    }
    let text = text_of(&value, max_bytes)?;
    let result = match name {
        "trim" => {
            let arguments = Arguments::bind(given, &["chars"])?;
            strip(&text, arguments.text(0)?, Side::Both).to_string()
        }
        "replace" => {
            let arguments = Arguments::bind(given, &["old", "new", "count"])?;
            let old = text_of(arguments.required(0)?, max_bytes)?;
            let new = text_of(arguments.required(1)?, max_bytes)?;
            replace(&text, (&*old, &*new), arguments.integer(2)?, max_bytes)?
        }
        "center" => {
            let arguments = Arguments::bind(given, &["width"])?;
            center(&text, arguments.integer(0)?.unwrap_or(80), ' ', max_bytes)?
        }
        _ => {
            plain(given)?;
            match name {
                "upper" => text.to_uppercase(),
                "lower" => text.to_lowercase(),
                "capitalize" => capitalized(&text),
                // Jinja2's filter begins words in fewer places than Python's method.
                "title" => title_case(&text, |c| is_space(c) || "-({[<".contains(c)),
                "wordcount" => {
                    let words = text.split(|c| !is_word(c)).filter(|word| !word.is_empty());
                    return Ok(words.count().into());
                }
                "striptags" => return without_tags(&text).map(Value::from),
                _ if is_filter(name) => {
                    return Err(refuse(format!("the filter {name} is not supported")));
                }
                _ => return Err(refuse(format!("there is no filter called '{name}'"))),
            }
        }
    };
    Ok(like(&value, result))
}

fn of_items(name: &str, value: &Value, given: Given) -> Result<Value> {
    match name {
        "dictsort" => {
            return dictsort(value, &Arguments::bind(given, &["case_sensitive", "by", "reverse"])?);
        }
        "batch" => return batch(value, &Arguments::bind(given, &["linecount", "fill_with"])?),
        "slice" => return slices(value, &Arguments::bind(given, &["slices", "fill_with"])?),
        _ => {}
    }
    Arguments::bind(given, &[])?;
    match name {
        "length" | "count" => match value.as_object() {
            Some(Object::Loop(state)) if state.length.get().is_some() => {
                Ok(state.length.get().unwrap_or_default().into())
            }
            _ => value.len().map(Value::from).ok_or_else(|| value.is_not("of a length")),
        },
        "list" => Ok(value.collect()?.into()),
        "first" => Ok(value.items()?.next().transpose()?.unwrap_or_else(Value::undefined)),
        "last" => match value {
            Value::List(items) | Value::Tuple(items) => {
                Ok(items.last().cloned().unwrap_or_else(Value::undefined))
            }
            Value::Text(text) | Value::Markup(text) => {
                let last = text.chars().next_back();
                Ok(last.map_or_else(Value::undefined, |letter| letter.to_string().into()))
            }
            _ if matches!(value.as_object(), Some(Object::Iterator(_))) => {
                Err(value.is_not("reversible"))
            }
            _ => Ok(value.collect()?.pop().unwrap_or_else(Value::undefined)),
        },
        "reverse" => match value.as_text() {
            Some(text) => Ok(like(value, text.chars().rev().collect())),
            None => reversed(value),
        },
        _ => match value {
            Value::Undefined(_) => Ok(Value::stream([])),
            Value::Dict(dict) => {
                let pair =
                    |(key, value): (&Key, &Value)| Value::tuple(vec![key.0.clone(), value.clone()]);
                Ok(Value::stream(dict.iter().map(pair).collect::<Vec<_>>()))
            }
            _ => Value::generate(|_| Err(value.is_not("a mapping"))),
        },
    }
}

fn of_number(name: &str, value: &Value, given: Given) -> Result<Value> {
    match name {
        "abs" => {
            Arguments::bind(given, &[])?;
            match (value, value.as_integer()) {
                (Value::Float(number), _) => Ok(number.abs().into()),
                (_, Some(number)) if number < 0 => negated(&Value::Int(number)),
                (_, Some(number)) => Ok(Value::Int(number)),
                _ => Err(value.is_not("a number")),
            }
        }
        "int" => int(value, &Arguments::bind(given, &["default", "base"])?),
        "float" => {
            let arguments = Arguments::bind(given, &["default"])?;
            if value.is_undefined() {
                return Err(value.is_not("a number"));
            }
            let number = value.as_text().map_or_else(|| value.as_number(), parse_float);
            let otherwise = || arguments.given(0).cloned().unwrap_or_else(|| 0.0.into());
            Ok(number.map_or_else(otherwise, Value::from))
        }
        "round" => round(value, &Arguments::bind(given, &["precision", "method"])?),
        _ => filesizeformat(value, &Arguments::bind(given, &["binary"])?),
    }
}

fn filesizeformat(value: &Value, arguments: &Arguments) -> Result<Value> {
    let bytes = value.as_text().map_or_else(|| value.as_number(), parse_float);
    let bytes = bytes.ok_or_else(|| value.is_not("a number"))?;
    let binary = arguments.is_true(0);
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok("1 Byte".into());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes as i128).into());
    }
    let letters = if binary { "KMGTPEZY" } else { "kMGTPEZY" };
    let mut unit = base;
    let mut letter = 'k';
    for next in letters.chars() {
        letter = next;
        unit *= base;
        if bytes < unit {
            break;
        }
    }
    let end = if binary { "iB" } else { "B" };
    Ok(format!("{:.1} {letter}{end}", base * bytes / unit).into())
}

fn xmlattr(value: &Value, arguments: &Arguments, max_bytes: usize) -> Result<Value> {
    let Value::Dict(dict) = value else { return Err(value.is_not("a mapping")) };
    let mut parts = Vec::new();
    for (key, value) in dict.iter().filter(|(_, v)| !v.is_none() && !v.is_undefined()) {
        let key = key.0.as_text().ok_or_else(|| key.0.is_not("text"))?;
        let misplaced = |c: char| "/>= \t\n\r\x0b\x0c".contains(c);
        if key.contains(misplaced) {
            return Err(refuse("an invalid character in an attribute's name"));
        }
        parts.push(format!("{}=\"{}\"", escaped(key), escaped(&text_of(value, max_bytes)?)));
    }
    let space = arguments.given(0).is_none_or(Value::is_true) && !parts.is_empty();
    Ok(format!("{}{}", if space { " " } else { "" }, parts.join(" ")).into())
}

fn without_tags(text: &str) -> Result<String> {
    let mut text = text.to_string();
    for (start, end) in [("<!--", "-->"), ("<", ">")] {
        let mut kept = String::new();
        let mut rest = &text[..];
        while let Some((before, after)) = rest.split_once(start) {
            let Some((_, behind)) = after.split_once(end) else { break };
            kept.push_str(before);
            rest = behind;
        }
        kept.push_str(rest);
        text = kept;
    }
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    let text = words.join(" ");
    match text.contains('&') {
        true => Err(refuse("striptags of entities is not supported")),
        false => Ok(text),
    }
}

/// What `attribute` says of an item: "a.b.0" step by step, a number, or the item itself.
fn look_up(
    renderer: &mut Renderer,
    item: &Value,
    attribute: Option<&Value>,
    default: Option<&Value>,
) -> Result<Value> {
    let mut found = item.clone();
    let steps: Vec<Value> = match attribute {
        None | Some(Value::None) => Vec::new(),
        Some(path) => match path.as_text() {
            Some(path) => path.split('.').map(path_step).collect(),
            None => vec![path.clone()],
        },
    };
    for step in steps {
        renderer.step()?;
        found = renderer.item(&found, &step)?;
        if let (true, Some(default)) = (found.is_undefined(), default.filter(|d| !d.is_none())) {
            found = default.clone();
        }
    }
    Ok(found)
}

fn path_step(step: &str) -> Value {
    match !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()) {
        true => step.parse().map_or_else(|_| step.into(), Value::Int),
        false => step.into(),
    }
}

/// Of texts their lower case.
fn without_case(value: Value) -> Value {
    match value.as_text() {
        Some(text) => text.to_lowercase().into(),
        None => value,
    }
}

fn map(renderer: &mut Renderer, value: &Value, given: Given) -> Result<Value> {
    if !value.is_true() {
        return Ok(Value::stream([]));
    }
    let items = match value.items() {
        Ok(items) => items,
        Err(error) => return Value::generate(|_| Err(error)),
    };
    Value::generate(|out| {
        if given.by_place.is_empty() && given.by_name.iter().any(|(name, _)| **name == *"attribute")
        {
            let arguments = Arguments::bind(given, &["attribute", "default"])?;
            for item in items {
                let item = item?;
                out.push_back(look_up(renderer, &item, arguments.given(0), arguments.given(1))?);
            }
            return Ok(());
        }
        let mut more = given.by_place.into_iter();
        let name = more.next().ok_or_else(|| refuse("map needs a filter"))?;
        let name = name.as_text().ok_or_else(|| name.is_not("a filter's name"))?.to_string();
        if !is_filter(&name) {
            return Err(refuse(format!("there is no filter called '{name}'")));
        }
        let more: Vec<Value> = more.collect();
        for item in items {
            renderer.step()?;
            let given = Given { by_place: more.clone(), by_name: given.by_name.clone() };
            out.push_back(filter(renderer, &name, item?, given)?);
        }
        Ok(())
    })
}

fn select(
    renderer: &mut Renderer,
    value: &Value,
    given: Given,
    wanted: bool,
    of_attribute: bool,
) -> Result<Value> {
    if !value.is_true() {
        return Ok(Value::stream([]));
    }
    Value::generate(|out| {
        let mut more = given.by_place.into_iter();
        let attribute = match of_attribute {
            true => Some(more.next().ok_or_else(|| refuse("an attribute is missing"))?),
            false => None,
        };
        let name = more.next();
        let more: Vec<Value> = more.collect();
        for item in value.items()? {
            renderer.step()?;
            let item = item?;
            let asked = look_up(renderer, &item, attribute.as_ref(), None)?;
            let holds = match &name {
                None => asked.is_true(),
                Some(name) => {
                    let name = name.as_text().ok_or_else(|| name.is_not("a test's name"))?;
                    let given = Given { by_place: more.clone(), by_name: given.by_name.clone() };
                    test(renderer, name, &asked, given)?
                }
            };
            if holds == wanted {
                out.push_back(item);
            }
        }
        Ok(())
    })
}

/// The keys of items for sort and the like.
fn keys_of(
    renderer: &mut Renderer,
    items: &[Value],
    attribute: Option<&Value>,
    default: Option<&Value>,
    case_sensitive: bool,
) -> Result<Vec<Value>> {
    let key = |item| {
        let key = look_up(renderer, item, attribute, default)?;
        Ok(if case_sensitive { key } else { without_case(key) })
    };
    items.iter().map(key).collect()
}

fn sort(renderer: &mut Renderer, value: &Value, given: Given) -> Result<Value> {
    let arguments = Arguments::bind(given, &["reverse", "case_sensitive", "attribute"])?;
    let items = value.collect()?;
    let attribute = arguments.some(2);
    let attributes: Vec<Option<Value>> = match attribute.and_then(Value::as_text) {
        Some(several) => several.split(',').map(|name| Some(name.into())).collect(),
        None => vec![attribute.cloned()],
    };
    let mut keys = vec![Vec::new(); items.len()];
    for attribute in attributes {
        let column = keys_of(renderer, &items, attribute.as_ref(), None, arguments.is_true(1))?;
        for (key, part) in keys.iter_mut().zip(column) {
            key.push(part);
        }
    }
    let keys = keys.into_iter().map(Value::from).collect();
    let pairs = sorted(items, keys, arguments.is_true(0))?;
    Ok(pairs.into_iter().map(|(_, item)| item).collect::<Vec<_>>().into())
}

fn unique(renderer: &mut Renderer, value: &Value, given: Given) -> Result<Value> {
    let arguments = Arguments::bind(given, &["case_sensitive", "attribute"])?;
    Value::generate(|out| {
        let items = value.collect()?;
        let keys = keys_of(renderer, &items, arguments.some(1), None, arguments.is_true(0))?;
        let mut seen = std::collections::HashSet::new();
        for (item, key) in items.into_iter().zip(keys) {
            if seen.insert(key_of(key)?) {
                out.push_back(item);
            }
        }
        Ok(())
    })
}

fn extreme(renderer: &mut Renderer, value: &Value, given: Given, largest: bool) -> Result<Value> {
    let arguments = Arguments::bind(given, &["case_sensitive", "attribute"])?;
    let items = value.collect()?;
    let keys = keys_of(renderer, &items, arguments.some(1), None, arguments.is_true(0))?;
    let sign = if largest { Comparison::Greater } else { Comparison::Less };
    let mut best: Option<(Value, Value)> = None;
    for (key, item) in keys.into_iter().zip(items) {
        let better = match &best {
            Some((so_far, _)) => compare(sign, &key, so_far)?,
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(Value::undefined, |(_, item)| item))
}

fn groupby(renderer: &mut Renderer, value: &Value, given: Given) -> Result<Value> {
    let arguments = Arguments::bind(given, &["attribute", "default", "case_sensitive"])?;
    let (attribute, default) = (arguments.required(0)?.clone(), arguments.some(1).cloned());
    let items = value.collect()?;
    let case_sensitive = arguments.is_true(2);
    let keys = keys_of(renderer, &items, Some(&attribute), default.as_ref(), case_sensitive)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in sorted(items, keys, false)? {
        match groups.last_mut() {
            Some((last, group)) if equals(last, &key)? => group.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut out = Vec::new();
    for (_, group) in groups {
        let key = look_up(renderer, &group[0], Some(&attribute), default.as_ref())?;
        out.push(Value::tuple(vec![key, group.into()]));
    }
    Ok(out.into())
}

fn sum(renderer: &mut Renderer, value: &Value, given: Given) -> Result<Value> {
    let arguments = Arguments::bind(given, &["attribute", "start"])?;
    let mut total = arguments.given(1).cloned().unwrap_or(Value::Int(0));
    if total.as_text().is_some() {
        return Err(refuse("texts are joined, not summed"));
    }
    for item in value.items()? {
        renderer.step()?;
        let item = look_up(renderer, &item?, arguments.some(0), None)?;
        total = binary(Operator::Add, &total, &item, renderer.max_bytes)?;
    }
    Ok(total)
}

fn join(renderer: &mut Renderer, value: &Value, given: Given) -> Result<Value> {
    let arguments = Arguments::bind(given, &["d", "attribute"])?;
    let max_bytes = renderer.max_bytes;
    let empty = Value::from("");
    let separator = arguments.given(0).unwrap_or(&empty);
    let mut parts = Vec::new();
    for item in value.items()? {
        renderer.step()?;
        parts.push(look_up(renderer, &item?, arguments.some(1), None)?);
    }
    let is_markup = |value: &Value| matches!(value, Value::Markup(_));
    let markup = renderer.autoescape && (is_markup(separator) || parts.iter().any(is_markup));
    let mut out = String::new();
    let mut add = |value: &Value| {
        let text = text_of(value, max_bytes)?;
        match markup && !is_markup(value) {
            true => out.push_str(&escaped(&text)),
            false => out.push_str(&text),
        }
        match out.len() > max_bytes {
            true => Err(refuse("the text is too long")),
            false => Ok(()),
        }
    };
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            add(separator)?;
        }
        add(part)?;
    }
    Ok(if markup { Value::Markup(Arc::new(out)) } else { out.into() })
}

fn dictsort(value: &Value, arguments: &Arguments) -> Result<Value> {
    let by_value = match arguments.text(1)?.unwrap_or("key") {
        "key" => false,
        "value" => true,
        _ => return Err(refuse("a dict is sorted by key or by value")),
    };
    let Value::Dict(dict) = value else { return Err(value.is_not("a mapping")) };
    let mut items = Vec::new();
    let mut keys = Vec::new();
    for (key, value) in dict.iter() {
        let asked = if by_value { value.clone() } else { key.0.clone() };
        keys.push(if arguments.is_true(0) { asked } else { without_case(asked) });
        items.push(Value::tuple(vec![key.0.clone(), value.clone()]));
    }
    let pairs = sorted(items, keys, arguments.is_true(2))?;
    Ok(pairs.into_iter().map(|(_, item)| item).collect::<Vec<_>>().into())
}

/// Rows of `linecount` items; the last is filled where there is something to fill it with.
fn batch(value: &Value, arguments: &Arguments) -> Result<Value> {
    let count = arguments.required(0)?.clone();
    let filling = arguments.some(1).cloned();
    Value::generate(|out| {
        let mut row: Vec<Value> = Vec::new();
        for (taken, item) in value.items()?.enumerate() {
            if taken == MAX_ITEMS {
                return Err(too_many_items());
            }
            if equals(&row.len().into(), &count)? {
                out.push_back(std::mem::take(&mut row).into());
            }
            row.push(item?);
        }
        if let (Some(filling), false) = (filling, row.is_empty()) {
            let count = count.as_integer().ok_or_else(|| count.is_not("a number"))?;
            let missing = usize::try_from(count.saturating_sub(row.len() as i128)).unwrap_or(0);
            if missing > MAX_FILLING {
                return Err(refuse("a row is too long"));
            }
            row.extend(std::iter::repeat_n(filling, missing));
        }
        if !row.is_empty() {
            out.push_back(row.into());
        }
        Ok(())
    })
}

fn slices(value: &Value, arguments: &Arguments) -> Result<Value> {
    let slices = arguments.required_integer(0)?;
    let filling = arguments.some(1).cloned();
    Value::generate(|out| {
        let items = value.collect()?;
        if slices == 0 {
            return Err(refuse("division by zero"));
        }
        let slices = usize::try_from(slices).unwrap_or(0);
        if slices > MAX_FILLING {
            return Err(refuse("too many slices"));
        }
        let mut start = 0;
        for index in 0..slices {
            let longer = index < items.len() % slices;
            let end = start + items.len() / slices + usize::from(longer);
            let mut slice = items[start..end].to_vec();
            if !longer {
                slice.extend(filling.clone());
            }
            out.push_back(slice.into());
            start = end;
        }
        Ok(())
    })
}

/// value is name(...).
pub fn test(renderer: &mut Renderer, name: &str, value: &Value, given: Given) -> Result<bool> {
    let comparison = match name {
        "==" | "eq" | "equalto" => Some(Comparison::Equal),
        "!=" | "ne" => Some(Comparison::NotEqual),
        ">" | "gt" | "greaterthan" => Some(Comparison::Greater),
        ">=" | "ge" => Some(Comparison::GreaterOrEqual),
        "<" | "lt" | "lessthan" => Some(Comparison::Less),
        "<=" | "le" => Some(Comparison::LessOrEqual),
        _ => None,
    };
    if let Some(comparison) = comparison {
        let arguments = Arguments::bind(given, &[""])?;
        return compare(comparison, value, arguments.required(0)?);
    }
    let rest = |divisor: &Value| binary(Operator::Modulo, value, divisor, renderer.max_bytes);
    match name {
        "divisibleby" => {
            let arguments = Arguments::bind(given, &["num"])?;
            return equals(&rest(arguments.required(0)?)?, &Value::Int(0));
        }
        "sameas" => {
            return Ok(is_same(value, Arguments::bind(given, &["other"])?.required(0)?));
        }
        "in" => return contains(Arguments::bind(given, &["seq"])?.required(0)?, value),
        _ => Arguments::bind(given, &[])?,
    };
    Ok(match name {
        "odd" => equals(&rest(&Value::Int(2))?, &Value::Int(1))?,
        "even" => equals(&rest(&Value::Int(2))?, &Value::Int(0))?,
        "lower" => is_lower(&text_of(value, renderer.max_bytes)?),
        "upper" => is_upper(&text_of(value, renderer.max_bytes)?),
        "filter" => key_of(value.clone())?.0.as_text().is_some_and(is_filter),
        "test" => key_of(value.clone())?.0.as_text().is_some_and(is_test),
        _ => return is_of_kind(name, value),
    })
}

fn is_of_kind(name: &str, value: &Value) -> Result<bool> {
    let object = value.as_object();
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => value.is_none(),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.as_number().is_some(),
        "string" => value.as_text().is_some(),
        "mapping" => matches!(value, Value::Dict(_)),
        "escaped" => matches!(value, Value::Markup(_)),
        // Of what has a length and items by index or key; the undefined only seems to.
        "sequence" => value.len().is_some() && !matches!(object, Some(Object::View(..))),
        "iterable" => value.items().is_ok() || matches!(object, Some(Object::Loop(_))),
        // Jinja2's undefined values can be called, and then complain.
        "callable" => {
            value.is_undefined()
                || matches!(
                    object,
                    Some(
                        Object::Function(_)
                            | Object::Method(..)
                            | Object::Macro(_)
                            | Object::Loop(_)
                            | Object::Joiner { .. }
                    )
                )
        }
        _ => return Err(refuse(format!("there is no test called '{name}'"))),
    })
}

/// As markupsafe writes it.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

/// The json.dumps that transformers puts in place of Jinja2's filter.
fn tojson(value: &Value, args: &Arguments, max_bytes: usize) -> Result<Value> {
    let indent = match args.some(1) {
        Some(indent) if indent.as_text().is_some() => indent.as_text().map(str::to_string),
        // A negative one breaks lines like zero.
        _ => {
            args.integer(1)?.map(|width| " ".repeat(width.clamp(0, MAX_INDENT as i64 + 1) as usize))
        }
    };
    if indent.as_ref().is_some_and(|indent| indent.len() > MAX_INDENT) {
        return Err(refuse("indent is too large"));
    }
    let separators = match args.some(2) {
        None => None,
        Some(pair) => match &pair.collect()?[..] {
            [item, key] => Some((python_str(item, max_bytes)?, python_str(key, max_bytes)?)),
            _ => return Err(refuse("separators needs two strings")),
        },
    };
    let form =
        JsonForm { indent, separators, sort_keys: args.is_true(3), ensure_ascii: args.is_true(0) };
    json_dumps(value, form, max_bytes).map(Value::from)
}

fn indent(value: &Value, args: &Arguments, max_bytes: usize) -> Result<Value> {
    let text = value.as_text().ok_or_else(|| value.is_not("a string to indent"))?;
    let with = match args.given(0).and_then(Value::as_text) {
        Some(with) => with.to_string(),
        // The text before it and its own memory are counted; a width alone is not.
        None => match args.integer(0)?.unwrap_or(4) {
            width if width > MAX_INDENT as i64 => return Err(refuse("width is too large")),
            width => " ".repeat(width.max(0) as usize),
        },
    };
    let text = format!("{text}\n");
    let mut out = String::new();
    for (index, line) in lines(&text, false).into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let wanted = if index == 0 { args.is_true(1) } else { args.is_true(2) || !line.is_empty() };
        if wanted {
            out.push_str(&with);
        }
        out.push_str(line);
        if out.len() > max_bytes {
            return Err(refuse("the text is too long"));
        }
    }
    Ok(like(value, out))
}

fn truncate(value: &Value, args: &Arguments) -> Result<Value> {
    let size = |index, default| match args.integer(index)? {
        Some(size) => usize::try_from(size).map_err(|_| refuse("a length must not be negative")),
        None => Ok(default),
    };
    let (length, leeway) = (size(0, 255)?, size(3, 5)?);
    let end = args.text(2)?.unwrap_or("...");
    let kept = length.checked_sub(end.chars().count());
    let kept = kept.ok_or_else(|| refuse("truncate needs a length that holds its end"))?;
    let size = value.len().ok_or_else(|| value.is_not("of a length"))?;
    if size <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let text = value.as_text().ok_or_else(|| value.is_not("a string"))?;
    let mut kept = &text[..text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at)];
    if !args.is_true(1) {
        kept = kept.rsplit_once(' ').map_or(kept, |(words, _)| words);
    }
    Ok(format!("{kept}{end}").into())
}

fn quoted(text: &str, in_query: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(byte as char)
            }
            b'/' if !in_query => out.push('/'),
            b' ' if in_query => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn urlencode(value: &Value, max_bytes: usize) -> Result<Value> {
    let pairs = match value {
        Value::Dict(dict) => {
            let pair =
                |(key, value): (&Key, &Value)| Value::tuple(vec![key.0.clone(), value.clone()]);
            dict.iter().map(pair).collect()
        }
        Value::Text(text) | Value::Markup(text) => return Ok(quoted(text, false).into()),
        _ => match value.items() {
            Ok(items) => items.collect::<Result<Vec<Value>>>()?,
            Err(_) => return Ok(quoted(&python_str(value, max_bytes)?, false).into()),
        },
    };
    let mut out = String::new();
    for pair in pairs {
        let pair = pair.collect()?;
        let [key, value] = &pair[..] else { return Err(refuse("urlencode takes pairs")) };
        if !out.is_empty() {
            out.push('&');
        }
        let (key, value) = (python_str(key, max_bytes)?, python_str(value, max_bytes)?);
        out.push_str(&format!("{}={}", quoted(&key, true), quoted(&value, true)));
    }
    Ok(out.into())
}

/// float(text): nothing where that raises.
fn parse_float(text: &str) -> Option<f64> {
    let digits = without_underscores(text.trim_matches(is_space))?;
    digits.parse().ok()
}

/// Python lets one stand between two digits.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphanumeric);
    let between = |at: usize| is_digit(at.checked_sub(1)) && is_digit(at.checked_add(1));
    let misplaced = text.match_indices('_').any(|(at, _)| !between(at));
    (!misplaced).then(|| text.replace('_', ""))
}

/// int(text, base): nothing where that raises.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = without_underscores(text.trim_matches(is_space))?;
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (&text[..1], digits),
        None => ("", &text[..]),
    };
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let prefixed =
        digits.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let digits = if prefixed { &digits[prefix.len()..] } else { digits };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    i128::from_str_radix(&format!("{sign}{digits}"), base).ok()
}

fn int(value: &Value, args: &Arguments) -> Result<Value> {
    if value.is_undefined() {
        return Err(value.is_not("a number"));
    }
    if let Some(number) = value.as_integer() {
        return Ok(Value::Int(number));
    }
    let otherwise = || args.given(0).cloned().unwrap_or(Value::Int(0));
    let number = match value.as_text() {
        Some(text) => {
            let base = args.integer(1)?.unwrap_or(10);
            let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
            let base = base.ok_or_else(|| refuse("the base must be from 2 to 36"))?;
            if let Some(number) = parse_int(text, base) {
                return Ok(Value::Int(number));
            }
            parse_float(text)
        }
        None => value.as_number(),
    };
    match number.filter(|number| number.is_finite()) {
        Some(number) if number.abs() >= 1e38 => Err(refuse("a number is too large")),
        Some(number) => Ok(Value::Int(number as i128)),
        None => Ok(otherwise()),
    }
}

/// `places` after the point, halves to the even digit of the number as it is stored: Python's round.
fn rounded(number: f64, places: i64) -> f64 {
    if number == 0.0 || !number.is_finite() || places > MAX_PRECISION {
        return number;
    }
    let scientific = format!("{:e}", number.abs());
    let exponent: i64 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let digits = exponent + places;
    let rounded: f64 = if digits >= 0 {
        format!("{:.*e}", digits as usize, number.abs()).parse().unwrap_or(number)
    } else if digits == -1 && number.abs() > format!("5e{exponent}").parse().unwrap_or(f64::MAX) {
        format!("1e{}", exponent + 1).parse().unwrap_or(number)
    } else {
        0.0
    };
    rounded.copysign(number)
}

/// round(int, places), which changes it where places are negative.
fn rounded_integer(number: i128, places: i64) -> Result<Value> {
    let Some(unit) = 10i128.checked_pow(places.unsigned_abs().min(100) as u32) else {
        return Ok(Value::Int(0));
    };
    if places >= 0 {
        return Ok(Value::Int(number));
    }
    let (whole, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
    let up = rest > unit - rest || (rest == unit - rest && whole % 2 != 0);
    let result = (whole + i128::from(up)).checked_mul(unit);
    result.map(Value::Int).ok_or_else(|| refuse("a number is too large"))
}

fn round(value: &Value, args: &Arguments) -> Result<Value> {
    let places = args.integer(0)?.unwrap_or(0).clamp(-MAX_PRECISION, MAX_PRECISION + 1);
    let number = value.as_number().ok_or_else(|| value.is_not("a number"))?;
    let to_whole = match args.text(1)?.unwrap_or("common") {
        "common" => {
            return match value.as_integer() {
                Some(number) => rounded_integer(number, places),
                None => Ok(rounded(number, places).into()),
            };
        }
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        _ => return Err(refuse("method must be common, ceil or floor")),
    };
    let scale = 10f64.powi(places.unsigned_abs() as i32);
    // Python's whole numbers know no negative zero.
    Ok(match places < 0 {
        false => (to_whole(number * scale) + 0.0) / scale,
        // Python's ten to a negative power is a fraction.
        true => (to_whole(number * (1.0 / scale)) + 0.0) / (1.0 / scale),
    }
    .into())
}
