//! Python's str methods, which count characters and know Python's white space.

use std::collections::HashSet;
use std::iter::repeat_n;
use std::sync::Arc;

use unicode_categories::UnicodeCategories;

use crate::python_arguments::{Arguments, Given};
use crate::python_format::format_braces;
use crate::python_values::is_printable;
use crate::value::{keep_going, refuse, too_many_items, Result, Value, MAX_ITEMS};

/// Characters beyond decimal digits of which str.isdigit is true.
const OTHER_DIGITS: [(char, char); 20] = [
    ('\u{b2}', '\u{b3}'),
    ('\u{b9}', '\u{b9}'),
    ('\u{1369}', '\u{1371}'),
    ('\u{19da}', '\u{19da}'),
    ('\u{2070}', '\u{2070}'),
    ('\u{2074}', '\u{2079}'),
    ('\u{2080}', '\u{2089}'),
    ('\u{2460}', '\u{2468}'),
    ('\u{2474}', '\u{247c}'),
    ('\u{2488}', '\u{2490}'),
    ('\u{24ea}', '\u{24ea}'),
    ('\u{24f5}', '\u{24fd}'),
    ('\u{24ff}', '\u{24ff}'),
    ('\u{2776}', '\u{277e}'),
    ('\u{2780}', '\u{2788}'),
    ('\u{278a}', '\u{2792}'),
    ('\u{10a40}', '\u{10a43}'),
    ('\u{10e60}', '\u{10e68}'),
    ('\u{11052}', '\u{1105a}'),
    ('\u{1f100}', '\u{1f10a}'),
];

/// str.isspace of one character.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Alphabetic in Unicode's sense holds for some marks, numbers and symbols too.
pub fn is_letter(c: char) -> bool {
    c.is_alphabetic() && !c.is_mark() && !c.is_number_letter() && !c.is_symbol_other()
}

fn is_decimal(c: char) -> bool {
    c.is_numeric() && !c.is_number_letter() && !c.is_number_other() && !is_letter(c)
}

fn is_digit(c: char) -> bool {
    is_decimal(c) || OTHER_DIGITS.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Of a word in the regular expression \w.
pub fn is_word(c: char) -> bool {
    is_letter(c) || c.is_numeric() || c == '_'
}

fn every(text: &str, holds: impl Fn(char) -> bool) -> Value {
    (!text.is_empty() && text.chars().all(holds)).into()
}

pub fn is_lower(text: &str) -> bool {
    let other = |c: char| c.is_uppercase() || c.is_letter_titlecase();
    text.chars().any(char::is_lowercase) && !text.chars().any(other)
}

pub fn is_upper(text: &str) -> bool {
    let other = |c: char| c.is_lowercase() || c.is_letter_titlecase();
    text.chars().any(char::is_uppercase) && !text.chars().any(other)
}

/// Upper case for the first character and those after one that `starts_word`, lower case for the rest.
pub fn title_case(text: &str, starts_word: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        start = starts_word(c);
    }
    out
}

fn swap_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
    }
    out
}

/// str.splitlines.
pub fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_line_end).unwrap_or(rest.len());
        let after = &rest[end..];
        let first = after.chars().next().map_or(0, char::len_utf8);
        let length = if after.starts_with("\r\n") { 2 } else { first };
        lines.push(&rest[..if keep_ends { end + length } else { end }]);
        rest = &after[length..];
    }
    lines
}

/// The characters from `start` up to `end` as a slice counts them, with the place of the first;
/// nothing where a search does not even find an empty text.
fn window(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    if start.is_none() && end.is_none() {
        return Some((0, text));
    }
    let length = text.chars().count() as i64;
    let place = |index: i64| if index < 0 { (index + length).max(0) } else { index };
    let start = place(start.unwrap_or(0));
    let end = place(end.unwrap_or(length)).min(length);
    if start > end {
        return None;
    }
    let byte = |place: i64| text.char_indices().nth(place as usize).map_or(text.len(), |c| c.0);
    Some((start as usize, &text[byte(start)..byte(end)]))
}

