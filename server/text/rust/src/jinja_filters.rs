//! Jinja2's filters and tests where minijinja's differ from them or are missing.

use std::borrow::Cow;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, Value};

use crate::python_arguments::Arguments;
use crate::python_strings::{
    center, is_lower, is_space, is_upper, is_word, lines, strip, title_case, Side,
};
use crate::python_values::{json_dumps, python_str, refuse, tuples, DictView, JsonForm};

const MAX_INDENT: usize = 64;
/// Of digits before and after the point; no float has more.
const MAX_PRECISION: i64 = 400;

/// Adds a filter that takes its arguments by place or by name.
fn add(
    environment: &mut Environment<'static>,
    name: &'static str,
    parameters: &'static [&'static str],
    filter: impl Fn(&Value, Arguments) -> Result<Value, Error> + Send + Sync + 'static,
) {
    environment.add_filter(name, move |value: &Value, args: Rest<Value>| {
        filter(value, Arguments::bind(&args, parameters)?)
    });
}

pub fn add_filters(environment: &mut Environment<'static>, max_bytes: usize) {
    environment.remove_filter("pprint"); // writes values as Rust does
    let parameters = &["ensure_ascii", "indent", "separators", "sort_keys"];
    add(environment, "tojson", parameters, move |value, args| tojson(value, &args, max_bytes));
    add_text_filters(environment, max_bytes);
    add_value_filters(environment, max_bytes);
}

/// str(value) without a copy of what is a string.
fn text_of(value: &Value, max_bytes: usize) -> Result<Cow<'_, str>, Error> {
    match value.as_str() {
        Some(text) => Ok(Cow::Borrowed(text)),
        None => python_str(value, max_bytes).map(Cow::Owned),
    }
}

fn add_text_filters(environment: &mut Environment<'static>, max_bytes: usize) {
    add(environment, "string", &[], move |value, _| python_str(value, max_bytes).map(Value::from));
    add(environment, "upper", &[], move |value, _| {
        Ok(text_of(value, max_bytes)?.to_uppercase().into())
    });
    add(environment, "lower", &[], move |value, _| {
        Ok(text_of(value, max_bytes)?.to_lowercase().into())
    });
    // Jinja2's filter begins words in fewer places than Python's method.
    add(environment, "title", &[], move |value, _| {
        let starts_word = |c: char| is_space(c) || "-({[<".contains(c);
        Ok(title_case(&text_of(value, max_bytes)?, starts_word).into())
    });
    add(environment, "trim", &["chars"], move |value, args| {
        Ok(strip(&text_of(value, max_bytes)?, args.text(0)?, Side::Both).into())
    });
    add(environment, "replace", &["old", "new", "count"], move |value, args| {
        let (text, old, new) =
            (text_of(value, max_bytes)?, args.required_text(0)?, args.required_text(1)?);
        Ok(match args.integer(2)?.and_then(|count| usize::try_from(count).ok()) {
            Some(count) => text.replacen(old, new, count).into(),
            None => text.replace(old, new).into(),
        })
    });
    add(environment, "indent", &["width", "first", "blank"], move |value, args| {
        let text = value.as_str().ok_or_else(|| refuse("only a string can be indented"))?;
        indent(text, &args)
    });
    add(environment, "center", &["width"], move |value, args| {
        let width = args.integer(0)?.unwrap_or(80);
        Ok(center(&text_of(value, max_bytes)?, width, ' ', max_bytes)?.into())
    });
    add(environment, "wordcount", &[], move |value, _| {
        let text = text_of(value, max_bytes)?;
        Ok(text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count().into())
    });
    add(environment, "truncate", &["length", "killwords", "end", "leeway"], move |value, args| {
        let text = value.as_str().filter(|_| !value.is_undefined());
        let undefined = value.is_undefined().then_some("");
        let text = text.or(undefined).ok_or_else(|| refuse("only a string can be truncated"))?;
        truncate(text, &args)
    });
    add(environment, "urlencode", &[], move |value, _| urlencode(value, max_bytes));
    for name in ["escape", "e", "forceescape"] {
        add(environment, name, &[], move |value, _| {
            match value.is_safe() && name != "forceescape" {
                true => Ok(value.clone()),
                false => Ok(Value::from_safe_string(escaped(&text_of(value, max_bytes)?))),
            }
        });
    }
}

