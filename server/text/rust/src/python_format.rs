//! '%s' % value and '{}'.format(value), as Python reads their little languages.

use std::iter::repeat_n;

use crate::python_arguments::Given;
use crate::python_operators::item;
use crate::python_values::{python_repr, python_str};
use crate::value::{keep_going, refuse, Error, Object, Result, Value};

/// Of digits behind the point; no float has more.
const MAX_PRECISION: usize = 400;

/// How one value is written.
#[derive(Default)]
struct Form {
    fill: Option<char>,
    align: Option<char>, // < > ^ =
    sign: Option<char>,  // + - or a space
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

fn malformed() -> Error {
    refuse("the format is malformed")
}

fn padded(text: &str, form: &Form, default_align: char, max_bytes: usize) -> Result<String> {
    let missing = form.width.saturating_sub(text.chars().count());
    let fill = form.fill.unwrap_or(' ');
    if missing.saturating_mul(fill.len_utf8()).saturating_add(text.len()) > max_bytes {
        return Err(refuse("the padded text is too long"));
    }
    let left = match form.align.unwrap_or(default_align) {
        '<' => 0,
        '^' => missing / 2,
        _ => missing,
    };
    let mut out: String = repeat_n(fill, left).collect();
    out.push_str(text);
    out.extend(repeat_n(fill, missing - left));
    Ok(out)
}

/// Sign, prefix (0x) and digits, with zeros or another filling between where `form` asks for them.
fn padded_number(
    (sign, prefix, digits): (&str, &str, &str),
    form: &Form,
    max_bytes: usize,
) -> Result<String> {
    let inside = form.zero && form.align.is_none() || form.align == Some('=');
    if !inside {
        return padded(&format!("{sign}{prefix}{digits}"), form, '>', max_bytes);
    }
    if form.grouping.is_some() && form.zero {
        return Err(refuse("zeros with grouping are not supported"));
    }
    let taken = sign.len() + prefix.len();
    let rest = Form {
        width: form.width.saturating_sub(taken),
        fill: Some(form.fill.unwrap_or(if form.zero { '0' } else { ' ' })),
        align: Some('>'),
        ..Form::default()
    };
    Ok(format!("{sign}{prefix}{}", padded(digits, &rest, '>', max_bytes)?))
}

fn sign_of(negative: bool, form: &Form) -> &'static str {
    match form.sign {
        _ if negative => "-",
        Some('+') => "+",
        Some(' ') => " ",
        _ => "",
    }
}

fn grouped(digits: &str, separator: char, size: usize) -> String {
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(size) {
            out.push(separator);
        }
        out.push(digit);
    }
    out
}

fn integer(number: i128, kind: char, form: &Form, max_bytes: usize) -> Result<String> {
    let size = number.unsigned_abs();
    let (prefix, mut digits) = match kind {
        'x' => ("0x", format!("{size:x}")),
        'X' => ("0X", format!("{size:X}")),
        'o' => ("0o", format!("{size:o}")),
        'b' => ("0b", format!("{size:b}")),
        _ => ("", size.to_string()),
    };
    if let Some(separator) = form.grouping {
        digits = grouped(&digits, separator, if prefix.is_empty() { 3 } else { 4 });
    }
    let prefix = if form.alternate { prefix } else { "" };
    padded_number((sign_of(number < 0, form), prefix, &digits), form, max_bytes)
}

/// Digits of a float by one of e, f, g and their capitals.
fn float_digits(number: f64, kind: char, precision: usize, alternate: bool) -> String {
    match kind.to_ascii_lowercase() {
        'f' => format!("{number:.precision$}"),
        'e' => python_exponent(&format!("{number:.precision$e}")),
        _ => general_digits(number, precision.max(1), alternate),
    }
}

/// "1.5e7" as Python's "1.5e+07".
fn python_exponent(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn general_digits(number: f64, precision: usize, alternate: bool) -> String {
    let scientific = format!("{number:.*e}", precision - 1);
    let exponent = scientific.split_once('e').and_then(|(_, e)| e.parse::<i32>().ok()).unwrap_or(0);
    let fixed = (-4..precision as i32).contains(&exponent);
    let text = match fixed {
        true => format!("{number:.*}", (precision as i32 - 1 - exponent) as usize),
        false => python_exponent(&scientific),
    };
    if alternate {
        return text;
    }
    let (digits, rest) = text.split_at(text.find('e').unwrap_or(text.len()));
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    };
    format!("{digits}{rest}")
}

