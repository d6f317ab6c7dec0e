//! Values as Python writes them. Chat templates are written for Jinja2, where `{{ true }}` prints
//! True and `tojson` is json.dumps.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Deeper values are refused: json.dumps has the same guard.
const MAX_DEPTH: usize = 200;

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Json,
    Repr,
}

struct Writer {
    out: String,
    style: Style,
    indent: Option<usize>,
    sort_keys: bool,
    item_separator: String,
    key_separator: String,
    max_bytes: usize,
}

fn refuse(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Arguments of json.dumps.
pub struct JsonForm {
    pub indent: Option<usize>,
    pub separators: Option<(String, String)>, // between items, after keys
    pub sort_keys: bool,
}

/// json.dumps(value, ensure_ascii=False, ...).
pub fn json_dumps(value: &Value, form: JsonForm, max_bytes: usize) -> Result<String, Error> {
    let between_items = if form.indent.is_some() { "," } else { ", " };
    let (item_separator, key_separator) =
        form.separators.unwrap_or_else(|| (between_items.to_string(), ": ".to_string()));
    let mut writer = Writer {
        out: String::new(),
        style: Style::Json,
        indent: form.indent,
        sort_keys: form.sort_keys,
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
fn python_float(number: f64, style: Style) -> String {
    if !number.is_finite() {
        let (nan, infinity) =
            if style == Style::Json { ("NaN", "Infinity") } else { ("nan", "inf") };
        let sign = if number < 0.0 { "-" } else { "" };
        return if number.is_nan() { nan.to_string() } else { format!("{sign}{infinity}") };
    }
    if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
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
                self.out.push_str(&python_float(number, self.style));
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
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat(' ').take(indent * depth));
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
                c if json && c < ' ' => self.out.push_str(&format!("\\u{:04x}", c as u32)),
                c if !json && (c < ' ' || ('\u{7f}'..'\u{a1}').contains(&c)) => {
                    self.out.push_str(&format!("\\x{:02x}", c as u32))
                }
                c => self.out.push(c),
            }
        }
        self.out.push(quote);
    }
}
