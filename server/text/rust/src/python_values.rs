//! Values as Python writes them. Chat templates are written for Jinja2, where `{{ true }}` prints
//! True and `tojson` is json.dumps.

use unicode_categories::UnicodeCategories;

use crate::python_operators::sorted;
use crate::value::{refuse, Dict, Function, Object, Result, Value};

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
    indent: Option<String>,
    sort_keys: bool,
    ensure_ascii: bool,
    item_separator: String,
    key_separator: String,
    max_bytes: usize,
}

/// Arguments of json.dumps.
pub struct JsonForm {
    pub indent: Option<String>,               // of one level
    pub separators: Option<(String, String)>, // between items, after keys
    pub sort_keys: bool,
    pub ensure_ascii: bool,
}

/// json.dumps(value, ...).
pub fn json_dumps(value: &Value, form: JsonForm, max_bytes: usize) -> Result<String> {
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
pub fn python_str(value: &Value, max_bytes: usize) -> Result<String> {
    match value {
        Value::Undefined(_) => Ok(String::new()),
        Value::Text(text) | Value::Markup(text) => Ok(text.to_string()),
        _ => python_repr(value, max_bytes),
    }
}

/// repr(value).
pub fn python_repr(value: &Value, max_bytes: usize) -> Result<String> {
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

/// repr(float): shortest digits that read back, exponent form below 1e-4 and from 1e16.
pub fn python_float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .into();
    }
    if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn json_float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_string(),
        f64::INFINITY => "Infinity".to_string(),
        f64::NEG_INFINITY => "-Infinity".to_string(),
        _ => python_float(number),
    }
}

/// str.isprintable of one character, but for the code points that no character has.
pub fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_other() || c.is_separator())
}

impl Writer {
    fn write(&mut self, value: &Value, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(refuse("the value is nested too deeply"));
        }
        if self.out.len() > self.max_bytes {
            return Err(refuse("the value is too large to write"));
        }
        let json = self.style == Style::Json;
        match value {
            Value::None => self.out.push_str(if json { "null" } else { "None" }),
            Value::Bool(value) => self.out.push_str(match (value, json) {
                (true, true) => "true",
                (false, true) => "false",
                (true, false) => "True",
                (false, false) => "False",
            }),
            Value::Int(number) => self.out.push_str(&number.to_string()),
            Value::Float(number) if json => self.out.push_str(&json_float(*number)),
            Value::Float(number) => self.out.push_str(&python_float(*number)),
            Value::Markup(text) if !json => {
                self.out.push_str("Markup(");
                self.write_string(text);
                self.out.push(')');
            }
            Value::Text(text) | Value::Markup(text) => self.write_string(text),
            Value::Tuple(items) if !json => self.write_tuple(items, depth)?,
            Value::List(items) | Value::Tuple(items) => self.write_list(items, depth)?,
            Value::Dict(dict) => self.write_dict(dict, depth)?,
            Value::Undefined(_) if !json => self.out.push_str("Undefined"),
            Value::Object(object) if !json => self.write_object(object, value, depth)?,
            _ => return Err(value.is_not("JSON serializable")),
        }
        Ok(())
    }

    fn write_object(&mut self, object: &Object, value: &Value, depth: usize) -> Result<()> {
        match object {
            Object::Range(range) => {
                // Python remembers the end that it was given.
                if range.step != 1 {
                    return Err(refuse("a range with a step cannot be written"));
                }
                let stop = range.start.saturating_add(range.length as i128);
                self.out.push_str(&format!("range({}, {stop})", range.start));
            }
            Object::View(..) => {
                self.out.push_str(value.type_name());
                self.out.push('(');
                self.write_list(&value.collect()?, depth)?;
                self.out.push(')');
            }
            Object::Namespace(attributes) => {
                self.out.push_str("<Namespace ");
                self.write_dict(&attributes.borrow().clone(), depth)?;
                self.out.push('>');
            }
            Object::Macro(template_macro) => {
                self.out.push_str("<Macro ");
                match &template_macro.node.name {
                    Some(name) => self.write_string(name),
                    None => self.out.push_str("anonymous"),
                }
                self.out.push('>');
            }
            Object::Loop(state) if state.length.get().is_some() => {
                let (index, length) = (state.index0.get() + 1, state.length.get().unwrap_or(0));
                self.out.push_str(&format!("<LoopContext {index}/{length}>"));
            }
            Object::Function(Function::Dict) => self.out.push_str("<class 'dict'>"),
            Object::Function(Function::Namespace) => {
                self.out.push_str("<class 'jinja2.utils.Namespace'>");
            }
            Object::Function(Function::Cycler) => {
                self.out.push_str("<class 'jinja2.utils.Cycler'>");
            }
            Object::Function(Function::Joiner) => {
                self.out.push_str("<class 'jinja2.utils.Joiner'>");
            }
            // Python writes where it lies in memory.
            _ => return Err(refuse(format!("a {} cannot be written", value.type_name()))),
        }
        Ok(())
    }

    fn write_tuple(&mut self, items: &[Value], depth: usize) -> Result<()> {
        self.out.push('(');
        for (index, item) in items.iter().enumerate() {
            self.start_item(index == 0, depth);
            self.write(item, depth + 1)?;
        }
        self.out.push_str(if items.len() == 1 { ",)" } else { ")" });
        Ok(())
    }

    fn write_list(&mut self, items: &[Value], depth: usize) -> Result<()> {
        self.out.push('[');
        for (index, item) in items.iter().enumerate() {
            self.start_item(index == 0, depth);
            self.write(item, depth + 1)?;
        }
        self.close(items.is_empty(), depth, ']');
        Ok(())
    }

    fn write_dict(&mut self, dict: &Dict, depth: usize) -> Result<()> {
        self.out.push('{');
        let mut entries: Vec<(Value, Value)> =
            dict.iter().map(|(key, value)| (key.0.clone(), value.clone())).collect();
        if self.sort_keys {
            let (keys, values) = entries.into_iter().unzip();
            entries = sorted(values, keys, false)?;
        }
        for (index, (key, value)) in entries.iter().enumerate() {
            self.start_item(index == 0, depth);
            match self.style {
                Style::Json => self.write_json_key(key)?,
                Style::Repr => self.write(key, depth + 1)?,
            }
            self.out.push_str(&self.key_separator);
            self.write(value, depth + 1)?;
        }
        self.close(entries.is_empty(), depth, '}');
        Ok(())
    }

    fn write_json_key(&mut self, key: &Value) -> Result<()> {
        match key {
            Value::Text(_) | Value::Markup(_) => self.write(key, 0),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                self.out.push('"');
                self.write(key, 0)?;
                self.out.push('"');
                Ok(())
            }
            _ => Err(key.is_not("a key of JSON")),
        }
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
