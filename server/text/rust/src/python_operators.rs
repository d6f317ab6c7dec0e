//! Python's operators over values of every type: what it raises for is refused.

use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use crate::jinja_filters::escaped;
use crate::python_format::format_percent;
use crate::python_values::python_str;
use crate::value::{
    is_hashable, keep_going, refuse, too_many_items, Error, Key, Object, Result, Value, View,
    MAX_ITEMS,
};

/// Deeper values are not compared: Python has the same guard.
const MAX_DEPTH: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    DivideFloor,
    Modulo,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

fn too_large() -> Error {
    refuse("a number is too large")
}

fn unsupported(operator: Operator, left: &Value, right: &Value) -> Error {
    for value in [left, right] {
        if value.is_undefined() {
            return value.is_not("a number");
        }
    }
    let (left, right) = (left.type_name(), right.type_name());
    refuse(format!("{operator:?} takes no {left} and {right}").to_lowercase())
}

/// `max_bytes` bounds a text that is made.
pub fn binary(operator: Operator, left: &Value, right: &Value, max_bytes: usize) -> Result<Value> {
    if let (Some(left), Some(right)) = (left.as_integer(), right.as_integer()) {
        return integers(operator, left, right);
    }
    if let (Some(left), Some(right)) = (left.as_number(), right.as_number()) {
        return floats(operator, left, right).map(Value::Float);
    }
    match operator {
        Operator::Add => add(left, right, max_bytes),
        Operator::Multiply => match (left.as_integer(), right.as_integer()) {
            (None, Some(times)) => repeat(left, times, max_bytes),
            (Some(times), None) => repeat(right, times, max_bytes),
            _ => Err(unsupported(operator, left, right)),
        },
        Operator::Modulo => match left {
            Value::Text(text) => format_percent(text, right, max_bytes).map(Value::from),
            _ => Err(unsupported(operator, left, right)),
        },
        _ => Err(unsupported(operator, left, right)),
    }
}

fn integers(operator: Operator, left: i128, right: i128) -> Result<Value> {
    let by_zero = matches!(operator, Operator::Divide | Operator::DivideFloor | Operator::Modulo);
    if by_zero && right == 0 {
        return Err(refuse("division by zero"));
    }
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide => return Ok(Value::Float(left as f64 / right as f64)),
        // Towards minus infinity; the rest has the sign of the divisor.
        Operator::DivideFloor => left
            .checked_div_euclid(right)
            .map(|quotient| quotient - i128::from(right < 0 && left.rem_euclid(right) != 0)),
        Operator::Modulo => left.checked_rem_euclid(right).map(|rest| match rest {
            0 => 0,
            rest if right < 0 => rest + right,
            rest => rest,
        }),
        Operator::Power if right < 0 => {
            return floats(operator, left as f64, right as f64).map(Value::Float);
        }
        Operator::Power => match left {
            0 | 1 => Some(if right == 0 { 1 } else { left }),
            -1 => Some(if right % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(right).ok().and_then(|right| left.checked_pow(right)),
        },
    };
    result.map(Value::Int).ok_or_else(too_large)
}

fn floats(operator: Operator, left: f64, right: f64) -> Result<f64> {
    let divides = matches!(operator, Operator::Divide | Operator::DivideFloor | Operator::Modulo);
    if right == 0.0 && divides {
        return Err(refuse("division by zero"));
    }
    Ok(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::DivideFloor => floor_and_rest(left, right).0,
        Operator::Modulo => floor_and_rest(left, right).1,
        Operator::Power => power(left, right)?,
    })
}

/// float.__divmod__.
fn floor_and_rest(left: f64, right: f64) -> (f64, f64) {
    let mut rest = left % right;
    let mut quotient = (left - rest) / right;
    if rest != 0.0 {
        if (right < 0.0) != (rest < 0.0) {
            rest += right;
            quotient -= 1.0;
        }
    } else {
        rest = 0f64.copysign(right);
    }
    let floor = match quotient != 0.0 {
        true if quotient - quotient.floor() > 0.5 => quotient.floor() + 1.0,
        true => quotient.floor(),
        false => 0f64.copysign(left / right),
    };
    (floor, rest)
}

