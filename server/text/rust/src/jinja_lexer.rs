//! A template's source as tokens: what Jinja2's lexer makes of it with trim_blocks and
//! lstrip_blocks.

use std::sync::Arc;

use crate::python_strings::{is_letter, is_space, is_word};
use crate::value::{refuse, Error, Result};

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Data(String),
    PrintBegin,
    PrintEnd,
    BlockBegin,
    BlockEnd,
    Name(Arc<str>),
    Text(String),
    Int(i128),
    Float(f64),
    Sign(&'static str),
    End,
}

/// The longer ones first.
const SIGNS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
];

/// Tokens and their lines.
pub fn tokens(source: &str) -> Result<Vec<(Token, usize)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { rest: source, line: 1, at_line_start: true, tokens: Vec::new() };
    match lexer.read() {
        Ok(()) => Ok(lexer.tokens),
        Err(error) => Err(Error { line: lexer.line, ..error }),
    }
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    /// Whether what was read last ends with a line.
    at_line_start: bool,
    tokens: Vec<(Token, usize)>,
}

/// The length of a tag's start and of its name where it opens a raw block.
fn raw_begin(text: &str) -> Option<usize> {
    let inside = text.strip_prefix("{%")?;
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_start_matches(is_space);
    let after = inside.strip_prefix("raw")?.trim_start_matches(is_space);
    let rest = match after.strip_prefix("-%}") {
        Some(rest) => rest.trim_start_matches(is_space),
        None => after.strip_prefix("%}")?,
    };
    Some(text.len() - rest.len())
}

/// The length of {% endraw %} with what is trimmed behind it.
fn raw_end(text: &str) -> Option<usize> {
    let inside = text.strip_prefix("{%")?;
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_start_matches(is_space);
    let after = inside.strip_prefix("endraw")?.trim_start_matches(is_space);
    Some(text.len() - block_end(after)?.len())
}

/// What follows the end of a block with what is trimmed there.
fn block_end(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("-%}") {
        return Some(rest.trim_start_matches(is_space));
    }
    if let Some(rest) = text.strip_prefix("+%}") {
        return Some(rest);
    }
    text.strip_prefix("%}").map(|rest| rest.strip_prefix('\n').unwrap_or(rest))
}

fn print_end(text: &str) -> Option<&str> {
    match text.strip_prefix("-}}") {
        Some(rest) => Some(rest.trim_start_matches(is_space)),
        None => text.strip_prefix("}}"),
    }
}

