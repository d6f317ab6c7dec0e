//! Values as Python writes them. Chat templates are written for Jinja2, where `{{ true }}` prints
//! True and `tojson` is json.dumps.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use unicode_categories::UnicodeCategories;

/// Deeper values are refused: json.dumps has the same guard.
const MAX_DEPTH: usize = 200;

/// Prints in round brackets, and is a list otherwise.
#[derive(Debug)]
pub struct Tuple(pub Vec<Value>);

impl Object for Tuple {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

/// What dict.keys(), dict.values() and dict.items() give.
#[derive(Debug)]
pub struct DictView {
    pub name: &'static str,
    pub items: Vec<Value>,
}

impl Object for DictView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }
    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The pairs of a dict, or of anything else that gives pairs.
pub fn tuples(pairs: impl Iterator<Item = (Value, Value)>) -> Vec<Value> {
    pairs.map(|(key, value)| Value::from_object(Tuple(vec![key, value]))).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Json,
    Repr,
}

struct Writer {
    out: String,
    style: Style,
    indent: Option<String>,
    sort_keys: bool,
    ensure_ascii: bool,
    item_separator: String,
    key_separator: String,
    max_bytes: usize,
}

pub fn refuse(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Arguments of json.dumps.
pub struct JsonForm {
    pub indent: Option<String>,               // of one level
    pub separators: Option<(String, String)>, // between items, after keys
    pub sort_keys: bool,
    pub ensure_ascii: bool,
}

/// json.dumps(value, ...).
pub fn json_dumps(value: &Value, form: JsonForm, max_bytes: usize) -> Result<String, Error> {
    let between_items = if form.indent.is_some() { "," } else { ", " };
    let (item_separator, key_separator) =
        form.separators.unwrap_or_else(|| (between_items.to_string(), ": ".to_string()));
    let mut writer = Writer {
        out: String::new(),
        style: Style::Json,
        indent: form.indent,
        sort_keys: form.sort_keys,
        ensure_ascii: form.ensure_ascii,
        item_separator,
        key_separator,
        max_bytes,
    };
    writer.write(value, 0)?;
    Ok(writer.out)
}

/// str(value).
pub fn python_str(value: &Value, max_bytes: usize) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_string()),
        _ => {
            let mut writer = Writer {
                out: String::new(),
                style: Style::Repr,
                indent: None,
                sort_keys: false,
                ensure_ascii: false,
                item_separator: ", ".to_string(),
                key_separator: ": ".to_string(),
                max_bytes,
            };
            writer.write(value, 0)?;
            Ok(writer.out)
        }
    }
}

/// repr(float): shortest digits that read back, exponent form below 1e-4 and from 1e16.
fn python_float(number: f64) -> String {
    if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// str.isprintable of one character, but for the code points that no character has.
fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_other() || c.is_separator())
}

impl Writer {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(refuse("the value is nested too deeply"));
        }
        if self.out.len() > self.max_bytes {
            return Err(refuse("the value is too large to write"));
        }
        let json = self.style == Style::Json;
        match value.kind() {
            ValueKind::None => self.out.push_str(if json { "null" } else { "None" }),
            ValueKind::Bool => self.out.push_str(match (value.is_true(), json) {
                (true, true) => "true",
                (false, true) => "false",
                (true, false) => "True",
                (false, false) => "False",
            }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => {
                let number = f64::try_from(value.clone())?;
                // Python raises ZeroDivisionError where minijinja goes on with such a number.
                if !number.is_finite() {
                    return Err(refuse("a number is not finite, as after a division by zero"));
                }
                self.out.push_str(&python_float(number));
            }
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.write_sequence(value, depth)?,
            ValueKind::Map => self.write_map(value, depth)?,
            ValueKind::Undefined if !json => self.out.push_str("Undefined"),
            _ if !json => self.out.push_str(&value.to_string()),
            kind => return Err(refuse(format!("a value of type {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn write_sequence(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if self.style == Style::Repr {
            if let Some(tuple) = value.downcast_object_ref::<Tuple>() {
                return self.write_tuple(tuple, depth);
            }
        }
        if let Some(view) = value.downcast_object_ref::<DictView>() {
            if self.style == Style::Json {
                return Err(refuse(format!("{} is not JSON serializable", view.name)));
            }
            self.out.push_str(&format!("{}(", view.name));
            self.write_list(value, depth)?;
            self.out.push(')');
            return Ok(());
        }
        self.write_list(value, depth)
    }

    fn write_tuple(&mut self, tuple: &Tuple, depth: usize) -> Result<(), Error> {
        self.out.push('(');
        for (index, item) in tuple.0.iter().enumerate() {
            self.start_item(index == 0, depth);
            self.write(item, depth + 1)?;
        }
        self.out.push_str(if tuple.0.len() == 1 { ",)" } else { ")" });
        Ok(())
    }

    fn write_list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in value.try_iter()? {
            self.start_item(empty, depth);
            empty = false;
            self.write(&item, depth + 1)?;
        }
        self.close(empty, depth, ']');
        Ok(())
    }

    fn write_map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('{');
        let mut empty = true;
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        for key in keys {
            self.start_item(empty, depth);
            empty = false;
            if self.style == Style::Json && key.kind() != ValueKind::String {
                self.out.push('"');
                self.write(&key, depth + 1)?;
                self.out.push('"');
            } else {
                self.write(&key, depth + 1)?;
            }
            self.out.push_str(&self.key_separator);
            self.write(&value.get_item(&key)?, depth + 1)?;
        }
        self.close(empty, depth, '}');
        Ok(())
    }

    fn start_item(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.item_separator);
        }
        self.new_line(depth + 1);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn write_string(&mut self, text: &str) {
        let json = self.style == Style::Json;
        let quote = if json || (text.contains('\'') && !text.contains('"')) { '"' } else { '\'' };
        self.out.push(quote);
        for c in text.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' if json => self.out.push_str("\\b"),
                '\u{c}' if json => self.out.push_str("\\f"),
                c if c == quote => self.out.extend(['\\', c]),
                c if json && self.ensure_ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c if json && c < ' ' => self.out.push_str(&format!("\\u{:04x}", c as u32)),
                c if !json && !is_printable(c) => self.out.push_str(&match c as u32 {
                    code @ 0..=0xff => format!("\\x{code:02x}"),
                    code @ 0x100..=0xffff => format!("\\u{code:04x}"),
                    code => format!("\\U{code:08x}"),
                }),
                c => self.out.push(c),
            }
        }
        self.out.push(quote);
    }
}
