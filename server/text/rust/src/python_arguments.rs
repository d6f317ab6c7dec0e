//! Arguments of a method or filter bound to parameters as Python binds them.

use minijinja::value::{from_args, Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

pub struct Arguments(Vec<Option<Value>>);

impl Arguments {
    /// `parameters` in order; one without a name is given by its place only.
    pub fn bind(args: &[Value], parameters: &[&str]) -> Result<Arguments, Error> {
        let (positional, by_name): (&[Value], Kwargs) = from_args(args)?;
        if positional.len() > parameters.len() {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        let mut bound: Vec<Option<Value>> = positional.iter().cloned().map(Some).collect();
        for name in &parameters[positional.len()..] {
            bound.push(match name.is_empty() {
                true => None,
                false => by_name.get(name)?,
            });
        }
        by_name.assert_all_used()?;
        Ok(Arguments(bound))
    }

    /// Nothing where it was not given.
    pub fn given(&self, index: usize) -> Option<&Value> {
        self.0[index].as_ref()
    }

    pub fn is_true(&self, index: usize) -> bool {
        self.given(index).is_some_and(Value::is_true)
    }

    /// Nothing where it was not given or is None.
    fn some(&self, index: usize) -> Option<&Value> {
        self.given(index).filter(|value| value.kind() != ValueKind::None)
    }

    pub fn integer(&self, index: usize) -> Result<Option<i64>, Error> {
        match self.some(index) {
            Some(value) if value.is_integer() || value.kind() == ValueKind::Bool => {
                i64::try_from(value.clone()).map(Some)
            }
            Some(value) => Err(wrong_kind("an integer", value)),
            None => Ok(None),
        }
    }

    pub fn text(&self, index: usize) -> Result<Option<&str>, Error> {
        match self.some(index) {
            Some(value) => value.as_str().map(Some).ok_or_else(|| wrong_kind("a string", value)),
            None => Ok(None),
        }
    }

    pub fn required_text(&self, index: usize) -> Result<&str, Error> {
        self.text(index)?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))
    }

    pub fn required_integer(&self, index: usize) -> Result<i64, Error> {
        self.integer(index)?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))
    }
}

fn wrong_kind(wanted: &str, value: &Value) -> Error {
    let text = format!("an argument must be {wanted}, not {}", value.kind());
    Error::new(ErrorKind::InvalidOperation, text)
}