impl<'a> Lexer<'a> {
    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    /// Goes on behind the first `length` bytes.
    fn skip(&mut self, length: usize) -> &'a str {
        let (skipped, rest) = self.rest.split_at(length);
        self.line += skipped.matches('\n').count();
        self.at_line_start = skipped.ends_with('\n');
        self.rest = rest;
        skipped
    }

    fn read(&mut self) -> Result<()> {
        while let Some(start) = self.next_tag() {
            let tag = &self.rest[start..];
            let is_print = tag.starts_with("{{");
            let text = self.without_space_before(start, &tag[2..], !is_print);
            if !text.is_empty() {
                self.push(Token::Data(text.to_string()));
            }
            self.skip(start);
            if let Some(length) = raw_begin(self.rest) {
                self.skip(length);
                self.read_raw()?;
            } else if self.rest.starts_with("{#") {
                self.read_comment()?;
            } else {
                self.read_tag(is_print)?;
            }
        }
        if !self.rest.is_empty() {
            self.push(Token::Data(self.rest.to_string()));
        }
        self.push(Token::End);
        Ok(())
    }

    fn next_tag(&self) -> Option<usize> {
        let opens =
            |at: &usize| matches!(self.rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
        self.rest.match_indices('{').map(|(at, _)| at).find(opens)
    }

    /// The text before a tag, without what "-" or lstrip_blocks take of it. `tag` is what stands
    /// behind the tag's first two characters.
    fn without_space_before(&self, start: usize, tag: &str, strips_line: bool) -> &'a str {
        let text = &self.rest[..start];
        if tag.starts_with('-') {
            return text.trim_end_matches(is_space);
        }
        let line = text.rfind('\n').map_or(0, |at| at + 1);
        let whole_line = line > 0 || self.at_line_start;
        let strips = strips_line && !tag.starts_with('+') && whole_line;
        match strips && text[line..].chars().all(is_space) {
            true => &text[..line],
            false => text,
        }
    }

    /// Jinja2 does not miss the end of what begins where the template ends.
    fn read_raw(&mut self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let ends = self.rest.match_indices("{%").map(|(at, _)| at);
        let end = ends.into_iter().find_map(|at| Some((at, raw_end(&self.rest[at..])?)));
        let (start, length) = end.ok_or_else(|| refuse("a raw block has no end"))?;
        let text = self.without_space_before(start, &self.rest[start + 2..], true);
        if !text.is_empty() {
            self.push(Token::Data(text.to_string()));
        }
        self.skip(start + length);
        Ok(())
    }

    fn read_comment(&mut self) -> Result<()> {
        if self.rest.len() == 2 {
            self.skip(2);
            return Ok(());
        }
        let end = self.rest[2..].find("#}").ok_or_else(|| refuse("a comment has no end"))? + 2;
        let after = &self.rest[end + 2..];
        let after = match self.rest.as_bytes()[end - 1] {
            b'-' if end > 2 => after.trim_start_matches(is_space),
            b'+' if end > 2 => after,
            _ => after.strip_prefix('\n').unwrap_or(after),
        };
        self.skip(self.rest.len() - after.len());
        Ok(())
    }

    fn read_tag(&mut self, is_print: bool) -> Result<()> {
        self.push(if is_print { Token::PrintBegin } else { Token::BlockBegin });
        self.skip(2);
        if self.rest.starts_with(['-', '+']) {
            self.skip(1);
        }
        let mut open = Vec::new();
        loop {
            if open.is_empty() {
                let end = if is_print { print_end(self.rest) } else { block_end(self.rest) };
                if let Some(after) = end {
                    self.push(if is_print { Token::PrintEnd } else { Token::BlockEnd });
                    self.skip(self.rest.len() - after.len());
                    return Ok(());
                }
            }
            if self.rest.is_empty() {
                return Err(refuse("a tag has no end"));
            }
            self.read_code(&mut open)?;
        }
    }

    fn read_code(&mut self, open: &mut Vec<&'static str>) -> Result<()> {
        let first = self.rest.chars().next().unwrap_or_default();
        if is_space(first) {
            let spaces = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            self.skip(spaces);
        } else if first.is_ascii_digit() {
            self.read_number()?;
        } else if is_in_name(first) {
            let end = self.rest.find(|c| !is_in_name(c)).unwrap_or(self.rest.len());
            let name = &self.rest[..end];
            if !(first == '_' || is_letter(first)) {
                return Err(refuse("a name has an invalid character"));
            }
            self.push(Token::Name(name.into()));
            self.skip(end);
        } else if matches!(first, '\'' | '"') {
            self.read_text(first)?;
        } else {
            let sign = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign));
            let sign = sign.ok_or_else(|| refuse(format!("unexpected character {first:?}")))?;
            balance(sign, open)?;
            self.push(Token::Sign(sign));
            self.skip(sign.len());
        }
        Ok(())
    }

    fn read_number(&mut self) -> Result<()> {
        // Behind a dot it is the place in a sequence.
        let after_dot = matches!(self.tokens.last(), Some((Token::Sign("."), _)));
        let length = if after_dot { None } else { float_length(self.rest) };
        if let Some(length) = length {
            let number = self.rest[..length].replace('_', "");
            let number = number.parse().map_err(|_| refuse("a number is malformed"))?;
            self.push(Token::Float(number));
            self.skip(length);
            return Ok(());
        }
        let (digits, radix, prefix) = integer_length(self.rest);
        let text = self.rest[prefix..prefix + digits].replace('_', "");
        let number = i128::from_str_radix(&text, radix);
        self.push(Token::Int(number.map_err(|_| refuse("a number is too large"))?));
        self.skip(prefix + digits);
        Ok(())
    }

    fn read_text(&mut self, quote: char) -> Result<()> {
        let bytes = self.rest.as_bytes();
        let mut at = 1;
        while at < bytes.len() && bytes[at] != quote as u8 {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        if at >= bytes.len() {
            return Err(refuse("a string has no end"));
        }
        let text = unescaped(&self.rest[1..at])?;
        self.push(Token::Text(text));
        self.skip(at + 1);
        Ok(())
    }
}