fn add_value_filters(environment: &mut Environment<'static>, max_bytes: usize) {
    for name in ["default", "d"] {
        add(environment, name, &["default_value", "boolean"], |value, args| {
            let missing = value.is_undefined() || (args.is_true(1) && !value.is_true());
            Ok(match missing {
                true => args.given(0).cloned().unwrap_or_else(|| "".into()),
                false => value.clone(),
            })
        });
    }
    for name in ["length", "count"] {
        add(environment, name, &[], |value, _| match value.len() {
            _ if value.is_undefined() => Ok(0.into()),
            Some(length) => Ok(length.into()),
            None => Err(refuse(format!("a value of type {} has no length", value.kind()))),
        });
    }
    add(environment, "list", &[], |value, _| Ok(iterate(value)?.collect::<Vec<_>>().into()));
    add(environment, "join", &["d", "attribute"], move |value, args| join(value, &args, max_bytes));
    add(environment, "items", &[], |value, _| match value.is_undefined() {
        true => Ok(Vec::<Value>::new().into()),
        false => Ok(pairs_of(value)?.into()),
    });
    environment.add_filter("dictsort", |value: &Value, kwargs: Kwargs| {
        let sorted = minijinja::filters::dictsort(value, kwargs)?;
        let pairs = sorted.try_iter()?.map(|pair| {
            let item = |index| pair.get_item_by_index(index).unwrap_or_default();
            (item(0), item(1))
        });
        Ok::<_, Error>(tuples(pairs))
    });
    add(environment, "round", &["precision", "method"], |value, args| round(value, &args));
    add(environment, "int", &["default", "base"], |value, args| int(value, &args));
    add(environment, "float", &["default"], |value, args| {
        let number = value.as_str().map_or_else(|| as_float(value), parse_float);
        Ok(match number {
            _ if value.is_undefined() => return Err(refuse("an undefined value is no number")),
            Some(number) => number.into(),
            None => args.given(0).cloned().unwrap_or_else(|| 0.0.into()),
        })
    });
}

pub fn add_tests(environment: &mut Environment<'static>) {
    // Of what has a length and items by index or key: texts and dicts too.
    environment.add_test("sequence", |value: &Value| match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq => true,
        ValueKind::Map => !is_namespace(value),
        ValueKind::Iterable => {
            value.len().is_some() && value.downcast_object_ref::<DictView>().is_none()
        }
        _ => false,
    });
    environment
        .add_test("iterable", |value: &Value| iterate(value).is_ok() && !is_namespace(value));
    environment.add_test("mapping", |value: &Value| {
        value.kind() == ValueKind::Map && !is_namespace(value)
    });
    environment.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
    });
    environment.add_test("callable", |value: &Value| {
        // Jinja2's undefined values can be called, and then complain.
        value.is_undefined() || is_of_type(value, "BoxedFunction") || is_of_type(value, "Macro")
    });
    environment.add_test("lower", |value: &Value| is_lower(&value.to_string()));
    environment.add_test("upper", |value: &Value| is_upper(&value.to_string()));
}

/// Whether the value is of a type that minijinja keeps to itself.
fn is_of_type(value: &Value, name: &str) -> bool {
    value.as_object().is_some_and(|object| object.type_name().rsplit("::").next() == Some(name))
}

fn is_namespace(value: &Value) -> bool {
    is_of_type(value, "Namespace")
}

/// The pairs of a dict as tuples.
pub fn pairs_of(value: &Value) -> Result<Vec<Value>, Error> {
    let object = value.as_object().filter(|_| value.kind() == ValueKind::Map);
    let pairs = object.and_then(|object| object.try_iter_pairs());
    pairs.map(tuples).ok_or_else(|| refuse("only a mapping has items"))
}

/// minijinja takes None for an empty list.
fn iterate(value: &Value) -> Result<impl Iterator<Item = Value>, Error> {
    if value.is_none() {
        return Err(refuse("None is not iterable"));
    }
    value.try_iter()
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
fn tojson(value: &Value, args: &Arguments, max_bytes: usize) -> Result<Value, Error> {
    let indent = match args.given(1) {
        Some(indent) if indent.as_str().is_some() => indent.as_str().map(str::to_string),
        // A negative one breaks lines like zero.
        _ => {
            args.integer(1)?.map(|width| " ".repeat(width.clamp(0, MAX_INDENT as i64 + 1) as usize))
        }
    };
    if indent.as_ref().is_some_and(|indent| indent.len() > MAX_INDENT) {
        return Err(refuse("indent is too large"));
    }
    let separators = match args.given(2).filter(|value| !value.is_none()) {
        None => None,
        Some(pair) => {
            let texts: Vec<Value> = iterate(pair)?.take(3).collect();
            match &texts[..] {
                [item, key] => Some((python_str(item, max_bytes)?, python_str(key, max_bytes)?)),
                _ => return Err(refuse("separators needs two strings")),
            }
        }
    };
    let form =
        JsonForm { indent, separators, sort_keys: args.is_true(3), ensure_ascii: args.is_true(0) };
    json_dumps(value, form, max_bytes).map(Value::from)
}

fn indent(text: &str, args: &Arguments) -> Result<Value, Error> {
    let with = match args.given(0).and_then(Value::as_str) {
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
    }
    Ok(out.into())
}

fn truncate(text: &str, args: &Arguments) -> Result<Value, Error> {
    let size = |index, default| match args.integer(index)? {
        Some(size) => usize::try_from(size).map_err(|_| refuse("a length must not be negative")),
        None => Ok(default),
    };
    let (length, leeway) = (size(0, 255)?, size(3, 5)?);
    let end = args.text(2)?.unwrap_or("...");
    let kept = length.checked_sub(end.chars().count());
    let kept = kept.ok_or_else(|| refuse("truncate needs a length that holds its end"))?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.into());
    }
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

