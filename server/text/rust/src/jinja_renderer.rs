//! Walks a template's tree and writes its text, as the Python that Jinja2 makes of it would.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::jinja_filters::{escaped, filter, test};
use crate::jinja_globals::{call_function, global};
use crate::jinja_loop::Loop;
use crate::jinja_scope::{Macro, Scope};
use crate::jinja_syntax::{
    self, Action, Arguments, Constant, Expression, For, Kind, Name, Statement, Target,
};
use crate::python_arguments::Given;
use crate::python_methods::{attribute_of, call_method, Attribute};
use crate::python_operators::{
    binary, compare, concatenate, equals, item, negated, positive, slice,
};
use crate::python_values::python_str;
use crate::value::{keep_going, key_of, refuse, Dict, Error, Fault, Key, Object, Result, Value};

/// Macros and recursive loops within one another. Python gives up at about as many.
const MAX_CALLS: usize = 200;

/// How a block ended.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

pub struct Renderer {
    pub max_bytes: usize,
    pub now_seconds: i64,
    pub autoescape: bool,
    steps: u64,
    calls: usize,
    line: usize,
    root: Rc<Scope>,
    /// What may hold itself: emptied in the end, as nothing else frees a circle.
    scopes: Vec<Rc<Scope>>,
    namespaces: Vec<Rc<Object>>,
}

impl Drop for Renderer {
    fn drop(&mut self) {
        for scope in &self.scopes {
            scope.clear();
        }
        for namespace in &self.namespaces {
            if let Object::Namespace(attributes) = &**namespace {
                let _before = std::mem::take(&mut *attributes.borrow_mut());
            }
        }
    }
}

impl Renderer {
    pub fn new(steps: u64, max_bytes: usize, now_seconds: i64) -> Renderer {
        Renderer {
            max_bytes,
            now_seconds,
            autoescape: false,
            steps,
            calls: 0,
            line: 0,
            root: Rc::default(),
            scopes: Vec::new(),
            namespaces: Vec::new(),
        }
    }

    pub fn render(
        &mut self,
        template: &[Statement],
        variables: &[(Name, Value)],
    ) -> Result<String> {
        let context = Rc::<Scope>::default();
        for (name, value) in variables {
            context.set(name, value.clone());
        }
        self.root = Scope::within(&context);
        let mut out = String::new();
        let rendered = self.block(template, &self.root.clone(), &mut out);
        rendered.map_err(|error| Error { line: self.line, ..error })?;
        // The last step may have been cut short.
        keep_going()?;
        Ok(out)
    }

    /// Counts what is done, and ends it where it is too much.
    pub fn step(&mut self) -> Result<()> {
        keep_going()?;
        if self.steps == 0 {
            return Err(Error { fault: Fault::OutOfSteps, ..refuse("out of steps") });
        }
        self.steps -= 1;
        Ok(())
    }

    fn write(&self, out: &mut String, text: &str) -> Result<()> {
        if out.len().saturating_add(text.len()) > self.max_bytes {
            return Err(Error { fault: Fault::OutputFull, ..refuse("the text is too long") });
        }
        out.push_str(text);
        Ok(())
    }

    fn print(&self, out: &mut String, value: &Value) -> Result<()> {
        match value {
            Value::Text(text) if self.autoescape => self.write(out, &escaped(text)),
            Value::Text(text) | Value::Markup(text) => self.write(out, text),
            _ => {
                let text = python_str(value, self.max_bytes)?;
                self.write(out, &if self.autoescape { escaped(&text) } else { text })
            }
        }
    }

    /// Joins what a call or filter of a block gave: Jinja2 takes nothing but text there.
    fn write_text(&self, out: &mut String, value: &Value) -> Result<()> {
        match value.as_text() {
            Some(text) => self.write(out, text),
            None => Err(value.is_not("text")),
        }
    }

    /// Captured text as a value.
    fn as_value(&self, text: String) -> Value {
        if self.autoescape {
            Value::Markup(Arc::new(text))
        } else {
            text.into()
        }
    }