fn is_in_name(c: char) -> bool {
    is_word(c)
        || c == '\u{b7}'
        || (!c.is_ascii() && unicode_categories::UnicodeCategories::is_mark(c))
}

fn balance(sign: &'static str, open: &mut Vec<&'static str>) -> Result<()> {
    match sign {
        "(" => open.push(")"),
        "[" => open.push("]"),
        "{" => open.push("}"),
        ")" | "]" | "}" if open.pop() != Some(sign) => {
            return Err(refuse(format!("unexpected '{sign}'")));
        }
        _ => {}
    }
    Ok(())
}

/// How many bytes are digits, between which single underscores may stand.
fn digits_length(text: &str, is_digit: impl Fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        match bytes.get(at) {
            Some(byte) if is_digit(*byte) => at += 1,
            Some(b'_') if at > 0 && bytes.get(at + 1).is_some_and(|byte| is_digit(*byte)) => {
                at += 2
            }
            _ => return at,
        }
    }
}

fn float_length(text: &str) -> Option<usize> {
    let decimal = |text: &str| digits_length(text, |byte| byte.is_ascii_digit());
    let whole = decimal(text);
    let fraction = text[whole..].strip_prefix('.').map(decimal).filter(|length| *length > 0);
    let end = whole + fraction.map_or(0, |length| length + 1);
    let exponent = text[end..].strip_prefix(['e', 'E']).and_then(|rest| {
        let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        let length = decimal(digits);
        (length > 0).then(|| 1 + rest.len() - digits.len() + length)
    });
    match (fraction, exponent) {
        (None, None) => None,
        (_, exponent) => Some(end + exponent.unwrap_or(0)),
    }
}

/// How many digits, their base, and how long the prefix before them is.
fn integer_length(text: &str) -> (usize, u32, usize) {
    for (prefix, radix) in [("0b", 2), ("0o", 8), ("0x", 16)] {
        let start = text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        if start {
            let digits = text[2..].strip_prefix('_').map_or(0, |_| 1);
            let length =
                digits_length(&text[2 + digits..], |byte| (byte as char).is_digit(radix)) + digits;
            if length > digits {
                return (length, radix, 2);
            }
        }
    }
    let zero = text.starts_with('0');
    (digits_length(text, |byte| byte.is_ascii_digit() && (!zero || byte == b'0')), 10, 0)
}

/// As Python reads what stands between quotes once all but ASCII is written as escapes.
fn unescaped(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else { return Err(refuse("a string ends with \\")) };
        rest = &rest[c.len_utf8()..];
        let plain = match c {
            '\n' => continue,
            '\\' | '\'' | '"' => c,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '0'..='7' => {
                let digits = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let code = format!("{c}{}", &rest[..digits]);
                rest = &rest[digits..];
                char::from_u32(u32::from_str_radix(&code, 8).unwrap_or(0)).unwrap_or_default()
            }
            'x' => coded(&mut rest, 2)?,
            'u' => coded(&mut rest, 4)?,
            'U' => coded(&mut rest, 8)?,
            'N' => return Err(refuse("characters by name are not supported")),
            c if c.is_ascii() => {
                out.push('\\');
                c
            }
            c => {
                // The backslash hides the one that the escape of the character would have had.
                out.push('\\');
                out.push_str(&match c as u32 {
                    code @ 0..=0xff => format!("x{code:02x}"),
                    code @ 0x100..=0xffff => format!("u{code:04x}"),
                    code => format!("U{code:08x}"),
                });
                continue;
            }
        };
        out.push(plain);
    }
    out.push_str(rest);
    Ok(out)
}

fn coded(rest: &mut &str, digits: usize) -> Result<char> {
    let code = rest.get(..digits).filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let code = code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
    let c = code.ok_or_else(|| refuse("an escape in a string is no character"))?;
    *rest = &rest[digits..];
    Ok(c)
}
