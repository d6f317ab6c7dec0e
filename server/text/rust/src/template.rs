//! A chat template as transformers renders it: Jinja2 with trim_blocks and lstrip_blocks, the loop
//! controls, raise_exception, strftime_now, tojson without HTML escapes and Python's string
//! methods, compiled and rendered within a budget.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use minijinja::value::{from_args, Kwargs, Rest};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

use crate::budget::{self, Limits, Outcome};
use crate::python_values::{json_dumps, python_str, JsonForm};
use crate::turns::Turns;
use crate::{Failure, FailureKind};

/// Instructions of one rendering. Published templates need about a hundred a message.
const FUEL: u64 = 1_000_000;
/// Nested macro calls and includes.
const RECURSION_LIMIT: usize = 100;
const BASE_MEMORY_BYTES: usize = 128 << 20;
/// Further bytes for each byte of messages and arguments: their own values, captured blocks.
const MEMORY_PER_INPUT_BYTE: usize = 64;
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How long a rendering that is asked to stop may take to its next printed value or method call.
const GRACE: Duration = Duration::from_secs(3);
/// Templates take milliseconds for this much. One that spends its time on it again and again would
/// only keep the others from their turns.
const LITTLE_INPUT: usize = 64 << 10;
const MOST_LATE_FOR_LITTLE: usize = 3;
/// Each may hold its memory budget.
static TURNS: Turns = Turns::new(4);
const MAX_INDENT: usize = 64;

const NAME: &str = "chat_template";

pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    max_output_bytes: usize,
    /// A rendering could not be stopped and may have left a parked thread behind, or was late for
    /// little too often.
    disabled: AtomicBool,
    late_for_little: AtomicUsize,
}

pub struct Rendering {
    pub messages: Vec<(String, String)>,       // (role, content)
    pub arguments: Option<String>,             // a JSON object
    pub special_tokens: Vec<(String, String)>, // (variable, text), such as bos_token
    pub add_generation_prompt: bool,
    pub now_seconds: i64, // since 1970, UTC
}

/// Carries what the template itself said through raise_exception.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Ends a rendering that was asked to stop.
#[derive(Debug)]
struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

fn stop_if_asked() -> Result<(), Error> {
    if budget::asked_to_stop() {
        return Err(Error::new(ErrorKind::InvalidOperation, "out of time").with_source(Stopped));
    }
    Ok(())
}

/// Stops the rendering when the text is longer than allowed.
struct CappedOutput {
    text: Vec<u8>,
    limit: usize,
    full: bool,
}

impl io::Write for CappedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.text.len() {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let text = message.as_str().map_or_else(|| message.to_string(), str::to_string);
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(Raised(text)))
}

fn tojson(value: &Value, kwargs: Kwargs, max_bytes: usize) -> Result<Value, Error> {
    let indent = match kwargs.get::<Option<usize>>("indent")? {
        Some(indent) if indent > MAX_INDENT => {
            return Err(Error::new(ErrorKind::InvalidOperation, "indent is too large"));
        }
        indent => indent,
    };
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let separators = match separators.as_deref() {
        None => None,
        Some([item, key]) => Some((item.clone(), key.clone())),
        Some(_) => {
            return Err(Error::new(ErrorKind::InvalidOperation, "separators needs two strings"));
        }
    };
    let sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    if kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false) {
        let text = "tojson writes every character as it is: ensure_ascii must be false";
        return Err(Error::new(ErrorKind::InvalidOperation, text));
    }
    kwargs.assert_all_used()?;
    json_dumps(value, JsonForm { indent, separators, sort_keys }, max_bytes).map(Value::from)
}