/// Where the text that is searched for lies, in characters.
fn find(text: &str, args: Given, from_end: bool) -> Result<Option<usize>> {
    let args = Arguments::bind(args, &["", "", ""])?;
    let wanted = args.required_text(0)?;
    let Some((first, within)) = window(text, args.integer(1)?, args.integer(2)?) else {
        return Ok(None);
    };
    let place = if from_end { within.rfind(wanted) } else { within.find(wanted) };
    Ok(place.map(|place| first + within[..place].chars().count()))
}

fn count(text: &str, args: Given) -> Result<usize> {
    let args = Arguments::bind(args, &["", "", ""])?;
    let wanted = args.required_text(0)?;
    Ok(match window(text, args.integer(1)?, args.integer(2)?) {
        None => 0,
        Some((_, within)) if wanted.is_empty() => within.chars().count() + 1,
        Some((_, within)) => within.matches(wanted).count(),
    })
}

/// str.startswith and str.endswith: of one text or any of several.
fn has_affix(text: &str, args: Given, has: fn(&str, &str) -> bool) -> Result<bool> {
    let args = Arguments::bind(args, &["", "", ""])?;
    let within = window(text, args.integer(1)?, args.integer(2)?);
    let holds = |affix: &Value| {
        keep_going()?;
        match affix.as_text() {
            Some(affix) => Ok(within.is_some_and(|(_, within)| has(within, affix))),
            None => Err(refuse("a text begins or ends with a string or one of several")),
        }
    };
    match args.given(0) {
        Some(Value::Tuple(several)) => {
            for affix in several.iter() {
                if holds(affix)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Some(one) => holds(one),
        None => Err(refuse("startswith and endswith need a string")),
    }
}

fn split_at_space(text: &str, most: Option<usize>) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if Some(parts.len()) == most {
            parts.push(rest);
            break;
        }
        let (part, after) = rest.split_at(rest.find(is_space).unwrap_or(rest.len()));
        parts.push(part);
        rest = after.trim_start_matches(is_space);
    }
    parts
}

/// From the end; the last part first.
fn split_at_space_from_end(text: &str, most: Option<usize>) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        if Some(parts.len()) == most {
            parts.push(rest);
            break;
        }
        let space = rest.char_indices().rev().find(|(_, c)| is_space(*c));
        let (before, part) = rest.split_at(space.map_or(0, |(at, c)| at + c.len_utf8()));
        parts.push(part);
        rest = before.trim_end_matches(is_space);
    }
    parts
}

fn split(text: &str, args: Given, from_end: bool) -> Result<Value> {
    let args = Arguments::bind(args, &["sep", "maxsplit"])?;
    let most = args.integer(1)?.and_then(|most| usize::try_from(most).ok());
    // One part too many is enough to see.
    let limit = most.unwrap_or(MAX_ITEMS).min(MAX_ITEMS);
    let mut parts: Vec<&str> = match (args.text(0)?, from_end) {
        (Some(""), _) => return Err(refuse("empty separator")),
        (Some(separator), false) => text.splitn(limit + 1, separator).collect(),
        (Some(separator), true) => text.rsplitn(limit + 1, separator).collect(),
        (None, false) => split_at_space(text, Some(limit)),
        (None, true) => split_at_space_from_end(text, Some(limit)),
    };
    if from_end {
        parts.reverse();
    }
    listed(parts)
}

/// Each part takes many times the bytes of a separator.
fn listed(parts: Vec<&str>) -> Result<Value> {
    match parts.len() > MAX_ITEMS {
        true => Err(too_many_items()),
        false => Ok(parts.into_iter().map(Value::from).collect::<Vec<_>>().into()),
    }
}

fn partition(text: &str, args: Given, from_end: bool) -> Result<Value> {
    let args = Arguments::bind(args, &[""])?;
    let separator = args.required_text(0)?;
    if separator.is_empty() {
        return Err(refuse("empty separator"));
    }
    let found = if from_end { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match (found, from_end) {
        (Some((before, after)), _) => [before, separator, after],
        (None, false) => [text, "", ""],
        (None, true) => ["", "", text],
    };
    Ok(Value::tuple(parts.map(Value::from).into()))
}

#[derive(Clone, Copy)]
pub enum Side {
    Left,
    Right,
    Both,
}

/// Without the white space, or any of the characters, at the ends.
pub fn strip<'a>(text: &'a str, chars: Option<&str>, side: Side) -> &'a str {
    let chars: Option<HashSet<char>> = chars.map(|chars| chars.chars().collect());
    let stripped = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(&c));
    match side {
        Side::Left => text.trim_start_matches(stripped),
        Side::Right => text.trim_end_matches(stripped),
        Side::Both => text.trim_matches(stripped),
    }
}