fn urlencode(value: &Value, max_bytes: usize) -> Result<Value, Error> {
    let pairs = match value.kind() {
        ValueKind::Map => pairs_of(value)?,
        ValueKind::Seq | ValueKind::Iterable => iterate(value)?.collect(),
        _ => return Ok(quoted(&python_str(value, max_bytes)?, false).into()),
    };
    let mut out = String::new();
    for pair in pairs {
        let text = |index| python_str(&pair.get_item_by_index(index)?, max_bytes);
        let (key, value) = (text(0)?, text(1)?);
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(&format!("{}={}", quoted(&key, true), quoted(&value, true)));
    }
    Ok(out.into())
}

fn join(value: &Value, args: &Arguments, max_bytes: usize) -> Result<Value, Error> {
    let separator = args.given(0).map_or(Ok(String::new()), |text| python_str(text, max_bytes))?;
    let mut out = String::new();
    for (index, item) in iterate(value)?.enumerate() {
        if index > 0 {
            out.push_str(&separator);
        }
        out.push_str(&match args.given(1).filter(|attribute| !attribute.is_none()) {
            Some(attribute) => python_str(&item_at(&item, attribute)?, max_bytes)?,
            None => python_str(&item, max_bytes)?,
        });
    }
    Ok(out.into())
}

/// "a.b.0" step by step.
fn item_at(value: &Value, path: &Value) -> Result<Value, Error> {
    let Some(path) = path.as_str() else { return value.get_item(path) };
    path.split('.').try_fold(value.clone(), |value, step| match step.parse::<usize>() {
        Ok(index) => value.get_item(&index.into()),
        Err(_) => value.get_attr(step),
    })
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

fn as_float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Bool => Some(if value.is_true() { 1.0 } else { 0.0 }),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        _ => None,
    }
}

fn int(value: &Value, args: &Arguments) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(refuse("an undefined value is no number"));
    }
    if value.is_integer() {
        return Ok(value.clone());
    }
    let base = args.integer(1)?.unwrap_or(10);
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
    let base = base.ok_or_else(|| refuse("the base must be from 2 to 36"))?;
    let text = value.as_str();
    if let Some(number) = text.and_then(|text| parse_int(text, base)) {
        return Ok(number.into());
    }
    let number = text.map_or_else(|| as_float(value), parse_float);
    Ok(match number.filter(|number| number.is_finite()) {
        Some(number) if number.abs() >= 1e38 => return Err(refuse("a number is too large")),
        Some(number) => (number as i128).into(),
        None => args.given(0).cloned().unwrap_or_else(|| 0.into()),
    })
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
fn rounded_integer(value: &Value, places: i64) -> Result<Value, Error> {
    if places >= 0 && value.is_integer() {
        return Ok(value.clone());
    }
    let number = i128::try_from(value.clone())?;
    let Some(unit) = 10i128.checked_pow(places.unsigned_abs().min(100) as u32) else {
        return Ok(0.into());
    };
    if places >= 0 {
        return Ok(number.into());
    }
    let (whole, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
    let up = rest > unit - rest || (rest == unit - rest && whole % 2 != 0);
    let result = (whole + i128::from(up)).checked_mul(unit);
    Ok(result.ok_or_else(|| refuse("a number is too large"))?.into())
}

fn round(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let places = args.integer(0)?.unwrap_or(0).clamp(-MAX_PRECISION, MAX_PRECISION + 1);
    let number = as_float(value).ok_or_else(|| refuse("only a number can be rounded"))?;
    let to_whole = match args.text(1)?.unwrap_or("common") {
        "common" if value.kind() == ValueKind::Bool || value.is_integer() => {
            return rounded_integer(value, places);
        }
        "common" => return Ok(rounded(number, places).into()),
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
