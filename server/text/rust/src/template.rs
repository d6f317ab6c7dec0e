//! A chat template as transformers renders it: Jinja2 with trim_blocks and lstrip_blocks, the loop
//! controls, raise_exception, strftime_now, tojson without HTML escapes and Python's string
//! methods, compiled and rendered within a budget.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::budget::{self, Limits, Outcome};
use crate::jinja_parser::parse;
use crate::jinja_renderer::Renderer;
use crate::jinja_syntax::{Block, Name};
use crate::json_input;
use crate::turns::Turns;
use crate::value::{Dict, Error, Fault, Key, Value};
use crate::{Failure, FailureKind};

/// Statements and expressions of one rendering. Published templates need about a hundred a message.
const STEPS: u64 = 1_000_000;
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
    block: Arc<Block>,
    max_output_bytes: usize,
    /// Of its source; disabled when a rendering could not be stopped and may have left a parked
    /// thread behind, or was late for little too often.
    key: u64,
    late_for_little: AtomicUsize,
}

/// One key of a message.
pub struct Member {
    pub name: String,
    pub value: String,
    /// Whether the value is JSON, or the text itself.
    pub is_json: bool,
}

pub struct Rendering {
    pub messages: Vec<Vec<Member>>,
    pub arguments: Option<String>,             // a JSON object
    pub special_tokens: Vec<(String, String)>, // (variable, text), such as bos_token
    pub add_generation_prompt: bool,
    pub now_seconds: i64, // since 1970, UTC
}

/// Neither the template's source nor values.
fn failure_of(error: Error) -> Failure {
    let over = |text: String| Failure::new(FailureKind::OverBudget, text);
    match error.fault {
        Fault::Raised => {
            Failure::new(FailureKind::Raised, error.text.chars().take(2000).collect::<String>())
        }
        Fault::OutOfTime => {
            let seconds = TIME_LIMIT.as_secs();
            over(format!("the chat template ran for more than {seconds} s of a processor"))
        }
        Fault::OutOfSteps => over(format!("the chat template ran for more than {STEPS} steps")),
        Fault::OutputFull => over("the chat template writes a longer text than allowed".into()),
        Fault::Refused => {
            let text: String = error.text.chars().take(300).collect();
            let text = format!("{text} (line {} of the chat template)", error.line);
            Failure::new(FailureKind::Refused, text)
        }
    }
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

/// The members of the JSON object that holds the request's own variables.
fn arguments_of(text: &str) -> Result<Rc<Dict>, Failure> {
    let refused = |reason: String| {
        Failure::new(FailureKind::BadArguments, format!("must be a JSON object: {reason}"))
    };
    match json_input::parse(text).map_err(refused)? {
        Value::Dict(dict) => Ok(dict),
        _ => Err(refused("it is another value".to_string())),
    }
}

fn message_of(members: Vec<Member>) -> Result<Value, Failure> {
    let mut message = Dict::default();
    for member in members {
        let value = match member.is_json {
            true => json_input::parse(&member.value).map_err(|reason| {
                let text = format!("have {} that are no JSON: {reason}", member.name);
                Failure::new(FailureKind::Refused, text)
            })?,
            false => member.value.into(),
        };
        message.insert(Key(member.name.into()), value);
    }
    Ok(message.into())
}

fn variables_of(rendering: Rendering) -> Result<Vec<(Name, Value)>, Failure> {
    // transformers always passes these two; the template finds None where there are none.
    let mut variables =
        vec![(Name::from("tools"), Value::None), (Name::from("documents"), Value::None)];
    for (name, text) in rendering.special_tokens {
        variables.push((name.into(), text.into()));
    }
    if let Some(arguments) = rendering.arguments {
        for (name, value) in arguments_of(&arguments)?.iter() {
            let name = name.0.as_text().unwrap_or_default();
            if name == "messages" || name == "add_generation_prompt" {
                let text = format!("must not override {name}");
                return Err(Failure::new(FailureKind::BadArguments, text));
            }
            variables.push((name.into(), value.clone()));
        }
    }
    let messages = rendering.messages.into_iter().map(message_of);
    let messages = messages.collect::<Result<Vec<Value>, Failure>>()?;
    variables.push(("messages".into(), messages.into()));
    variables.push(("add_generation_prompt".into(), rendering.add_generation_prompt.into()));
    Ok(variables)
}

fn render_now(block: &Block, rendering: Rendering, limit: usize) -> Result<String, Failure> {
    let mut renderer = Renderer::new(STEPS, limit, rendering.now_seconds);
    renderer.render(block, &variables_of(rendering)?).map_err(failure_of)
}

impl ChatTemplate {
    pub fn compile(source: &str, max_output_bytes: usize) -> Result<ChatTemplate, Failure> {
        let key = key_of(source);
        let source = source.to_string();
        let memory_bytes = BASE_MEMORY_BYTES + MEMORY_PER_INPUT_BYTE * source.len();
        // The compiler never looks whether it should stop.
        let limits = Limits { memory_bytes, time: TIME_LIMIT, grace: Duration::ZERO };
        let _turn = TURNS.take();
        refuse_if_disabled(key)?;
        let compiled = budget::run(limits, move || parse(&source).map_err(failure_of));
        if matches!(compiled, Outcome::OutOfMemory | Outcome::OutOfTime) {
            disable(key);
        }
        Ok(ChatTemplate {
            block: Arc::new(settle(compiled)?),
            max_output_bytes,
            key,
            late_for_little: AtomicUsize::new(0),
        })
    }

    pub fn render(&self, rendering: Rendering) -> Result<String, Failure> {
        let _turn = TURNS.take();
        // Asked now: another may have disabled it during the wait.
        refuse_if_disabled(self.key)?;
        let pairs = rendering.special_tokens.iter();
        let members = rendering.messages.iter().flatten();
        let input_bytes: usize = pairs.map(|(a, b)| a.len() + b.len() + 64).sum::<usize>()
            + members.map(|member| member.name.len() + member.value.len() + 64).sum::<usize>()
            + rendering.arguments.as_ref().map_or(0, String::len);
        let memory_bytes = BASE_MEMORY_BYTES + MEMORY_PER_INPUT_BYTE * input_bytes;
        let limits = Limits { memory_bytes, time: TIME_LIMIT, grace: GRACE };
        let (block, limit) = (self.block.clone(), self.max_output_bytes);
        let outcome = budget::run(limits, move || render_now(&block, rendering, limit));
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