fn strip_method(text: &str, args: Given, side: Side) -> Result<Value> {
    let args = Arguments::bind(args, &[""])?;
    Ok(strip(text, args.text(0)?, side).into())
}

/// `text` with `left` and `right` times `fill` around it, where that is not too long.
fn padded(
    text: &str,
    (left, right): (usize, usize),
    fill: char,
    max_bytes: usize,
) -> Result<String> {
    let padding = left.saturating_add(right).saturating_mul(fill.len_utf8());
    if padding.saturating_add(text.len()) > max_bytes {
        return Err(refuse("the padded text is too long"));
    }
    let mut out = String::with_capacity(padding + text.len());
    out.extend(repeat_n(fill, left));
    out.push_str(text);
    out.extend(repeat_n(fill, right));
    Ok(out)
}

fn missing(text: &str, width: i64) -> usize {
    usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count())
}

/// str.center. An odd place goes to the left where the width is odd.
pub fn center(text: &str, width: i64, fill: char, max_bytes: usize) -> Result<String> {
    let padding = missing(text, width);
    let left = padding / 2 + (padding & width as usize & 1);
    padded(text, (left, padding - left), fill, max_bytes)
}

fn justify(text: &str, args: Given, side: Side, max_bytes: usize) -> Result<String> {
    let args = Arguments::bind(args, &["", ""])?;
    let width = args.required_integer(0)?;
    let mut chars = args.text(1)?.unwrap_or(" ").chars();
    let (Some(fill), None) = (chars.next(), chars.next()) else {
        return Err(refuse("the fill character must be exactly one character long"));
    };
    match side {
        Side::Left => padded(text, (0, missing(text, width)), fill, max_bytes),
        Side::Right => padded(text, (missing(text, width), 0), fill, max_bytes),
        Side::Both => center(text, width, fill, max_bytes),
    }
}

fn fill_zeros(text: &str, args: Given, max_bytes: usize) -> Result<String> {
    let width = Arguments::bind(args, &[""])?.required_integer(0)?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let filled = padded(digits, (missing(text, width), 0), '0', max_bytes)?;
    Ok(format!("{}{filled}", &text[..text.len() - digits.len()]))
}

fn join(separator: &str, args: Given, max_bytes: usize) -> Result<String> {
    let args = Arguments::bind(args, &[""])?;
    let mut out = String::new();
    for (index, item) in args.required(0)?.items()?.enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(item?.as_text().ok_or_else(|| refuse("join takes strings only"))?);
        if out.len() > max_bytes {
            return Err(refuse("the text is too long"));
        }
    }
    Ok(out)
}

