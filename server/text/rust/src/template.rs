//! A chat template as transformers renders it: Jinja2 with trim_blocks and lstrip_blocks, the loop
//! controls, raise_exception, strftime_now, tojson without HTML escapes and Python's string
//! methods, compiled and rendered within a budget.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ffi::CString;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use minijinja::value::{from_args, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

use crate::budget::{self, Limits, Outcome};
use crate::jinja_filters::{add_filters, add_tests, escaped, pairs_of};
use crate::jinja_globals::add_globals;
use crate::python_strings;
use crate::python_values::{python_str, refuse, DictView};
use crate::template_source;
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

const NAME: &str = "chat_template";

/// The sources that must not be run again in this process, so that loading a model anew is no way
/// around it. The oldest are forgotten.
static DISABLED: Mutex<VecDeque<u64>> = Mutex::new(VecDeque::new());
const MOST_DISABLED: usize = 1024;

/// A name for a source that nobody outside the process can foresee.
fn key_of(source: &str) -> u64 {
    static KEYS: OnceLock<RandomState> = OnceLock::new();
    KEYS.get_or_init(RandomState::new).hash_one(source)
}

fn disable(key: u64) {
    let mut disabled = DISABLED.lock().unwrap();
    if disabled.len() == MOST_DISABLED {
        disabled.pop_front();
    }
    disabled.push_back(key);
}

fn refuse_if_disabled(key: u64) -> Result<(), Failure> {
    if DISABLED.lock().unwrap().contains(&key) {
        let text = "the chat template used more memory or time than allowed before";
        return Err(Failure::new(FailureKind::Disabled, text));
    }
    Ok(())
}

pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    max_output_bytes: usize,
    /// Of its source; disabled when a rendering could not be stopped and may have left a parked
    /// thread behind, or was late for little too often.
    key: u64,
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

/// Methods of Python's values, where they differ from minijinja's own set.
fn python_method(
    state: &State,
    value: &Value,
    method: &str,
    args: &[Value],
    max_bytes: usize,
) -> Result<Value, Error> {
    stop_if_asked()?;
    let result = match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            python_strings::call(text, method, args, max_bytes)?
        }
        ValueKind::Map => dict_method(value, method, args)?,
        ValueKind::Seq if method == "index" => Some(index_of(value, args)?),
        _ => None,
    };
    match result {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn dict_method(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let view = match method {
        "items" => DictView { name: "dict_items", items: pairs_of(value)? },
        "keys" => DictView { name: "dict_keys", items: value.try_iter()?.collect() },
        "values" => {
            let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
            let items = pairs.into_iter().flatten().map(|(_, value)| value).collect();
            DictView { name: "dict_values", items }
        }
        _ => return Ok(None),
    };
    let () = from_args(args)?;
    Ok(Some(Value::from_object(view)))
}

fn index_of(list: &Value, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (&Value,) = from_args(args)?;
    let place = list.try_iter()?.position(|item| item == *wanted);
    Ok(place.ok_or_else(|| refuse("the value is not in the list"))?.into())
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

fn environment(max_output_bytes: usize) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(move |state, value, method, args| {
        python_method(state, value, method, args, max_output_bytes)
    });
    environment.set_formatter(move |out, state, value| {
        stop_if_asked()?;
        let text = match value.as_str() {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(python_str(value, max_output_bytes)?),
        };
        let written = match state.auto_escape() {
            AutoEscape::Html if !value.is_safe() => out.write_str(&escaped(&text)),
            _ => out.write_str(&text),
        };
        written.map_err(Error::from)
    });
    environment.add_function("raise_exception", |message: &Value| raise_exception(message));
    add_filters(&mut environment, max_output_bytes);
    add_tests(&mut environment);
    add_globals(&mut environment);
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
        Outcome::TooManyLost => Err(Failure::new(
            FailureKind::Disabled,
            format!(
                "{} chat templates could not be stopped: none is used until the server is restarted",
                budget::MOST_LOST_THREADS
            ),
        )),
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
    // transformers always passes these two; the template finds None where there are none.
    let mut variables: Vec<(String, Value)> =
        vec![("tools".to_string(), ().into()), ("documents".to_string(), ().into())];
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
        let key = key_of(source);
        // Outside the budget: initialises tables that every template shares.
        let mut environment = environment(max_output_bytes);
        let source = template_source::prepare(source);
        let memory_bytes = BASE_MEMORY_BYTES + MEMORY_PER_INPUT_BYTE * source.len();
        // The compiler never looks whether it should stop.
        let limits = Limits { memory_bytes, time: TIME_LIMIT, grace: Duration::ZERO };
        let _turn = TURNS.take();
        refuse_if_disabled(key)?;
        let compiled =
            budget::run(limits, move || match environment.add_template_owned(NAME, source) {
                Ok(()) => Ok(environment),
                Err(error) => Err(failure_of(error, false)),
            });
        if matches!(compiled, Outcome::OutOfMemory | Outcome::OutOfTime) {
            disable(key);
        }
        Ok(ChatTemplate {
            environment: Arc::new(settle(compiled)?),
            max_output_bytes,
            key,
            late_for_little: AtomicUsize::new(0),
        })
    }

    pub fn render(&self, rendering: Rendering) -> Result<String, Failure> {
        let _turn = TURNS.take();
        // Asked now: another may have disabled it during the wait.
        refuse_if_disabled(self.key)?;
        let pairs = rendering.messages.iter().chain(&rendering.special_tokens);
        let input_bytes: usize = pairs.map(|(a, b)| a.len() + b.len() + 64).sum::<usize>()
            + rendering.arguments.as_ref().map_or(0, String::len);
        let memory_bytes = BASE_MEMORY_BYTES + MEMORY_PER_INPUT_BYTE * input_bytes;
        let limits = Limits { memory_bytes, time: TIME_LIMIT, grace: GRACE };
        let (environment, limit) = (self.environment.clone(), self.max_output_bytes);
        let outcome = budget::run(limits, move || render_now(&environment, rendering, limit));
        if self.must_not_run_again(&outcome, input_bytes) {
            disable(self.key);
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