    fn block(&mut self, block: &[Statement], scope: &Rc<Scope>, out: &mut String) -> Result<Flow> {
        for statement in block {
            self.step()?;
            self.line = statement.line;
            let flow = self.statement(&statement.action, scope, out)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, action: &Action, scope: &Rc<Scope>, out: &mut String) -> Result<Flow> {
        match action {
            Action::Text(text) => self.write(out, text)?,
            Action::Print(expression) => {
                let value = self.value(expression, scope)?;
                self.print(out, &value)?;
            }
            Action::For(node) => return self.for_statement(node, scope, out),
            Action::If(branches, otherwise) => {
                for (test, body) in branches {
                    if self.value(test, scope)?.is_true() {
                        return self.block(body, scope, out);
                    }
                }
                return self.block(otherwise, scope, out);
            }
            Action::Set(target, expression) => {
                self.check_namespaces(target, scope)?;
                let value = self.value(expression, scope)?;
                self.assign(target, value, scope)?;
            }
            Action::SetBlock(target, filter, body) => {
                return self.captured(body, filter.as_ref(), scope, |renderer, value| {
                    // Jinja2 looks for the attribute of a namespace without asking whether it is
                    // one.
                    renderer.assign(target, value, scope)
                });
            }
            Action::Macro(node) => {
                let value = self.macro_value(node, scope);
                if let Some(name) = &node.name {
                    scope.set(name, value);
                }
            }
            Action::CallBlock(call, node) => {
                let caller = self.macro_value(node, scope);
                let value = self.call_expression(call, scope, Some(caller))?;
                self.write_text(out, &value)?;
            }
            Action::FilterBlock(filter, body) => {
                return self.captured(body, Some(filter), scope, |renderer, value| {
                    renderer.write_text(out, &value)
                });
            }
            Action::With(values, body) => {
                let inner = Scope::within(scope);
                for (target, expression) in values {
                    let value = self.value(expression, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.block(body, &inner, out);
            }
            Action::Autoescape(on, body) => {
                let on = self.value(on, scope)?.is_true();
                let before = std::mem::replace(&mut self.autoescape, on);
                let flow = self.block(body, &Scope::within(scope), out)?;
                self.autoescape = before;
                return Ok(flow);
            }
            Action::NamedBlock(body, scoped) => {
                let outer = if *scoped { scope.clone() } else { self.root.clone() };
                self.block(body, &Scope::within(&outer), out)?;
            }
            Action::Generation(node) => {
                self.block(&node.body, &Scope::within(scope), out)?;
            }
            Action::Break => return Ok(Flow::Break),
            Action::Continue => return Ok(Flow::Continue),
            Action::OtherTemplate => return Err(refuse("there is no other template")),
        }
        Ok(Flow::Next)
    }

    /// Gives what `body` writes, filtered, to `take`; nothing where a loop around it goes on or ends
    /// before the body does.
    fn captured(
        &mut self,
        body: &[Statement],
        filter: Option<&Expression>,
        scope: &Rc<Scope>,
        take: impl FnOnce(&mut Self, Value) -> Result<()>,
    ) -> Result<Flow> {
        let inner = Scope::within(scope);
        let mut text = String::new();
        let flow = self.block(body, &inner, &mut text)?;
        if flow != Flow::Next {
            return Ok(flow);
        }
        let text = self.as_value(text);
        let value = match filter {
            Some(filter) => self.filtered(filter, &inner, Some(text))?,
            None => text,
        };
        take(self, value)?;
        Ok(Flow::Next)
    }

    fn macro_value(&mut self, node: &Arc<jinja_syntax::Macro>, scope: &Rc<Scope>) -> Value {
        if !self.scopes.last().is_some_and(|last| Rc::ptr_eq(last, scope)) {
            self.scopes.push(scope.clone());
        }
        let (node, scope) = (node.clone(), scope.clone());
        Object::Macro(Macro { node, scope, autoescape: self.autoescape }).into()
    }

    pub fn namespace(&mut self, attributes: Dict) -> Value {
        let namespace = Rc::new(Object::Namespace(RefCell::new(attributes)));
        self.namespaces.push(namespace.clone());
        Value::Object(namespace)
    }

    fn check_namespaces(&self, target: &Target, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(_) => Ok(()),
            Target::Namespace(name, _) => match scope.find(name) {
                Some(value) if matches!(value.as_object(), Some(Object::Namespace(_))) => Ok(()),
                _ => Err(refuse("cannot assign attribute on non-namespace object")),
            },
            Target::Tuple(targets) => {
                targets.iter().try_for_each(|target| self.check_namespaces(target, scope))
            }
        }
    }

    fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(name) => scope.set(name, value),
            Target::Namespace(name, attribute) => {
                let Some(Value::Object(object)) = scope.find(name) else {
                    return Err(refuse(format!("'{name}' is no namespace")));
                };
                let Object::Namespace(attributes) = &*object else {
                    return Err(refuse(format!("'{name}' is no namespace")));
                };
                let key = Key(Value::from(&**attribute));
                let _before = attributes.borrow_mut().insert(key, value);
            }
            Target::Tuple(targets) => {
                let values = value.collect()?;
                if values.len() != targets.len() {
                    let (wanted, given) = (targets.len(), values.len());
                    return Err(refuse(format!("{given} values for {wanted} names")));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
            }
        }
        Ok(())
    }

    fn for_statement(
        &mut self,
        node: &Arc<For>,
        scope: &Rc<Scope>,
        out: &mut String,
    ) -> Result<Flow> {
        let over = self.value(&node.over, scope)?;
        if !node.recursive {
            return self.for_loop(Loop::new(node, scope, over.items()?, 0), out);
        }
        let mut text = String::new();
        self.for_loop(Loop::new(node, scope, over.items()?, 0), &mut text)?;
        self.write(out, &text)?;
        Ok(Flow::Next)
    }

    fn for_loop(&mut self, state: Loop, out: &mut String) -> Result<Flow> {
        let node = state.node.clone();
        let scope = Scope::within(&state.scope);
        let outer = state.scope.clone();
        let object = Rc::new(Object::Loop(state));
        let Object::Loop(state) = &*object else { unreachable!() };
        let mut went_through = false;
        while let Some(item) = self.next_item(state)? {
            self.step()?;
            scope.clear();
            state.enter(item.clone());
            if node.has_loop {
                scope.set(&Name::from("loop"), Value::Object(object.clone()));
            }
            self.assign(&node.target, item, &scope)?;
            match self.block(&node.body, &scope, out)? {
                Flow::Break => break,
                Flow::Continue => {}
                Flow::Next => went_through = true,
            }
        }
        scope.clear();
        // Jinja2 forgets that there were items where none was gone through to the end.
        match went_through {
            true => Ok(Flow::Next),
            false => self.block(&node.otherwise, &Scope::within(&outer), out),
        }
    }

    fn next_item(&mut self, state: &Loop) -> Result<Option<Value>> {
        let mut feed = state.feed.try_borrow_mut().map_err(|_| refuse("a loop asks itself"))?;
        if let Some(item) = feed.ahead.pop_front() {
            return Ok(Some(item));
        }
        while let Some(item) = feed.items.next().transpose()? {
            let Some(test) = &state.node.test else { return Ok(Some(item)) };
            self.step()?;
            let test_scope = feed.test_scope.clone();
            self.assign(&state.node.target, item.clone(), &test_scope)?;
            if self.value(test, &test_scope)?.is_true() {
                return Ok(Some(match state.node.target {
                    Target::Tuple(_) => Value::tuple(item.collect()?),
                    _ => item,
                }));
            }
        }
        Ok(None)
    }

    fn peek(&mut self, state: &Loop) -> Result<Option<Value>> {
        if let Some(item) = self.next_item(state)? {
            state.feed.borrow_mut().ahead.push_front(item);
        }
        Ok(state.feed.borrow().ahead.front().cloned())
    }

    pub fn loop_length(&mut self, state: &Loop) -> Result<usize> {
        if let Some(length) = state.length.get() {
            return Ok(length);
        }
        let mut rest = std::collections::VecDeque::new();
        while let Some(item) = self.next_item(state)? {
            rest.push_back(item);
        }
        let length = rest.len() + (state.index0.get() + 1) as usize;
        state.feed.borrow_mut().ahead = rest;
        state.length.set(Some(length));
        Ok(length)
    }

    fn loop_attribute(&mut self, state: &Loop, name: &str) -> Result<Option<Value>> {
        let index0 = state.index0.get();
        Ok(Some(match name {
            "index0" => Value::Int(index0),
            "index" => Value::Int(index0 + 1),
            "length" => self.loop_length(state)?.into(),
            "revindex" => Value::Int(self.loop_length(state)? as i128 - index0),
            "revindex0" => Value::Int(self.loop_length(state)? as i128 - index0 - 1),
            "first" => (index0 == 0).into(),
            "last" => self.peek(state)?.is_none().into(),
            "previtem" => state.previous.borrow().clone().unwrap_or_else(Value::undefined),
            "nextitem" => self.peek(state)?.unwrap_or_else(Value::undefined),
            "depth0" => state.depth0.into(),
            "depth" => (state.depth0 + 1).into(),
            _ => return Ok(None),
        }))
    }

    /// value.name as a template asks for it.
    pub fn attribute(&mut self, value: &Value, name: &Name) -> Result<Value> {
        match self.own_attribute(value, name)? {
            Attribute::Found(found) => Ok(found),
            Attribute::Unsafe => Ok(Value::Undefined(Some(name.clone()))),
            Attribute::Missing => {
                let found = item(value, &Value::from(&**name))?;
                Ok(found.unwrap_or_else(|| Value::Undefined(Some(name.clone()))))
            }
        }
    }

    pub fn own_attribute(&mut self, value: &Value, name: &Name) -> Result<Attribute> {
        if let Some(Object::Loop(state)) = value.as_object() {
            if let Some(found) = self.loop_attribute(state, name)? {
                return Ok(Attribute::Found(found));
            }
        }
        attribute_of(value, name)
    }

    /// value[index] as a template asks for it.
    pub fn item(&mut self, value: &Value, index: &Value) -> Result<Value> {
        if let Some(found) = item(value, index)? {
            return Ok(found);
        }
        let Some(name) = index.as_text() else { return Ok(Value::undefined()) };
        let name = Name::from(name);
        match self.own_attribute(value, &name)? {
            Attribute::Found(found) => Ok(found),
            _ => Ok(Value::Undefined(Some(name))),
        }
    }

    pub fn value(&mut self, expression: &Expression, scope: &Rc<Scope>) -> Result<Value> {
        self.step()?;
        let max_bytes = self.max_bytes;
        Ok(match &expression.kind {
            Kind::Constant(constant) => match constant {
                Constant::None => Value::None,
                Constant::Bool(value) => (*value).into(),
                Constant::Int(value) => Value::Int(*value),
                Constant::Float(value) => (*value).into(),
                Constant::Text(text) => Value::Text(text.clone()),
            },
            Kind::Name(name) => match scope.find(name) {
                Some(value) => value,
                None => global(name).unwrap_or_else(|| Value::Undefined(Some(name.clone()))),
            },
            Kind::Tuple(items) => Value::tuple(self.values(items, scope)?),
            Kind::List(items) => self.values(items, scope)?.into(),
            Kind::Dict(pairs) => {
                let mut dict = Dict::default();
                for (key, value) in pairs {
                    let key = key_of(self.value(key, scope)?)?;
                    dict.insert(key, self.value(value, scope)?);
                }
                dict.into()
            }
            Kind::Negated(value) => negated(&self.value(value, scope)?)?,
            Kind::Positive(value) => positive(&self.value(value, scope)?)?,
            Kind::Not(value) => (!self.value(value, scope)?.is_true()).into(),
            Kind::Binary(operator, left, right) => {
                let left = self.value(left, scope)?;
                binary(*operator, &left, &self.value(right, scope)?, max_bytes)?
            }
            Kind::And(left, right) => match self.value(left, scope)? {
                left if left.is_true() => self.value(right, scope)?,
                left => left,
            },
            Kind::Or(left, right) => match self.value(left, scope)? {
                left if left.is_true() => left,
                _ => self.value(right, scope)?,
            },
            Kind::Concat(items) => {
                concatenate(&self.values(items, scope)?, self.autoescape, max_bytes)?
            }
            Kind::Compare(first, others) => self.comparison(first, others, scope)?,
            Kind::Conditional { test, then, otherwise } => {
                match (self.value(test, scope)?.is_true(), otherwise) {
                    (true, _) => self.value(then, scope)?,
                    (false, Some(otherwise)) => self.value(otherwise, scope)?,
                    (false, None) => Value::undefined(),
                }
            }
            Kind::Attribute(value, name) => {
                let value = self.value(value, scope)?;
                self.attribute(&value, name)?
            }
            Kind::Item(value, index) => {
                let value = self.value(value, scope)?;
                let index = self.value(index, scope)?;
                self.item(&value, &index)?
            }
            Kind::Slice(value, bounds) => {
                let value = self.value(value, scope)?;
                let mut found = [None, None, None];
                for (found, bound) in found.iter_mut().zip(bounds.iter()) {
                    *found = bound.as_ref().map(|bound| self.value(bound, scope)).transpose()?;
                }
                slice(&value, found)?
            }
            Kind::Call(..) => self.call_expression(expression, scope, None)?,
            Kind::Filter(..) => self.filtered(expression, scope, None)?,
            Kind::Test(value, name, arguments) => {
                let value = self.value(value, scope)?;
                let given = self.given(arguments, scope)?;
                test(self, name, &value, given)?.into()
            }
        })
    }

    fn values(&mut self, items: &[Expression], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        items.iter().map(|item| self.value(item, scope)).collect()
    }

    fn comparison(
        &mut self,
        first: &Expression,
        others: &[(crate::python_operators::Comparison, Expression)],
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let mut left = self.value(first, scope)?;
        for (comparison, other) in others {
            let right = self.value(other, scope)?;
            if !compare(*comparison, &left, &right)? {
                return Ok(false.into());
            }
            left = right;
        }
        Ok(true.into())
    }

    fn given(&mut self, arguments: &Arguments, scope: &Rc<Scope>) -> Result<Given> {
        let mut given = Given::default();
        given.by_place = self.values(&arguments.by_place, scope)?;
        for (name, expression) in &arguments.by_name {
            given.by_name.push((name.clone(), self.value(expression, scope)?));
        }
        if let Some(more) = &arguments.more_by_place {
            given.by_place.extend(self.value(more, scope)?.collect()?);
        }
        if let Some(more) = &arguments.more_by_name {
            let Value::Dict(more) = self.value(more, scope)? else {
                return Err(refuse("what follows ** is no mapping"));
            };
            for (key, value) in more.iter() {
                keep_going()?; // each is looked for among all
                let name = key.0.as_text().ok_or_else(|| key.0.is_not("a name"))?;
                if given.by_name.iter().any(|(known, _)| **known == *name) {
                    return Err(refuse(format!("the argument {name} is given twice")));
                }
                given.by_name.push((name.into(), value.clone()));
            }
        }
        Ok(given)
    }

    fn filtered(
        &mut self,
        expression: &Expression,
        scope: &Rc<Scope>,
        text: Option<Value>,
    ) -> Result<Value> {
        let Kind::Filter(value, name, arguments) = &expression.kind else {
            return self.value(expression, scope);
        };
        let value = match (value, text) {
            (None, Some(text)) => text,
            (Some(value), text) => self.filtered(value, scope, text)?,
            (None, None) => return Err(refuse("a filter without a value")),
        };
        let given = self.given(arguments, scope)?;
        filter(self, name, value, given)
    }

    fn call_expression(
        &mut self,
        expression: &Expression,
        scope: &Rc<Scope>,
        caller: Option<Value>,
    ) -> Result<Value> {
        let Kind::Call(callee, arguments) = &expression.kind else {
            return self.value(expression, scope);
        };
        let callee = self.value(callee, scope)?;
        let mut given = self.given(arguments, scope)?;
        given.by_name.extend(caller.map(|caller| (Name::from("caller"), caller)));
        self.call(&callee, given)
    }

    fn call(&mut self, callee: &Value, given: Given) -> Result<Value> {
        match callee.as_object() {
            Some(Object::Function(function)) => call_function(self, *function, given),
            Some(Object::Method(value, name)) => self.method(value, name, given),
            Some(Object::Macro(called)) => {
                self.nested(|renderer| renderer.call_macro(called, given))
            }
            Some(Object::Loop(state)) => self.nested(|renderer| renderer.call_loop(state, given)),
            Some(Object::Joiner { separator, used }) => {
                crate::python_arguments::Arguments::bind(given, &[])?;
                Ok(if used.replace(true) { separator.clone() } else { "".into() })
            }
            _ => Err(callee.is_not("callable")),
        }
    }

    fn nested<T>(&mut self, run: impl FnOnce(&mut Renderer) -> Result<T>) -> Result<T> {
        if self.calls == MAX_CALLS {
            return Err(refuse("macros call one another too deeply"));
        }
        self.calls += 1;
        let result = run(self);
        self.calls -= 1;
        result
    }

    fn method(&mut self, value: &Value, name: &str, given: Given) -> Result<Value> {
        let Some(Object::Loop(state)) = value.as_object() else {
            return call_method(value, name, given, self.max_bytes);
        };
        let values = given.by_place;
        if name == "cycle" {
            let place = match values.len() {
                0 => return Err(refuse("no items for cycling given")),
                length => state.index0.get().rem_euclid(length as i128) as usize,
            };
            return Ok(values[place].clone());
        }
        let before = state.last_changed.borrow().clone();
        let same = match before {
            Some(before) => equals(&before.into(), &values.clone().into())?,
            None => false,
        };
        state.last_changed.replace(Some(values));
        Ok((!same).into())
    }

    fn call_macro(&mut self, called: &Macro, given: Given) -> Result<Value> {
        let node = called.node.clone();
        let scope = Scope::within(&called.scope);
        self.bind(&node, given, &scope)?;
        let before = std::mem::replace(&mut self.autoescape, called.autoescape);
        let mut text = String::new();
        let line = self.line;
        self.block(&node.body, &scope, &mut text)?;
        self.line = line;
        self.autoescape = before;
        Ok(self.as_value(text))
    }

    fn bind(
        &mut self,
        node: &jinja_syntax::Macro,
        mut given: Given,
        scope: &Rc<Scope>,
    ) -> Result<()> {
        let mut by_place = given.by_place.into_iter();
        for (name, default) in &node.parameters {
            keep_going()?; // each is looked for among all that is given
            let named = || given.by_name.iter().position(|(known, _)| known == name);
            let value = match (by_place.next(), default) {
                (Some(value), _) => value,
                (None, default) => match (named(), default) {
                    (Some(place), _) => given.by_name.remove(place).1,
                    (None, Some(default)) => self.value(default, scope)?,
                    (None, None) => Value::Undefined(Some(name.clone())),
                },
            };
            scope.set(name, value);
        }
        if node.takes_caller && node.parameters.iter().all(|(name, _)| **name != *"caller") {
            let place = given.by_name.iter().position(|(name, _)| **name == *"caller");
            let caller = place.map(|place| given.by_name.remove(place).1);
            let caller = caller.filter(|caller| !caller.is_none());
            let missing = || Value::Undefined(Some(Name::from("caller")));
            scope.set(&Name::from("caller"), caller.unwrap_or_else(missing));
        }
        let more: Vec<Value> = by_place.collect();
        if node.takes_more_by_place {
            scope.set(&Name::from("varargs"), Value::tuple(more));
        } else if !more.is_empty() {
            return Err(refuse("a macro gets more arguments than it takes"));
        }
        if node.takes_more_by_name {
            let named = given.by_name.into_iter();
            let more: Dict = named.map(|(name, value)| (Key(Value::from(&*name)), value)).collect();
            scope.set(&Name::from("kwargs"), more.into());
        } else if let Some((name, _)) = given.by_name.first() {
            return Err(refuse(format!("a macro takes no argument '{name}'")));
        }
        Ok(())
    }

    fn call_loop(&mut self, state: &Loop, given: Given) -> Result<Value> {
        if !state.node.recursive {
            return Err(refuse("the loop must be marked as recursive to be called"));
        }
        let arguments = crate::python_arguments::Arguments::bind(given, &["iterable"])?;
        let items = arguments.required(0)?.items()?;
        let mut text = String::new();
        let inner = Loop::new(&state.node, &state.scope, items, state.depth0 + 1);
        self.for_loop(inner, &mut text)?;
        Ok(self.as_value(text))
    }
}