fn float(number: f64, kind: char, form: &Form, max_bytes: usize) -> Result<String> {
    let precision = form.precision.unwrap_or(6);
    if precision > MAX_PRECISION {
        return Err(refuse("the precision is too large"));
    }
    let negative = number.is_sign_negative() && !number.is_nan();
    let mut digits = match number.is_finite() {
        true => float_digits(number.abs(), kind, precision, form.alternate),
        false if number.is_nan() => "nan".to_string(),
        false => "inf".to_string(),
    };
    if kind.is_ascii_uppercase() {
        digits = digits.to_uppercase();
    }
    if let Some(separator) = form.grouping {
        let (whole, rest) = digits.split_at(digits.find(['.', 'e']).unwrap_or(digits.len()));
        digits = format!("{}{rest}", grouped(whole, separator, 3));
    }
    padded_number((sign_of(negative, form), "", &digits), form, max_bytes)
}

fn cut(text: String, precision: Option<usize>) -> String {
    match precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text,
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take_if(&mut self, wanted: &str) -> Option<char> {
        let c = self.rest.chars().next().filter(|c| wanted.contains(*c))?;
        self.take().filter(|taken| *taken == c)
    }

    fn number(&mut self) -> Result<Option<usize>> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        match digits {
            "" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| refuse("a width is too large")),
        }
    }

    fn until(&mut self, end: char) -> Result<&'a str> {
        let (text, rest) = self.rest.split_once(end).ok_or_else(malformed)?;
        self.rest = rest;
        Ok(text)
    }
}

/// What '%' takes its values from, in turn.
struct Operands<'a> {
    value: &'a Value,
    taken: usize,
    by_name: bool,
}

impl Operands<'_> {
    fn next(&mut self) -> Result<Value> {
        let next = match self.value {
            Value::Tuple(items) => items.get(self.taken).cloned(),
            value => (self.taken == 0).then(|| value.clone()),
        };
        self.taken += 1;
        next.ok_or_else(|| refuse("not enough arguments for the format"))
    }

    fn named(&mut self, name: &str) -> Result<Value> {
        self.by_name = true;
        match self.value {
            Value::Dict(dict) => {
                dict.get(name).cloned().ok_or_else(|| refuse(format!("there is no key {name}")))
            }
            _ => Err(refuse("the format needs a mapping")),
        }
    }

    fn width(&mut self, reader: &mut Reader) -> Result<Option<i128>> {
        if reader.take_if("*").is_none() {
            return Ok(reader.number()?.map(|number| number as i128));
        }
        let value = self.next()?;
        value.as_integer().map(Some).ok_or_else(|| value.is_not("a width"))
    }

    /// What is left over was given for nothing; a mapping may be larger than what is asked of it.
    fn check_all_used(&self) -> Result<()> {
        let given = match self.value {
            Value::Tuple(items) => items.len(),
            // Whatever has items counts as a mapping.
            Value::Dict(_) | Value::List(_) | Value::Undefined(_) => 0,
            Value::Object(object) if matches!(**object, Object::Range(_)) => 0,
            _ => 1,
        };
        match self.taken < given && !self.by_name {
            true => Err(refuse("not all arguments are used by the format")),
            false => Ok(()),
        }
    }
}

/// text % value.
pub fn format_percent(text: &str, value: &Value, max_bytes: usize) -> Result<String> {
    let mut operands = Operands { value, taken: 0, by_name: false };
    let mut reader = Reader { rest: text };
    let mut out = String::new();
    while let Some(c) = reader.take() {
        match c {
            '%' => out.push_str(&percent(&mut reader, &mut operands, max_bytes)?),
            c => out.push(c),
        }
        if out.len() > max_bytes {
            return Err(refuse("the text is too long"));
        }
    }
    operands.check_all_used()?;
    Ok(out)
}

fn percent(reader: &mut Reader, operands: &mut Operands, max_bytes: usize) -> Result<String> {
    keep_going()?; // what is written may be long and what is left of it nothing
    let name = match reader.take_if("(") {
        Some(_) => Some(reader.until(')')?),
        None => None,
    };
    let named = name.map(|name| operands.named(name)).transpose()?;
    let mut form = Form::default();
    while let Some(flag) = reader.take_if("#0- +") {
        match flag {
            '#' => form.alternate = true,
            '0' => form.zero = true,
            '-' => form.align = Some('<'),
            ' ' => form.sign = form.sign.or(Some(' ')),
            sign => form.sign = Some(sign),
        }
    }
    let width = operands.width(reader)?.unwrap_or(0);
    if width < 0 {
        form.align = Some('<');
    }
    form.width = usize::try_from(width.unsigned_abs()).map_err(|_| malformed())?;
    if reader.take_if(".").is_some() {
        let precision = operands.width(reader)?.unwrap_or(0).max(0);
        form.precision = Some(usize::try_from(precision).map_err(|_| malformed())?);
    }
    let _ = reader.take_if("hlL");
    let kind = reader.take().ok_or_else(malformed)?;
    if kind == '%' {
        return Ok("%".to_string());
    }
    let value = named.map_or_else(|| operands.next(), Ok)?;
    percent_value(&value, kind, form, max_bytes)
}