/// Upper case for the first character and those after one that `starts_word`, lower case for the rest.
fn title_case(text: &str, starts_word: impl Fn(char) -> bool) -> String {
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

/// Python's str methods, dict.get and the like, where they differ from minijinja's own set.
fn python_method(
    state: &State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    stop_if_asked()?;
    if let Some(text) = value.as_str() {
        match method {
            "title" => {
                let () = from_args(args)?;
                return Ok(title_case(text, |c| !c.is_alphabetic()).into());
            }
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(text.strip_prefix(prefix).unwrap_or(text).into());
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(text.strip_suffix(suffix).unwrap_or(text).into());
            }
            "isalnum" | "isalpha" | "isdigit" | "islower" | "isnumeric" | "isspace" | "isupper"
                if text.is_empty() =>
            {
                return Ok(false.into());
            }
            // The general implementation does not end for an empty string.
            "count" if args.first().and_then(Value::as_str) == Some("") => {
                return Ok((text.chars().count() + 1).into());
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// datetime.strftime of a date without a time zone, in the C locale, for `seconds` in UTC.
fn strftime(seconds: i64, format: &str) -> Result<Value, Error> {
    let refused = || Error::new(ErrorKind::InvalidOperation, "strftime_now: invalid format");
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

/// transformers' {% generation %} blocks only mark the assistant's text: they become scopes.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let length = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(length);
        let words = tag.trim_start_matches("{%").trim_end_matches("%}");
        match words.trim_matches(['-', '+']).trim() {
            "generation" => out.push_str(&tag.replace("generation", "with")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endwith")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn environment(max_output_bytes: usize) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python_method);
    environment.set_formatter(move |out, _, value| {
        stop_if_asked()?;
        let written = match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&python_str(value, max_output_bytes)?),
        };
        written.map_err(Error::from)
    });
    environment.add_function("raise_exception", |message: &Value| raise_exception(message));
    environment.add_filter(
        "tojson",
        move |value: &Value, arguments: Rest<Value>, kwargs: Kwargs| {
            if arguments.is_empty() {
                tojson(value, kwargs, max_output_bytes)
            } else {
                Err(Error::from(ErrorKind::TooManyArguments))
            }
        },
    );
    // Jinja2's filter begins words in fewer places than Python's method.
    environment.add_filter("title", move |value: &Value| {
        let text = python_str(value, max_output_bytes)?;
        Ok::<_, Error>(title_case(&text, |c| c.is_whitespace() || "-({[<".contains(c)))
    });
    environment.add_filter("string", move |value: &Value| python_str(value, max_output_bytes));
    environment
}

/// The first line of what went wrong: neither the template's source nor values.
fn describe(error: &Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text.push_str(": ");
        text.extend(detail.chars().take(300));
    }
    if let Some(line) = error.line() {
        text.push_str(&format!(" (line {line} of the chat template)"));
    }
    text
}

fn failure_of(error: Error, output_full: bool) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(Raised(text)) = cause.downcast_ref::<Raised>() {
            return Failure::new(FailureKind::Raised, text.chars().take(2000).collect::<String>());
        }
        if cause.is::<Stopped>() {
            let seconds = TIME_LIMIT.as_secs();
            let text = format!("the chat template ran for more than {seconds} s of a processor");
            return Failure::new(FailureKind::OverBudget, text);
        }
        if cause.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfFuel) {
            let text = format!("the chat template ran for more than {FUEL} steps");
            return Failure::new(FailureKind::OverBudget, text);
        }
        source = cause.source();
    }
    if output_full {
        let text = "the chat template writes a longer text than allowed";
        return Failure::new(FailureKind::OverBudget, text);
    }
    Failure::new(FailureKind::Refused, describe(&error))
}

fn settle<T>(outcome: Outcome<Result<T, Failure>>) -> Result<T, Failure> {
    match outcome {
        Outcome::Done(result) | Outcome::Late(result) => result,
        Outcome::Panicked(failure) => Err(failure),
        Outcome::NoThread(text) => Err(Failure::new(FailureKind::Internal, text)),
        Outcome::OutOfMemory | Outcome::OutOfTime => Err(Failure::new(
            FailureKind::Disabled,
            "the chat template used more memory or time than allowed and is disabled",
        )),
    }
}

/// A JSON object's members.
fn parse_arguments(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::new(FailureKind::BadArguments, format!("must be a JSON object: {error}"))
    })
}

