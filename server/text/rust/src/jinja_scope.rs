//! Where variables live: one scope a block, each within another.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::jinja_syntax::{self, Name};
use crate::value::Value;

#[derive(Default)]
pub struct Scope {
    variables: RefCell<HashMap<Name, Value>>,
    outer: Option<Rc<Scope>>,
}

/// A macro keeps the scope that it was written in.
pub struct Macro {
    pub node: Arc<jinja_syntax::Macro>,
    pub scope: Rc<Scope>,
    pub autoescape: bool,
}

impl Scope {
    pub fn within(outer: &Rc<Scope>) -> Rc<Scope> {
        Rc::new(Scope { variables: RefCell::default(), outer: Some(outer.clone()) })
    }

    pub fn find(&self, name: &str) -> Option<Value> {
        let mut scope = Some(self);
        while let Some(current) = scope {
            if let Some(value) = current.variables.borrow().get(name) {
                return Some(value.clone());
            }
            scope = current.outer.as_deref();
        }
        None
    }

    pub fn set(&self, name: &Name, value: Value) {
        // What it was is dropped when nothing is borrowed any more.
        let _before = self.variables.borrow_mut().insert(name.clone(), value);
    }

    pub fn clear(&self) {
        let _before = std::mem::take(&mut *self.variables.borrow_mut());
    }
}