fn percent_value(value: &Value, kind: char, mut form: Form, max_bytes: usize) -> Result<String> {
    let number = || value.as_number().ok_or_else(|| value.is_not("a number"));
    match kind {
        's' => padded(&cut(python_str(value, max_bytes)?, form.precision), &form, '>', max_bytes),
        'r' => padded(&cut(python_repr(value, max_bytes)?, form.precision), &form, '>', max_bytes),
        'd' | 'i' | 'u' => {
            let whole = match value {
                Value::Float(number) if number.is_finite() && number.abs() < 1e38 => {
                    *number as i128
                }
                _ => value.as_integer().ok_or_else(|| value.is_not("an integer"))?,
            };
            let digits = whole.unsigned_abs().to_string();
            let least = form.precision.unwrap_or(0).min(MAX_PRECISION);
            let digits = format!("{digits:0>least$}");
            padded_number((sign_of(whole < 0, &form), "", &digits), &form, max_bytes)
        }
        'x' | 'X' | 'o' => {
            let whole = value.as_integer().ok_or_else(|| value.is_not("an integer"))?;
            match form.precision {
                Some(_) => Err(refuse("a precision of such digits is not supported")),
                None => integer(whole, kind, &form, max_bytes),
            }
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = number()?;
            form.zero &= number.is_finite();
            float(number, kind, &form, max_bytes)
        }
        'c' => {
            let letter = match (value.as_text(), value.as_integer()) {
                (Some(text), _) if text.chars().count() == 1 => text.to_string(),
                (_, Some(code)) => u32::try_from(code)
                    .ok()
                    .and_then(char::from_u32)
                    .ok_or_else(|| value.is_not("a character"))?
                    .to_string(),
                _ => return Err(value.is_not("a character")),
            };
            padded(&letter, &form, '>', max_bytes)
        }
        _ => Err(malformed()),
    }
}

/// text.format(...).
pub fn format_braces(text: &str, given: Given, max_bytes: usize) -> Result<String> {
    let mut fields = Fields { given, next: Some(0), max_bytes };
    fields.format(text, 2)
}

struct Fields {
    given: Given,
    /// Of the fields without a number; nothing once one had a number.
    next: Option<usize>,
    max_bytes: usize,
}

impl Fields {
    fn format(&mut self, text: &str, depth: usize) -> Result<String> {
        if depth == 0 {
            return Err(refuse("the format is nested too deeply"));
        }
        let mut out = String::new();
        let mut reader = Reader { rest: text };
        while let Some(c) = reader.take() {
            match c {
                '{' if reader.take_if("{").is_some() => out.push('{'),
                '}' if reader.take_if("}").is_some() => out.push('}'),
                '{' => {
                    let (field, rest) = field_of(reader.rest)?;
                    reader.rest = rest;
                    out.push_str(&self.field(field, depth)?);
                }
                '}' => return Err(malformed()),
                c => out.push(c),
            }
            if out.len() > self.max_bytes {
                return Err(refuse("the text is too long"));
            }
        }
        Ok(out)
    }

    fn field(&mut self, field: &str, depth: usize) -> Result<String> {
        keep_going()?; // as `percent`
        let end = field.find(['!', ':']).unwrap_or(field.len());
        let (name, rest) = field.split_at(end);
        let value = self.value(name)?;
        let (conversion, form) = match rest.strip_prefix('!') {
            None => (None, rest.strip_prefix(':').unwrap_or("")),
            Some(rest) => {
                let mut letters = rest.chars();
                let conversion = letters.next().ok_or_else(malformed)?;
                let form = letters.as_str();
                match form.strip_prefix(':') {
                    Some(form) => (Some(conversion), form),
                    None if form.is_empty() => (Some(conversion), ""),
                    None => return Err(malformed()),
                }
            }
        };
        let value = match conversion {
            None => value,
            Some('s') => python_str(&value, self.max_bytes)?.into(),
            Some('r') => python_repr(&value, self.max_bytes)?.into(),
            Some(_) => return Err(malformed()),
        };
        let form = self.format(form, depth - 1)?;
        braces_value(&value, &form, self.max_bytes)
    }

