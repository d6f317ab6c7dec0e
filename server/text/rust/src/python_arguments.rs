//! Arguments of a function, method or filter bound to parameters as Python binds them.

use std::sync::Arc;

use crate::value::{refuse, Error, Result, Value};

/// What a call is given.
#[derive(Default)]
pub struct Given {
    pub by_place: Vec<Value>,
    pub by_name: Vec<(Arc<str>, Value)>,
}

pub struct Arguments(Vec<Option<Value>>);

impl Arguments {
    /// `parameters` in order; one without a name is given by its place only.
    pub fn bind(given: Given, parameters: &[&str]) -> Result<Arguments> {
        if given.by_place.len() > parameters.len() {
            let most = parameters.len();
            return Err(refuse(format!("{} arguments, at most {most}", given.by_place.len())));
        }
        let mut bound: Vec<Option<Value>> = given.by_place.into_iter().map(Some).collect();
        bound.resize(parameters.len(), None);
        for (name, value) in given.by_name {
            let place = parameters.iter().position(|known| !known.is_empty() && **known == *name);
            match place.map(|place| &mut bound[place]) {
                Some(free @ None) => *free = Some(value),
                Some(_) => return Err(refuse(format!("the argument {name} is given twice"))),
                None => return Err(refuse(format!("there is no argument {name}"))),
            }
        }
        Ok(Arguments(bound))
    }

    /// Nothing where it was not given.
    pub fn given(&self, index: usize) -> Option<&Value> {
        self.0[index].as_ref()
    }

    pub fn required(&self, index: usize) -> Result<&Value> {
        self.given(index).ok_or_else(|| refuse("an argument is missing"))
    }

    pub fn is_true(&self, index: usize) -> bool {
        self.given(index).is_some_and(Value::is_true)
    }

    /// Nothing where it was not given or is None.
    pub fn some(&self, index: usize) -> Option<&Value> {
        self.given(index).filter(|value| !value.is_none())
    }

    pub fn integer(&self, index: usize) -> Result<Option<i64>> {
        let Some(value) = self.some(index) else { return Ok(None) };
        let number = value.as_integer().ok_or_else(|| wrong_type("an integer", value))?;
        i64::try_from(number).map(Some).map_err(|_| refuse("a number is too large"))
    }

    pub fn text(&self, index: usize) -> Result<Option<&str>> {
        match self.some(index) {
            Some(value) => value.as_text().map(Some).ok_or_else(|| wrong_type("a string", value)),
            None => Ok(None),
        }
    }

    pub fn required_text(&self, index: usize) -> Result<&str> {
        self.text(index)?.ok_or_else(|| refuse("an argument is missing"))
    }

    pub fn required_integer(&self, index: usize) -> Result<i64> {
        self.integer(index)?.ok_or_else(|| refuse("an argument is missing"))
    }
}

fn wrong_type(wanted: &str, value: &Value) -> Error {
    refuse(format!("an argument must be {wanted}, not {}", value.type_name()))
}
