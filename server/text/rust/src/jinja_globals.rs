//! The functions that every template has: Jinja2's and transformers' own.

use std::cell::Cell;
use std::ffi::CString;
use std::rc::Rc;

use crate::jinja_renderer::Renderer;
use crate::python_arguments::{Arguments, Given};
use crate::python_methods::dict_of;
use crate::python_values::python_str;
use crate::value::{refuse, Error, Fault, Function, Object, Range, Result, Value};

/// Of Jinja2's sandbox.
const LONGEST_RANGE: i128 = 100_000;

pub fn global(name: &str) -> Option<Value> {
    let function = match name {
        "range" => Function::Range,
        "dict" => Function::Dict,
        "namespace" => Function::Namespace,
        "cycler" => Function::Cycler,
        "joiner" => Function::Joiner,
        "lipsum" => Function::Lipsum,
        "raise_exception" => Function::RaiseException,
        "strftime_now" => Function::StrftimeNow,
        _ => return None,
    };
    Some(Object::Function(function).into())
}

pub fn call_function(renderer: &mut Renderer, called: Function, given: Given) -> Result<Value> {
    match called {
        Function::Range => range(given),
        Function::Dict => dict_of(given).map(Value::from),
        Function::Namespace => dict_of(given).map(|attributes| renderer.namespace(attributes)),
        Function::Cycler => match (given.by_place.is_empty(), given.by_name.is_empty()) {
            (false, true) => {
                let items = Rc::new(given.by_place);
                Ok(Object::Cycler { items, place: Cell::new(0) }.into())
            }
            _ => Err(refuse("cycler needs items")),
        },
        Function::Joiner => {
            let arguments = Arguments::bind(given, &["sep"])?;
            let separator = arguments.given(0).cloned().unwrap_or_else(|| ", ".into());
            Ok(Object::Joiner { separator, used: Cell::new(false) }.into())
        }
        Function::Lipsum => Err(refuse("lipsum writes something else every time")),
        Function::RaiseException => {
            let arguments = Arguments::bind(given, &["message"])?;
            let text = python_str(arguments.required(0)?, renderer.max_bytes)?;
            Err(Error { fault: Fault::Raised, text, line: 0 })
        }
        Function::StrftimeNow => {
            let arguments = Arguments::bind(given, &["format"])?;
            strftime(renderer.now_seconds, arguments.required_text(0)?)
        }
    }
}

fn range(given: Given) -> Result<Value> {
    let arguments = Arguments::bind(given, &["", "", ""])?;
    let number = |index: usize| match arguments.given(index) {
        None => Ok(None),
        Some(value) => value.as_integer().map(Some).ok_or_else(|| value.is_not("an integer")),
    };
    let first = number(0)?.ok_or_else(|| refuse("range needs a number"))?;
    let (start, stop) = number(1)?.map_or((0, first), |stop| (first, stop));
    let step = number(2)?.unwrap_or(1);
    if step == 0 {
        return Err(refuse("the step of a range must not be zero"));
    }
    let distance = if step > 0 { stop.checked_sub(start) } else { start.checked_sub(stop) };
    let distance = distance.ok_or_else(|| refuse("a number is too large"))?;
    let length = match distance {
        ..=0 => 0,
        distance => (distance - 1) / step.saturating_abs() + 1,
    };
    if length > LONGEST_RANGE {
        return Err(refuse(format!("a range is longer than {LONGEST_RANGE}")));
    }
    Ok(Object::Range(Range { start, step, length: length as usize }).into())
}

/// datetime.strftime of a date without a time zone, in the C locale, for `seconds` in UTC.
fn strftime(seconds: i64, format: &str) -> Result<Value> {
    let refused = || refuse("strftime_now: invalid format");
    let format = format.replace("%f", "000000").replace("%z", "").replace("%Z", "");
    if format.is_empty() {
        return Ok("".into());
    }
    let format = CString::new(format).map_err(|_| refused())?;
    let mut buffer = [0u8; 1024];
    // SAFETY: gmtime_r fills `time` or returns null; strftime writes at most buffer.len() bytes.
    let length = unsafe {
        let mut time: libc::tm = std::mem::zeroed();
        if libc::gmtime_r(&seconds, &mut time).is_null() {
            return Err(refused());
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &time)
    };
    match std::str::from_utf8(&buffer[..length]) {
        Ok(text) if length > 0 => Ok(text.into()),
        _ => Err(refused()),
    }
}
