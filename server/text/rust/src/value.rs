//! The values of a template are Python's: immutable here but for namespaces, loops and iterators.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::budget;
use crate::jinja_loop::Loop;
use crate::jinja_scope::Macro;
use crate::python_operators::equals;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// An error of the template or of what it was given.
    Refused,
    /// The template's own raise_exception.
    Raised,
    OutOfSteps,
    OutOfTime,
    OutputFull,
}

#[derive(Debug)]
pub struct Error {
    pub fault: Fault,
    pub text: String,
    /// Of the template; 0 where it is not known yet.
    pub line: usize,
}

pub type Result<T> = std::result::Result<T, Error>;

pub fn refuse(text: impl Into<String>) -> Error {
    Error { fault: Fault::Refused, text: text.into(), line: 0 }
}

/// An error once the rendering has spent its time. Asked by whatever one step may do without end:
/// values that hold one another many times over are small and take for ever to walk through.
pub fn keep_going() -> Result<()> {
    match budget::asked_to_stop() {
        true => Err(Error { fault: Fault::OutOfTime, ..refuse("out of time") }),
        false => Ok(()),
    }
}

/// Of a list that is made at once. No template could go through more of them.
pub const MAX_ITEMS: usize = 1 << 20;

pub fn too_many_items() -> Error {
    refuse("the list is too long")
}

pub type Dict = IndexMap<Key, Value>;

#[derive(Clone)]
pub enum Value {
    /// Its name, for the error that most uses of it are.
    Undefined(Option<Arc<str>>),
    None,
    Bool(bool),
    /// Python's have no end: larger ones are refused.
    Int(i128),
    Float(f64),
    Text(Arc<String>),
    /// Text that autoescape leaves alone.
    Markup(Arc<String>),
    List(Rc<Vec<Value>>),
    Tuple(Rc<Vec<Value>>),
    Dict(Rc<Dict>),
    Object(Rc<Object>),
}

pub enum Object {
    Range(Range),
    View(View, Rc<Dict>),
    Iterator(RefCell<Stream>),
    Namespace(RefCell<Dict>),
    Cycler {
        items: Rc<Vec<Value>>,
        place: Cell<usize>,
    },
    Joiner {
        separator: Value,
        used: Cell<bool>,
    },
    Loop(Loop),
    Macro(Macro),
    Function(Function),
    /// Of a value that is not this room's own, such as ' a '.strip.
    Method(Value, Arc<str>),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    Lipsum,
    RaiseException,
    StrftimeNow,
}

#[derive(Clone, Copy, PartialEq)]
pub enum View {
    Keys,
    Values,
    Items,
}

#[derive(Clone, Copy, PartialEq)]
pub struct Range {
    pub start: i128,
    pub step: i128,
    pub length: usize,
}

impl Range {
    pub fn at(&self, index: usize) -> Value {
        Value::Int(self.start + self.step * index as i128)
    }
}

/// What a generator still gives, and how it ends. It is run at once: what it calls has no effects.
#[derive(Default)]
pub struct Stream {
    pub items: VecDeque<Value>,
    pub error: Option<Error>,
}

/// A value as the key of a dict.
#[derive(Clone)]
pub struct Key(pub Value);

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        equals(&self.0, &other.0).unwrap_or(false)
    }
}

impl Eq for Key {}

/// Wrong once time is spent, as equality is: the rendering then ends with an error.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Value::Bool(value) => i128::from(*value).hash(state),
            Value::Int(value) => value.hash(state),
            Value::Float(value) if *value == value.trunc() && value.abs() < 1e38 => {
                (*value as i128).hash(state);
            }
            Value::Float(value) => value.to_bits().hash(state),
            Value::Text(text) | Value::Markup(text) => text.hash(state),
            Value::Tuple(items) => {
                items.len().hash(state);
                for item in items.iter() {
                    if budget::asked_to_stop() {
                        break;
                    }
                    Key(item.clone()).hash(state);
                }
            }
            Value::Object(object) => hash_object(object, state),
            _ => {}
        }
    }
}