fn power(left: f64, right: f64) -> Result<f64> {
    if left == 0.0 && right < 0.0 {
        return Err(refuse("zero to a negative power"));
    }
    if left < 0.0 && left.is_finite() && right.is_finite() && right != right.trunc() {
        return Err(refuse("a complex number"));
    }
    let result = left.powf(right);
    match result.is_infinite() && left.is_finite() && right.is_finite() {
        true => Err(too_large()),
        false => Ok(result),
    }
}

pub fn joined(left: &str, right: &str, max_bytes: usize) -> Result<String> {
    if left.len().saturating_add(right.len()) > max_bytes {
        return Err(refuse("the text is too long"));
    }
    let mut text = String::with_capacity(left.len() + right.len());
    text.push_str(left);
    text.push_str(right);
    Ok(text)
}

fn add(left: &Value, right: &Value, max_bytes: usize) -> Result<Value> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Ok(joined(left, right, max_bytes)?.into()),
        (Value::Markup(left), Value::Markup(right)) => {
            Ok(Value::Markup(Arc::new(joined(left, right, max_bytes)?)))
        }
        (Value::Markup(left), Value::Text(right)) => {
            Ok(Value::Markup(Arc::new(joined(left, &escaped(right), max_bytes)?)))
        }
        (Value::Text(left), Value::Markup(right)) => {
            Ok(Value::Markup(Arc::new(joined(&escaped(left), right, max_bytes)?)))
        }
        (Value::List(left), Value::List(right)) => Ok(concatenated(left, right)?.into()),
        (Value::Tuple(left), Value::Tuple(right)) => Ok(Value::tuple(concatenated(left, right)?)),
        _ => Err(unsupported(Operator::Add, left, right)),
    }
}

fn concatenated(left: &[Value], right: &[Value]) -> Result<Vec<Value>> {
    if left.len() + right.len() > MAX_ITEMS {
        return Err(too_many_items());
    }
    Ok(left.iter().chain(right).cloned().collect())
}

fn repeat(value: &Value, times: i128, max_bytes: usize) -> Result<Value> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    let check = |length: usize, most: usize| match length.saturating_mul(times) > most {
        true => Err(refuse("the repeated value is too long")),
        false => Ok(()),
    };
    match value {
        Value::Text(text) => {
            check(text.len(), max_bytes)?;
            Ok(if text.is_empty() { "".into() } else { text.repeat(times).into() })
        }
        Value::Markup(text) => {
            check(text.len(), max_bytes)?;
            Ok(Value::Markup(Arc::new(if text.is_empty() {
                String::new()
            } else {
                text.repeat(times)
            })))
        }
        Value::List(items) | Value::Tuple(items) => {
            check(items.len(), MAX_ITEMS)?;
            let times = if items.is_empty() { 0 } else { times };
            let many = std::iter::repeat_n(items.iter(), times).flatten().cloned().collect();
            Ok(if matches!(value, Value::List(_)) {
                Value::List(Rc::new(many))
            } else {
                Value::tuple(many)
            })
        }
        _ => Err(unsupported(Operator::Multiply, value, &Value::Int(0))),
    }
}

pub fn negated(value: &Value) -> Result<Value> {
    match (value, value.as_integer()) {
        (Value::Float(number), _) => Ok(Value::Float(-number)),
        (_, Some(number)) => number.checked_neg().map(Value::Int).ok_or_else(too_large),
        _ => Err(value.is_not("a number")),
    }
}

pub fn positive(value: &Value) -> Result<Value> {
    match (value, value.as_integer()) {
        (Value::Float(_), _) => Ok(value.clone()),
        (_, Some(number)) => Ok(Value::Int(number)),
        _ => Err(value.is_not("a number")),
    }
}

/// Of an int and a float without rounding the int.
fn order_of(integer: i128, float: f64) -> Option<Ordering> {
    if !float.is_finite() || float.abs() >= 1e38 {
        return 0f64.partial_cmp(&float);
    }
    let whole = float.trunc() as i128;
    Some(integer.cmp(&whole).then_with(|| 0f64.total_cmp(&(float.fract() + 0.0))))
}

