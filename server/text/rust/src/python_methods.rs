//! Attributes and methods of Python's values, as far as Jinja2's immutable sandbox gives them.

use std::rc::Rc;
use std::sync::Arc;

use crate::jinja_filters::escaped;
use crate::jinja_syntax::Name;
use crate::python_arguments::{Arguments, Given};
use crate::python_operators::{equals, is_same};
use crate::python_strings;
use crate::value::{keep_going, key_of, refuse, Dict, Key, Object, Result, Value, View};

/// What getattr finds.
pub enum Attribute {
    Found(Value),
    /// There, and undefined all the same.
    Unsafe,
    Missing,
}

const TEXT: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const DICT: &[&str] = &["copy", "fromkeys", "get", "items", "keys", "values"];
const LIST: &[&str] = &["copy", "count", "index"];
const CHANGES_DICT: &[&str] = &["clear", "pop", "popitem", "setdefault", "update"];
const CHANGES_LIST: &[&str] =
    &["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"];
const NUMBER: &[&str] = &[
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "denominator",
    "from_bytes",
    "imag",
    "numerator",
    "to_bytes",
];
const FLOAT: &[&str] =
    &["as_integer_ratio", "conjugate", "fromhex", "hex", "imag", "is_integer", "real"];

fn method(value: &Value, name: &Name) -> Attribute {
    Attribute::Found(Object::Method(value.clone(), name.clone()).into())
}

/// getattr(value, name), which is an error of what is undefined.
pub fn attribute_of(value: &Value, name: &Name) -> Result<Attribute> {
    if value.is_undefined() {
        return Err(value.is_not("defined"));
    }
    // What every object has.
    let inherited = ["__class__", "__doc__", "__dict__", "__init__", "__eq__", "__hash__"];
    if inherited.contains(&&**name) {
        return Ok(Attribute::Unsafe);
    }
    let has = |names: &[&str]| names.contains(&&**name);
    Ok(match value {
        Value::Text(_) | Value::Markup(_) if has(TEXT) => method(value, name),
        Value::Dict(_) if has(DICT) => method(value, name),
        Value::Dict(_) if has(CHANGES_DICT) => Attribute::Unsafe,
        Value::List(_) if has(LIST) => method(value, name),
        Value::List(_) if has(CHANGES_LIST) => Attribute::Unsafe,
        Value::Tuple(_) if has(&LIST[1..]) => method(value, name),
        Value::Int(_) | Value::Bool(_) if **name == *"real" => {
            Attribute::Found(Value::Int(value.as_integer().unwrap_or_default()))
        }
        Value::Int(_) | Value::Bool(_) if has(NUMBER) => method(value, name),
        Value::Float(_) if has(FLOAT) => method(value, name),
        Value::Object(object) => of_object(value, object, name),
        _ => Attribute::Missing,
    })
}

fn of_object(value: &Value, object: &Rc<Object>, name: &Name) -> Attribute {
    let found = Attribute::Found;
    match (&**object, &**name) {
        (Object::Namespace(attributes), _) => match attributes.borrow().get(&**name) {
            Some(_) if name.starts_with('_') => Attribute::Unsafe,
            Some(attribute) => found(attribute.clone()),
            None => Attribute::Missing,
        },
        (Object::Range(range), "start") => found(Value::Int(range.start)),
        (Object::Range(range), "step") => found(Value::Int(range.step)),
        (Object::Range(_), "count" | "index") => method(value, name),
        (Object::View(..), "mapping" | "isdisjoint") => method(value, name),
        (Object::Iterator(_), "send" | "throw" | "close") => method(value, name),
        (Object::Cycler { items, place }, "current") => found(items[place.get()].clone()),
        (Object::Cycler { .. }, "next" | "reset") => method(value, name),
        (Object::Loop(_), "cycle" | "changed") => method(value, name),
        (Object::Macro(called), "name") => {
            found(called.node.name.as_ref().map_or(Value::None, |name| Value::from(&**name)))
        }
        (Object::Macro(called), "arguments") => {
            let names = called.node.parameters.iter().map(|(name, _)| Value::from(&**name));
            found(Value::tuple(names.collect()))
        }
        (Object::Macro(called), "caller") => found(called.node.takes_caller.into()),
        (Object::Macro(called), "catch_kwargs") => found(called.node.takes_more_by_name.into()),
        (Object::Macro(called), "catch_varargs") => found(called.node.takes_more_by_place.into()),
        _ => Attribute::Missing,
    }
}