/// Of what differs differently, or many keys would be looked for among all.
fn hash_object<H: Hasher>(object: &Rc<Object>, state: &mut H) {
    match &**object {
        Object::Range(range) => {
            range.length.hash(state);
            (range.length > 0).then_some(range.start).hash(state);
            (range.length > 1).then_some(range.step).hash(state);
        }
        Object::Function(function) => (*function as u8).hash(state),
        Object::Method(value, name) => {
            name.hash(state);
            match value {
                Value::List(items) => Rc::as_ptr(items).hash(state),
                Value::Tuple(items) if items.is_empty() => {}
                Value::Tuple(items) => Rc::as_ptr(items).hash(state),
                Value::Dict(dict) => Rc::as_ptr(dict).hash(state),
                Value::Object(object) => Rc::as_ptr(object).hash(state),
                _ => Key(value.clone()).hash(state),
            }
        }
        _ => Rc::as_ptr(object).hash(state),
    }
}

impl indexmap::Equivalent<Key> for str {
    fn equivalent(&self, key: &Key) -> bool {
        key.0.as_text() == Some(self)
    }
}

/// The value as a key; lists and dicts are none.
pub fn key_of(value: Value) -> Result<Key> {
    match is_hashable(&value)? {
        true => Ok(Key(value)),
        false => Err(refuse(format!("a {} is no key", value.type_name()))),
    }
}