fn context_of(rendering: Rendering) -> Result<Value, Failure> {
    let mut variables: Vec<(String, Value)> = Vec::new();
    for (name, text) in rendering.special_tokens {
        variables.push((name, text.into()));
    }
    let now = rendering.now_seconds;
    let strftime_now = Value::from_function(move |format: &str| strftime(now, format));
    variables.push(("strftime_now".to_string(), strftime_now));
    if let Some(arguments) = rendering.arguments {
        for (name, value) in parse_arguments(&arguments)? {
            if name == "messages" || name == "add_generation_prompt" {
                let text = format!("must not override {name}");
                return Err(Failure::new(FailureKind::BadArguments, text));
            }
            variables.push((name, Value::from_serialize(value)));
        }
    }
    let messages = rendering.messages.into_iter().map(|(role, content)| {
        Value::from_iter([("role", Value::from(role)), ("content", Value::from(content))])
    });
    variables.push(("messages".to_string(), messages.collect::<Vec<_>>().into()));
    let add_generation_prompt = rendering.add_generation_prompt.into();
    variables.push(("add_generation_prompt".to_string(), add_generation_prompt));
    Ok(Value::from_iter(variables))
}

fn render_now(
    environment: &Environment<'static>,
    rendering: Rendering,
    limit: usize,
) -> Result<String, Failure> {
    let context = context_of(rendering)?;
    let template = environment.get_template(NAME).map_err(|error| failure_of(error, false))?;
    let mut output = CappedOutput { text: Vec::new(), limit, full: false };
    let rendered = template.render_captured_to(context, &mut output).map(|_| ());
    rendered.map_err(|error| failure_of(error, output.full))?;
    String::from_utf8(output.text)
        .map_err(|_| Failure::new(FailureKind::Internal, "the rendered text is not UTF-8"))
}

impl ChatTemplate {
    pub fn compile(source: &str, max_output_bytes: usize) -> Result<ChatTemplate, Failure> {
        // Outside the budget: initialises tables that every template shares.
        let mut environment = environment(max_output_bytes);
        let source = without_generation_tags(source);
        let memory_bytes = BASE_MEMORY_BYTES + MEMORY_PER_INPUT_BYTE * source.len();
        // The compiler never looks whether it should stop.
        let limits = Limits { memory_bytes, time: TIME_LIMIT, grace: Duration::ZERO };
        let _turn = TURNS.take();
        let compiled =
            budget::run(limits, move || match environment.add_template_owned(NAME, source) {
                Ok(()) => Ok(environment),
                Err(error) => Err(failure_of(error, false)),
            });
        Ok(ChatTemplate {
            environment: Arc::new(settle(compiled)?),
            max_output_bytes,
            disabled: AtomicBool::new(false),
            late_for_little: AtomicUsize::new(0),
        })
    }

    pub fn render(&self, rendering: Rendering) -> Result<String, Failure> {
        let _turn = TURNS.take();
        // Asked now: another may have disabled it during the wait.
        if self.disabled.load(Ordering::Acquire) {
            let text = "the chat template used more memory or time than allowed before";
            return Err(Failure::new(FailureKind::Disabled, text));
        }
        let pairs = rendering.messages.iter().chain(&rendering.special_tokens);
        let input_bytes: usize = pairs.map(|(a, b)| a.len() + b.len() + 64).sum::<usize>()
            + rendering.arguments.as_ref().map_or(0, String::len);
        let memory_bytes = BASE_MEMORY_BYTES + MEMORY_PER_INPUT_BYTE * input_bytes;
        let limits = Limits { memory_bytes, time: TIME_LIMIT, grace: GRACE };
        let (environment, limit) = (self.environment.clone(), self.max_output_bytes);
        let outcome = budget::run(limits, move || render_now(&environment, rendering, limit));
        if self.must_not_run_again(&outcome, input_bytes) {
            self.disabled.store(true, Ordering::Release);
        }
        settle(outcome)
    }

    fn must_not_run_again<T>(&self, outcome: &Outcome<T>, input_bytes: usize) -> bool {
        match outcome {
            Outcome::OutOfMemory | Outcome::OutOfTime => true,
            Outcome::Late(_) if input_bytes <= LITTLE_INPUT => {
                self.late_for_little.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_LATE_FOR_LITTLE
            }
            _ => false,
        }
    }
}