pub fn call_method(value: &Value, name: &str, given: Given, max_bytes: usize) -> Result<Value> {
    let result = match value {
        Value::Text(text) => python_strings::call(text, name, given, max_bytes)?,
        Value::Markup(text) => markup_method(text, name, given, max_bytes)?,
        Value::Dict(dict) => dict_method(dict, name, given)?,
        Value::List(items) | Value::Tuple(items) => list_method(items, name, given)?,
        Value::Float(number) if name == "is_integer" => {
            Arguments::bind(given, &[])?;
            Some((number.is_finite() && *number == number.trunc()).into())
        }
        Value::Object(object) => match (&**object, name) {
            (Object::Range(_), _) => list_method(&Rc::new(value.collect()?), name, given)?,
            (Object::Cycler { items, place }, "next") => {
                Arguments::bind(given, &[])?;
                let current = items[place.get()].clone();
                place.set((place.get() + 1) % items.len());
                Some(current)
            }
            (Object::Cycler { place, .. }, "reset") => {
                Arguments::bind(given, &[])?;
                place.set(0);
                Some(Value::None)
            }
            _ => None,
        },
        _ => None,
    };
    let type_name = value.type_name();
    result.ok_or_else(|| refuse(format!("the method {name} of {type_name} is not supported")))
}

/// What goes into marked-up text is escaped, and what comes of it is marked up too.
fn markup_method(text: &str, name: &str, given: Given, max: usize) -> Result<Option<Value>> {
    let escape = |value: Value| match value {
        Value::Text(text) => Value::Markup(Arc::new(escaped(&text))),
        value => value,
    };
    let given = Given {
        by_place: given.by_place.into_iter().map(escape).collect(),
        by_name: given.by_name.into_iter().map(|(name, value)| (name, escape(value))).collect(),
    };
    let result = python_strings::call(text, name, given, max)?;
    let marked = |value: Value| match value {
        Value::Text(text) => Value::Markup(text),
        value => value,
    };
    Ok(result.map(|value| match value {
        Value::List(items) => items.iter().cloned().map(marked).collect::<Vec<_>>().into(),
        Value::Tuple(items) => Value::tuple(items.iter().cloned().map(marked).collect()),
        value => marked(value),
    }))
}

fn dict_method(dict: &Rc<Dict>, name: &str, given: Given) -> Result<Option<Value>> {
    let view = match name {
        "items" => View::Items,
        "keys" => View::Keys,
        "values" => View::Values,
        "copy" => {
            Arguments::bind(given, &[])?;
            return Ok(Some(Value::Dict(Rc::new((**dict).clone()))));
        }
        "get" => {
            let arguments = Arguments::bind(given, &["", ""])?;
            let key = key_of(arguments.required(0)?.clone())?;
            let otherwise = || arguments.given(1).cloned().unwrap_or(Value::None);
            return Ok(Some(dict.get(&key).cloned().unwrap_or_else(otherwise)));
        }
        _ => return Ok(None),
    };
    Arguments::bind(given, &[])?;
    Ok(Some(Object::View(view, dict.clone()).into()))
}

fn list_method(items: &Rc<Vec<Value>>, name: &str, given: Given) -> Result<Option<Value>> {
    if name == "copy" {
        Arguments::bind(given, &[])?;
        return Ok(Some((**items).clone().into()));
    }
    let arguments = Arguments::bind(given, &["", "", ""])?;
    let wanted = arguments.required(0)?;
    let is_wanted = |item: &Value| {
        keep_going()?;
        Ok(is_same(item, wanted) || equals(item, wanted)?)
    };
    if name == "count" {
        let mut count = 0usize;
        for item in items.iter() {
            count += usize::from(is_wanted(item)?);
        }
        return Ok(Some(count.into()));
    }
    let place = |bound: Option<i64>, otherwise: usize| match bound {
        None => otherwise,
        Some(bound) if bound < 0 => items.len().saturating_sub(bound.unsigned_abs() as usize),
        Some(bound) => (bound as usize).min(items.len()),
    };
    let end = place(arguments.integer(2)?, items.len());
    for index in place(arguments.integer(1)?, 0)..end {
        if is_wanted(&items[index])? {
            return Ok(Some(index.into()));
        }
    }
    Err(refuse("the value is not in the list"))
}

/// dict(...) of a mapping, of pairs and of what is given by name.
pub fn dict_of(given: Given) -> Result<Dict> {
    let mut dict = Dict::default();
    if given.by_place.len() > 1 {
        return Err(refuse("a dict is made of one value at most"));
    }
    match given.by_place.first() {
        Some(Value::Dict(other)) => dict.clone_from(other),
        Some(missing @ Value::Undefined(_)) => return Err(missing.is_not("defined")),
        Some(pairs) => {
            for pair in pairs.items()? {
                let pair = pair?.collect()?;
                let [key, value] = &pair[..] else {
                    return Err(refuse("a dict is made of pairs"));
                };
                dict.insert(key_of(key.clone())?, value.clone());
            }
        }
        None => {}
    }
    dict.extend(given.by_name.into_iter().map(|(name, value)| (Key(Value::from(&*name)), value)));
    Ok(dict)
}