/// Nothing where this is no method of the ones here.
pub fn call(text: &str, method: &str, args: Given, max_bytes: usize) -> Result<Option<Value>> {
    let found = |place: Option<usize>| place.ok_or_else(|| refuse("substring not found"));
    let or_minus_one = |place: Option<usize>| Value::Int(place.map_or(-1, |place| place as i128));
    let result: Value = match method {
        "find" => or_minus_one(find(text, args, false)?),
        "rfind" => or_minus_one(find(text, args, true)?),
        "index" => found(find(text, args, false)?)?.into(),
        "rindex" => found(find(text, args, true)?)?.into(),
        "count" => count(text, args)?.into(),
        "startswith" => has_affix(text, args, |text, affix| text.starts_with(affix))?.into(),
        "endswith" => has_affix(text, args, |text, affix| text.ends_with(affix))?.into(),
        "split" => split(text, args, false)?,
        "rsplit" => split(text, args, true)?,
        "partition" => partition(text, args, false)?,
        "rpartition" => partition(text, args, true)?,
        "splitlines" => {
            let args = Arguments::bind(args, &["keepends"])?;
            listed(lines(text, args.is_true(0)))?
        }
        "strip" => strip_method(text, args, Side::Both)?,
        "lstrip" => strip_method(text, args, Side::Left)?,
        "rstrip" => strip_method(text, args, Side::Right)?,
        "ljust" => justify(text, args, Side::Left, max_bytes)?.into(),
        "rjust" => justify(text, args, Side::Right, max_bytes)?.into(),
        "center" => justify(text, args, Side::Both, max_bytes)?.into(),
        "zfill" => fill_zeros(text, args, max_bytes)?.into(),
        "join" => join(text, args, max_bytes)?.into(),
        "removeprefix" => {
            let args = Arguments::bind(args, &[""])?;
            text.strip_prefix(args.required_text(0)?).unwrap_or(text).into()
        }
        "removesuffix" => {
            let args = Arguments::bind(args, &[""])?;
            text.strip_suffix(args.required_text(0)?).unwrap_or(text).into()
        }
        "replace" => {
            let args = Arguments::bind(args, &["", "", ""])?;
            let (old, new) = (args.required_text(0)?, args.required_text(1)?);
            replace(text, (old, new), args.integer(2)?, max_bytes)?.into()
        }
        "expandtabs" => {
            let args = Arguments::bind(args, &["tabsize"])?;
            expand_tabs(text, args.integer(0)?.unwrap_or(8), max_bytes)?.into()
        }
        "format" => format_braces(text, args, max_bytes)?.into(),
        "format_map" => {
            let args = Arguments::bind(args, &[""])?;
            let Value::Dict(dict) = args.required(0)? else {
                return Err(args.required(0)?.is_not("a mapping"));
            };
            let name = |key: &Value| key.as_text().map(Arc::from);
            let by_name = dict.iter().filter_map(|(k, v)| Some((name(&k.0)?, v.clone())));
            let given = Given { by_place: Vec::new(), by_name: by_name.collect() };
            format_braces(text, given, max_bytes)?.into()
        }
        _ => return without_arguments(text, method, args),
    };
    Ok(Some(result))
}

/// str.replace; a negative count is none. Both texts may come from a request, so what comes of them
/// is measured before it is made.
pub fn replace(
    text: &str,
    (old, new): (&str, &str),
    count: Option<i64>,
    max_bytes: usize,
) -> Result<String> {
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let places = text.matches(old).take(count).count();
    let kept = text.len() - places * old.len();
    if places.saturating_mul(new.len()).saturating_add(kept) > max_bytes {
        return Err(refuse("the text is too long"));
    }
    Ok(text.replacen(old, new, count))
}

fn expand_tabs(text: &str, size: i64, max_bytes: usize) -> Result<String> {
    let size = usize::try_from(size).unwrap_or(0);
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' => {
                let width = if size == 0 { 0 } else { size - column % size };
                if width.saturating_add(out.len()) > max_bytes {
                    return Err(refuse("the padded text is too long"));
                }
                out.extend(repeat_n(' ', width));
                column += width;
            }
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(out)
}

/// The first character in upper case, the others in lower case.
pub fn capitalized(text: &str) -> String {
    title_case(text, |_| false)
}

fn without_arguments(text: &str, method: &str, args: Given) -> Result<Option<Value>> {
    let result: Value = match method {
        "upper" => text.to_uppercase().into(),
        "lower" => text.to_lowercase().into(),
        "capitalize" => capitalized(text).into(),
        "isascii" => text.is_ascii().into(),
        "isprintable" => text.chars().all(is_printable).into(),
        "title" => title_case(text, |c| !c.is_alphabetic()).into(),
        "swapcase" => swap_case(text).into(),
        "isalpha" => every(text, is_letter),
        "isalnum" => every(text, |c| is_letter(c) || c.is_numeric()),
        "isdecimal" => every(text, is_decimal),
        "isdigit" => every(text, is_digit),
        "isnumeric" => every(text, char::is_numeric),
        "isspace" => every(text, is_space),
        "islower" => is_lower(text).into(),
        "isupper" => is_upper(text).into(),
        _ => return Ok(None),
    };
    Arguments::bind(args, &[])?;
    Ok(Some(result))
}
