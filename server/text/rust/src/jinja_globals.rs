//! Jinja2's cycler and joiner.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use minijinja::value::{from_args, Object, ObjectRepr, Rest};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use crate::python_values::refuse;

#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    place: AtomicUsize,
}

impl Cycler {
    fn current(&self) -> Value {
        self.items[self.place.load(Ordering::Relaxed)].clone()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current())
    }
    fn call_method(
        self: &Arc<Self>,
        _state: &State,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let () = from_args(args)?;
        let next = match method {
            "next" => (self.place.load(Ordering::Relaxed) + 1) % self.items.len(),
            "reset" => 0,
            _ => return Err(Error::from(ErrorKind::UnknownMethod)),
        };
        let current = if method == "next" { self.current() } else { Value::from(()) };
        self.place.store(next, Ordering::Relaxed);
        Ok(current)
    }
}

#[derive(Debug)]
struct Joiner {
    separator: Value,
    used: AtomicBool,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn call(self: &Arc<Self>, _state: &State, args: &[Value]) -> Result<Value, Error> {
        let () = from_args(args)?;
        let used = self.used.swap(true, Ordering::Relaxed);
        Ok(if used { self.separator.clone() } else { "".into() })
    }
}

pub fn add_globals(environment: &mut Environment<'static>) {
    environment.remove_global("debug"); // minijinja's own
    environment.add_function("cycler", |items: Rest<Value>| match items.is_empty() {
        true => Err(refuse("cycler needs an item")),
        false => Ok(Value::from_object(Cycler { items: items.0, place: AtomicUsize::new(0) })),
    });
    environment.add_function("joiner", |separator: Option<Value>| {
        let separator = separator.unwrap_or_else(|| ", ".into());
        Value::from_object(Joiner { separator, used: AtomicBool::new(false) })
    });
}