pub fn is_hashable(value: &Value) -> Result<bool> {
    keep_going()?;
    Ok(match value {
        Value::List(_) | Value::Dict(_) => false,
        Value::Tuple(items) => {
            for item in items.iter() {
                if !is_hashable(item)? {
                    return Ok(false);
                }
            }
            true
        }
        Value::Object(object) => !matches!(&**object, Object::View(View::Keys | View::Items, _)),
        _ => true,
    })
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(Arc::new(text.to_string()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(Arc::new(text))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Int(value as i128)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Value {
        Value::List(Rc::new(items))
    }
}

impl From<Dict> for Value {
    fn from(dict: Dict) -> Value {
        Value::Dict(Rc::new(dict))
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Value {
        Value::Object(Rc::new(object))
    }
}

impl Value {
    pub fn undefined() -> Value {
        Value::Undefined(None)
    }

    pub fn tuple(items: Vec<Value>) -> Value {
        Value::Tuple(Rc::new(items))
    }

    /// A generator that gives these and then ends.
    pub fn stream(items: impl IntoIterator<Item = Value>) -> Value {
        let stream = Stream { items: items.into_iter().collect(), error: None };
        Object::Iterator(RefCell::new(stream)).into()
    }

    /// A generator of what `produce` pushes until it ends or fails.
    pub fn generate(produce: impl FnOnce(&mut VecDeque<Value>) -> Result<()>) -> Result<Value> {
        let mut stream = Stream::default();
        stream.error = match produce(&mut stream.items) {
            Err(error) if error.fault != Fault::Refused && error.fault != Fault::Raised => {
                return Err(error);
            }
            result => result.err(),
        };
        Ok(Object::Iterator(RefCell::new(stream)).into())
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Markup(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    pub fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    pub fn is_none(&self) -> bool {
        matches!(self, Value::None)
    }

    /// bool and int, as Python's bool is one.
    pub fn as_integer(&self) -> Option<i128> {
        match self {
            Value::Bool(value) => Some(i128::from(*value)),
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            _ => self.as_integer().map(|value| value as f64),
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) | Value::Markup(text) => !text.is_empty(),
            // An iterator has no length and is true.
            _ => self.len() != Some(0),
        }
    }

    /// len(value); nothing where that raises.
    pub fn len(&self) -> Option<usize> {
        match self {
            Value::Undefined(_) => Some(0),
            Value::Text(text) | Value::Markup(text) => Some(text.chars().count()),
            Value::List(items) | Value::Tuple(items) => Some(items.len()),
            Value::Dict(dict) => Some(dict.len()),
            Value::Object(object) => match &**object {
                Object::Range(range) => Some(range.length),
                Object::View(_, dict) => Some(dict.len()),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) => "str",
            Value::Markup(_) => "Markup",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Object(object) => match &**object {
                Object::Range(_) => "range",
                Object::View(View::Keys, _) => "dict_keys",
                Object::View(View::Values, _) => "dict_values",
                Object::View(View::Items, _) => "dict_items",
                Object::Iterator(_) => "generator",
                Object::Namespace(_) => "Namespace",
                Object::Cycler { .. } => "Cycler",
                Object::Joiner { .. } => "Joiner",
                Object::Loop(_) => "LoopContext",
                Object::Macro(_) => "Macro",
                Object::Function(_) => "function",
                Object::Method(..) => "method",
            },
        }
    }

    /// iter(value).
    pub fn items(&self) -> Result<Items> {
        let items = match self {
            Value::Undefined(_) => Items::Listed(Rc::new(Vec::new()), 0),
            Value::Text(text) | Value::Markup(text) => Items::Letters(text.clone(), 0),
            Value::List(items) | Value::Tuple(items) => Items::Listed(items.clone(), 0),
            Value::Dict(dict) => Items::Entries(View::Keys, dict.clone(), 0),
            Value::Object(object) => match &**object {
                Object::Range(range) => Items::Range(*range, 0),
                Object::View(view, dict) => Items::Entries(*view, dict.clone(), 0),
                Object::Iterator(_) => Items::Stream(object.clone()),
                _ => return Err(self.is_not("iterable")),
            },
            _ => return Err(self.is_not("iterable")),
        };
        Ok(items)
    }

    pub fn collect(&self) -> Result<Vec<Value>> {
        match self {
            Value::List(items) | Value::Tuple(items) => Ok(items.to_vec()),
            _ => {
                let items = self.items()?;
                match items.left() {
                    Some(left) if left > MAX_ITEMS => Err(too_many_items()),
                    _ => items.collect(),
                }
            }
        }
    }

    /// "'str' object is not iterable"; what is undefined is called so first.
    pub fn is_not(&self, what: &str) -> Error {
        match self {
            Value::Undefined(Some(name)) => refuse(format!("'{name}' is undefined")),
            Value::Undefined(None) => refuse("a value is undefined"),
            _ => refuse(format!("a value of type {} is not {what}", self.type_name())),
        }
    }
}

/// A walk over the items of a value.
pub enum Items {
    Listed(Rc<Vec<Value>>, usize),
    Letters(Arc<String>, usize), // the next one's byte
    Entries(View, Rc<Dict>, usize),
    Range(Range, usize),
    Stream(Rc<Object>),
}

impl Items {
    /// How many are left, where that is known without walking.
    pub fn left(&self) -> Option<usize> {
        match self {
            Items::Listed(items, at) => Some(items.len() - at),
            Items::Letters(text, at) => Some(text[*at..].chars().count()),
            Items::Entries(_, dict, at) => Some(dict.len() - at),
            Items::Range(range, at) => Some(range.length - at),
            Items::Stream(_) => None,
        }
    }
}

fn advance<T>(at: &mut usize, item: Option<T>) -> Option<T> {
    *at += usize::from(item.is_some());
    item
}

fn entry(view: View, (key, value): (&Key, &Value)) -> Value {
    match view {
        View::Keys => key.0.clone(),
        View::Values => value.clone(),
        View::Items => Value::tuple(vec![key.0.clone(), value.clone()]),
    }
}

impl Iterator for Items {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Result<Value>> {
        match self {
            Items::Listed(items, at) => advance(at, items.get(*at).cloned()).map(Ok),
            Items::Letters(text, at) => {
                let letter = text[*at..].chars().next()?;
                *at += letter.len_utf8();
                Some(Ok(letter.to_string().into()))
            }
            Items::Entries(view, dict, at) => {
                advance(at, dict.get_index(*at)).map(|pair| Ok(entry(*view, pair)))
            }
            Items::Range(range, at) => {
                let item = (*at < range.length).then(|| range.at(*at));
                advance(at, item).map(Ok)
            }
            Items::Stream(object) => {
                let Object::Iterator(stream) = &**object else { return None };
                let mut stream = stream.borrow_mut();
                match stream.items.pop_front() {
                    Some(item) => Some(Ok(item)),
                    None => stream.error.take().map(Err),
                }
            }
        }
    }
}