    fn value(&mut self, name: &str) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut path) = name.split_at(end);
        let place = match (first, self.next) {
            ("", Some(next)) => {
                self.next = Some(next + 1);
                Some(next)
            }
            ("", None) => return Err(malformed()),
            (digits, next) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                if next.is_some_and(|next| next > 0) {
                    return Err(malformed());
                }
                self.next = None;
                Some(digits.parse().map_err(|_| malformed())?)
            }
            _ => None,
        };
        let missing = || refuse("the format asks for what is not given");
        let mut value = match place {
            Some(place) => self.given.by_place.get(place).cloned().ok_or_else(missing)?,
            None => {
                let named = self.given.by_name.iter().find(|(name, _)| **name == *first);
                named.map(|(_, value)| value.clone()).ok_or_else(missing)?
            }
        };
        while !path.is_empty() {
            let Some(rest) = path.strip_prefix('[') else {
                return Err(refuse("attributes in formats are not supported"));
            };
            let (key, rest) = rest.split_once(']').ok_or_else(malformed)?;
            let key = key.parse().map_or_else(|_| Value::from(key), Value::Int);
            value = item(&value, &key)?.ok_or_else(missing)?;
            path = rest;
        }
        Ok(value)
    }
}

/// "name!r:form" of "name!r:form} and more", braces within the form included.
fn field_of(text: &str) -> Result<(&str, &str)> {
    let mut open = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => return Ok((&text[..at], &text[at + 1..])),
            '}' => open -= 1,
            _ => {}
        }
    }
    Err(malformed())
}

fn read_form(text: &str) -> Result<Form> {
    let mut form = Form::default();
    let mut reader = Reader { rest: text };
    let mut letters = text.chars();
    if let (Some(fill), Some(align @ ('<' | '>' | '^' | '='))) = (letters.next(), letters.next()) {
        form.fill = Some(fill);
        form.align = Some(align);
        reader.rest = letters.as_str();
    } else {
        form.align = reader.take_if("<>^=");
    }
    form.sign = reader.take_if("+- ");
    form.alternate = reader.take_if("#").is_some();
    form.zero = reader.take_if("0").is_some();
    form.width = reader.number()?.unwrap_or(0);
    form.grouping = reader.take_if(",_");
    if reader.take_if(".").is_some() {
        form.precision = Some(reader.number()?.ok_or_else(malformed)?);
    }
    form.kind = reader.take();
    match reader.rest {
        "" => Ok(form),
        _ => Err(malformed()),
    }
}

/// format(value, form).
fn braces_value(value: &Value, form: &str, max_bytes: usize) -> Result<String> {
    if form.is_empty() {
        return python_str(value, max_bytes);
    }
    let mut form = read_form(form)?;
    match (value, form.kind) {
        (Value::Text(text) | Value::Markup(text), None | Some('s')) => {
            let numeric = form.sign.is_some() || form.alternate || form.grouping.is_some();
            if numeric || form.align == Some('=') {
                return Err(malformed());
            }
            if form.zero && form.fill.is_none() {
                form.fill = Some('0');
            }
            padded(&cut(text.to_string(), form.precision), &form, '<', max_bytes)
        }
        (Value::Bool(_) | Value::Int(_), Some(kind @ ('d' | 'x' | 'X' | 'o' | 'b'))) => {
            whole_number(value, kind, &form, max_bytes)
        }
        (Value::Bool(_) | Value::Int(_), None) => whole_number(value, 'd', &form, max_bytes),
        (Value::Bool(_) | Value::Int(_) | Value::Float(_), Some(kind)) => {
            let number = value.as_number().unwrap_or_default();
            match kind {
                'e' | 'E' | 'f' | 'F' | 'g' | 'G' => float(number, kind, &form, max_bytes),
                '%' => {
                    let precision = form.precision.unwrap_or(6).min(MAX_PRECISION);
                    let digits = format!("{:.precision$}%", (number * 100.0).abs());
                    let sign = sign_of(number.is_sign_negative(), &form);
                    padded_number((sign, "", &digits), &form, max_bytes)
                }
                _ => Err(malformed()),
            }
        }
        (Value::Float(number), None) if form.precision.is_none() && form.grouping.is_none() => {
            let digits = python_repr(&Value::Float(number.abs()), max_bytes)?;
            let sign = sign_of(number.is_sign_negative(), &form);
            padded_number((sign, "", &digits), &form, max_bytes)
        }
        _ => Err(refuse(format!("such a format of a {} is not supported", value.type_name()))),
    }
}

fn whole_number(value: &Value, kind: char, form: &Form, max_bytes: usize) -> Result<String> {
    if form.precision.is_some() {
        return Err(malformed());
    }
    integer(value.as_integer().unwrap_or_default(), kind, form, max_bytes)
}