fn order_of_numbers(left: &Value, right: &Value) -> Option<Option<Ordering>> {
    match (left, right, left.as_integer(), right.as_integer()) {
        (_, _, Some(left), Some(right)) => Some(Some(left.cmp(&right))),
        (Value::Float(left), Value::Float(right), ..) => Some(left.partial_cmp(right)),
        (_, Value::Float(right), Some(left), _) => Some(order_of(left, *right)),
        (Value::Float(left), _, _, Some(right)) => {
            Some(order_of(right, *left).map(Ordering::reverse))
        }
        _ => None,
    }
}

/// left == right. An error where they are nested too deeply.
pub fn equals(left: &Value, right: &Value) -> Result<bool> {
    equals_at(left, right, 0)
}

fn equals_at(left: &Value, right: &Value, depth: usize) -> Result<bool> {
    keep_going()?;
    if depth > MAX_DEPTH {
        return Err(refuse("the values are nested too deeply to be compared"));
    }
    if let Some(order) = order_of_numbers(left, right) {
        return Ok(order == Some(Ordering::Equal));
    }
    if let (Some(left), Some(right)) = (left.as_text(), right.as_text()) {
        return Ok(left == right);
    }
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => Ok(true),
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            Ok(Rc::ptr_eq(left, right)
                || (left.len() == right.len() && first_difference(left, right, depth)?.is_none()))
        }
        (Value::Dict(left), Value::Dict(right)) => {
            if Rc::ptr_eq(left, right) {
                return Ok(true);
            }
            if left.len() != right.len() {
                return Ok(false);
            }
            for (key, value) in left.iter() {
                match right.get(key) {
                    Some(other) if same_or_equal(value, other, depth + 1)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (Value::Object(left), Value::Object(right)) => objects_equal(left, right),
        _ => Ok(false),
    }
}

fn objects_equal(left: &Rc<Object>, right: &Rc<Object>) -> Result<bool> {
    match (&**left, &**right) {
        _ if Rc::ptr_eq(left, right) => Ok(true),
        (Object::Range(left), Object::Range(right)) => Ok(left.length == right.length
            && (left.length == 0 || left.start == right.start)
            && (left.length < 2 || left.step == right.step)),
        (Object::View(View::Keys, left), Object::View(View::Keys, right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for key in left.keys() {
                keep_going()?;
                if !right.contains_key(key) {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Object::View(View::Items, left), Object::View(View::Items, right)) => {
            equals(&Value::Dict(left.clone()), &Value::Dict(right.clone()))
        }
        (Object::Function(left), Object::Function(right)) => Ok(left == right),
        (Object::Method(left, name), Object::Method(right, other)) => {
            Ok(name == other && is_same(left, right))
        }
        _ => Ok(false),
    }
}

/// Python compares what a list holds by identity first.
fn same_or_equal(left: &Value, right: &Value, depth: usize) -> Result<bool> {
    keep_going()?;
    Ok(is_same(left, right) || equals_at(left, right, depth)?)
}

fn first_difference(left: &[Value], right: &[Value], depth: usize) -> Result<Option<usize>> {
    for (index, (left, right)) in left.iter().zip(right).enumerate() {
        if !same_or_equal(left, right, depth + 1)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// left is right, as far as values tell: small numbers and texts are shared here.
pub fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::None, Value::None) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::Float(left), Value::Float(right)) => left == right,
        (Value::Text(left), Value::Text(right)) => left == right,
        (Value::List(left), Value::List(right)) => Rc::ptr_eq(left, right),
        (Value::Tuple(left), Value::Tuple(right)) => {
            Rc::ptr_eq(left, right) || (left.is_empty() && right.is_empty())
        }
        (Value::Dict(left), Value::Dict(right)) => Rc::ptr_eq(left, right),
        (Value::Object(left), Value::Object(right)) => Rc::ptr_eq(left, right),
        _ => false,
    }
}

/// Nothing where a number is none and has no order; an error for types that have none.
fn order(left: &Value, right: &Value, depth: usize) -> Result<Option<Ordering>> {
    keep_going()?;
    if depth > MAX_DEPTH {
        return Err(refuse("the values are nested too deeply to be compared"));
    }
    if let Some(order) = order_of_numbers(left, right) {
        return Ok(order);
    }
    if let (Some(left), Some(right)) = (left.as_text(), right.as_text()) {
        return Ok(Some(left.cmp(right)));
    }
    match (left, right) {
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            match first_difference(left, right, depth)? {
                Some(at) => order(&left[at], &right[at], depth + 1),
                None => Ok(Some(left.len().cmp(&right.len()))),
            }
        }
        (Value::Undefined(_), _) => Err(left.is_not("comparable")),
        (_, Value::Undefined(_)) => Err(right.is_not("comparable")),
        _ => {
            let (left, right) = (left.type_name(), right.type_name());
            Err(refuse(format!("values of type {left} and {right} have no order")))
        }
    }
}

pub fn less(left: &Value, right: &Value) -> Result<bool> {
    Ok(order(left, right, 0)? == Some(Ordering::Less))
}

pub fn compare(comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
    let ordered = |wanted: &[Ordering]| {
        order(left, right, 0).map(|order| order.is_some_and(|order| wanted.contains(&order)))
    };
    match comparison {
        Comparison::Equal => equals(left, right),
        Comparison::NotEqual => Ok(!equals(left, right)?),
        Comparison::Less => ordered(&[Ordering::Less]),
        Comparison::LessOrEqual => ordered(&[Ordering::Less, Ordering::Equal]),
        Comparison::Greater => ordered(&[Ordering::Greater]),
        Comparison::GreaterOrEqual => ordered(&[Ordering::Greater, Ordering::Equal]),
        Comparison::In => contains(right, left),
        Comparison::NotIn => Ok(!contains(right, left)?),
    }
}

/// item in container.
pub fn contains(container: &Value, item: &Value) -> Result<bool> {
    if let Some(text) = container.as_text() {
        let item = item.as_text().ok_or_else(|| item.is_not("a string to look for in one"))?;
        return Ok(text.contains(item));
    }
    if let Value::Dict(dict) = container {
        return in_dict(dict, item);
    }
    match container.as_object() {
        Some(Object::View(View::Keys, dict)) => return in_dict(dict, item),
        Some(Object::Namespace(_)) => return Err(container.is_not("a container")),
        _ => {}
    }
    for other in container.items()? {
        if same_or_equal(&other?, item, 0)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn in_dict(dict: &crate::value::Dict, item: &Value) -> Result<bool> {
    match is_hashable(item)? {
        true => Ok(dict.contains_key(&Key(item.clone()))),
        false => Err(item.is_not("a key")),
    }
}

/// left ~ right and so on.
pub fn concatenate(values: &[Value], as_markup: bool, max_bytes: usize) -> Result<Value> {
    let markup = as_markup && values.iter().any(|value| matches!(value, Value::Markup(_)));
    let mut out = String::new();
    for value in values {
        let text = python_str(value, max_bytes)?;
        match markup && !matches!(value, Value::Markup(_)) {
            true => out.push_str(&escaped(&text)),
            false => out.push_str(&text),
        }
        if out.len() > max_bytes {
            return Err(refuse("the text is too long"));
        }
    }
    Ok(if markup { Value::Markup(Arc::new(out)) } else { out.into() })
}

/// value[index]: nothing where Python raises a LookupError or a TypeError.
pub fn item(value: &Value, index: &Value) -> Result<Option<Value>> {
    let at = |length: usize| {
        let index = index.as_integer()?;
        let index = if index < 0 { index + length as i128 } else { index };
        usize::try_from(index).ok().filter(|index| *index < length)
    };
    Ok(match value {
        Value::Undefined(_) => return Err(value.is_not("defined")),
        Value::List(items) | Value::Tuple(items) => at(items.len()).map(|at| items[at].clone()),
        Value::Dict(dict) if is_hashable(index)? => dict.get(&Key(index.clone())).cloned(),
        Value::Text(text) | Value::Markup(text) => match index.as_integer() {
            Some(0..) if text.is_ascii() => {
                at(text.len()).map(|at| text[at..=at].to_string().into())
            }
            Some(_) => at(text.chars().count())
                .and_then(|at| text.chars().nth(at))
                .map(|letter| letter.to_string().into()),
            None => None,
        },
        Value::Object(object) => match &**object {
            Object::Range(range) => at(range.length).map(|at| range.at(at)),
            _ => None,
        },
        _ => None,
    })
}

/// The places of value[start:stop:step], as slice.indices counts them.
fn places(length: usize, bounds: [Option<i128>; 3]) -> Result<(i128, i128, usize)> {
    let length = length as i128;
    let step = bounds[2].unwrap_or(1).clamp(-(1 << 62), 1 << 62);
    if step == 0 {
        return Err(refuse("the step of a slice must not be zero"));
    }
    let (lowest, highest) = if step < 0 { (-1, length - 1) } else { (0, length) };
    let place = |bound: Option<i128>, otherwise: i128| match bound {
        None => otherwise,
        Some(bound) if bound < 0 => (bound.saturating_add(length)).max(lowest),
        Some(bound) => bound.min(highest),
    };
    let (start, stop) = match step < 0 {
        true => (place(bounds[0], highest), place(bounds[1], lowest)),
        false => (place(bounds[0], lowest), place(bounds[1], highest)),
    };
    let distance = if step < 0 { start - stop } else { stop - start };
    let count = if distance <= 0 { 0 } else { (distance - 1) / step.abs() + 1 };
    Ok((start, step, count as usize))
}

pub fn slice(value: &Value, bounds: [Option<Value>; 3]) -> Result<Value> {
    let mut numbers = [None; 3];
    for (number, bound) in numbers.iter_mut().zip(&bounds) {
        *number = match bound {
            None | Some(Value::None) => None,
            Some(bound) => Some(bound.as_integer().ok_or_else(|| bound.is_not("an index"))?),
        };
    }
    let chosen = |items: &[Value]| -> Result<Vec<Value>> {
        let (start, step, count) = places(items.len(), numbers)?;
        Ok((0..count as i128).map(|i| items[(start + i * step) as usize].clone()).collect())
    };
    match value {
        Value::List(items) => Ok(chosen(items)?.into()),
        Value::Tuple(items) => Ok(Value::tuple(chosen(items)?)),
        Value::Text(text) => Ok(text_slice(text, numbers)?.into()),
        Value::Markup(text) => Ok(Value::Markup(Arc::new(text_slice(text, numbers)?))),
        Value::Object(object) => match &**object {
            Object::Range(range) => {
                let (start, step, length) = places(range.length, numbers)?;
                // Beyond the numbers that there are only where at most one is left.
                let start = range.start.saturating_add(range.step.saturating_mul(start));
                let step = range.step.saturating_mul(step);
                let range = crate::value::Range { start, step, length };
                Ok(Object::Range(range).into())
            }
            _ => Err(value.is_not("a sequence")),
        },
        _ => Err(value.is_not("a sequence")),
    }
}

fn text_slice(text: &str, bounds: [Option<i128>; 3]) -> Result<String> {
    let (start, step, count) = places(text.chars().count(), bounds)?;
    if step == 1 {
        return Ok(text.chars().skip(start as usize).take(count).collect());
    }
    let letters: Vec<char> = text.chars().collect();
    Ok((0..count as i128).map(|i| letters[(start + i * step) as usize]).collect())
}

/// sorted(items): stable; `key` of each is what is compared.
pub fn sorted(items: Vec<Value>, keys: Vec<Value>, reverse: bool) -> Result<Vec<(Value, Value)>> {
    let mut pairs: Vec<(Value, Value)> = keys.into_iter().zip(items).collect();
    if reverse {
        pairs.reverse();
    }
    let mut width = 1;
    while width < pairs.len() {
        let mut merged = Vec::with_capacity(pairs.len());
        for chunk in pairs.chunks(2 * width) {
            let (left, right) = chunk.split_at(width.min(chunk.len()));
            merge(left, right, &mut merged)?;
        }
        pairs = merged;
        width *= 2;
    }
    if reverse {
        pairs.reverse();
    }
    Ok(pairs)
}

fn merge(
    mut left: &[(Value, Value)],
    mut right: &[(Value, Value)],
    out: &mut Vec<(Value, Value)>,
) -> Result<()> {
    while let (Some(first), Some(second)) = (left.first(), right.first()) {
        if less(&second.0, &first.0)? {
            out.push(second.clone());
            right = &right[1..];
        } else {
            out.push(first.clone());
            left = &left[1..];
        }
    }
    out.extend(left.iter().chain(right).cloned());
    Ok(())
}

/// The items of a value, of which one is nothing more than a copy.
pub fn reversed(value: &Value) -> Result<Value> {
    let mut items = value.collect()?;
    items.reverse();
    Ok(match value.as_object() {
        Some(Object::Iterator(_)) => items.into(),
        _ => Value::stream(items),
    })
}
