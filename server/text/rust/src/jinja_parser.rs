//! Tokens as a tree: Jinja2's grammar with its loop controls and transformers' {% generation %}.
//! What Jinja2 or the Python that it writes refuses when a template is compiled is refused here.

use std::collections::HashSet;
use std::sync::Arc;

use crate::jinja_filters::{is_filter, is_test};
use crate::jinja_lexer::{tokens, Token};
use crate::jinja_syntax::{
    Action, Arguments, Block, Constant, Expression, For, Kind, Macro, Name, Statement, Target,
};
use crate::python_operators::{Comparison, Operator};
use crate::value::{refuse, Error, Result};

/// Jinja2 and Python give up earlier.
const MAX_DEPTH: usize = 500;
/// Of expressions in brackets and blocks within one another.
const MAX_NESTING: usize = 100;

pub fn parse(source: &str) -> Result<Block> {
    let mut parser = Parser { tokens: tokens(source)?, ..Parser::default() };
    let parsed = parser.whole();
    parsed.map_err(|error| match error.line {
        0 => Error { line: parser.line(), ..error },
        _ => error,
    })
}

#[derive(Default)]
struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    nesting: usize,
    /// Loops around, within the same macro.
    loops: usize,
    /// Loops around, whose variable `loop` nobody may set.
    guarded: usize,
    /// Within an `if` of the same block, filters that do not exist are an error only when called.
    soft: bool,
    unknown: Vec<String>,
    /// Names read so far of those that make a loop or macro pass more.
    special: Vec<&'static str>,
    blocks: HashSet<Name>,
}

const SPECIAL: [&str; 4] = ["loop", "caller", "kwargs", "varargs"];

impl Parser {
    fn whole(&mut self) -> Result<Block> {
        let block = self.block(&[])?;
        match self.unknown.first() {
            Some(name) => Err(refuse(format!("there is no {name}"))),
            None => Ok(block),
        }
    }

    fn line(&self) -> usize {
        self.tokens[self.at].1
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn look(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if **found == *name)
    }

    fn skip_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    fn unexpected(&self, wanted: &str) -> Error {
        let found = match self.peek() {
            Token::Name(name) => format!("'{name}'"),
            Token::Sign(sign) => format!("'{sign}'"),
            Token::End => "the end of the template".to_string(),
            Token::PrintEnd | Token::BlockEnd => "the end of the tag".to_string(),
            _ => "something else".to_string(),
        };
        refuse(format!("expected {wanted}, found {found}"))
    }

    fn expect_sign(&mut self, sign: &str) -> Result<()> {
        match self.skip_sign(sign) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("'{sign}'"))),
        }
    }

    fn expect_word(&mut self, name: &str) -> Result<()> {
        match self.skip_name(name) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("'{name}'"))),
        }
    }

    fn expect_name(&mut self) -> Result<Name> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn expect(&mut self, token: Token, what: &str) -> Result<()> {
        match *self.peek() == token {
            true => {
                self.next();
                Ok(())
            }
            false => Err(self.unexpected(what)),
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        if self.nesting == MAX_NESTING {
            return Err(refuse("the template is nested too deeply"));
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    /// Until a tag that begins with one of `ends`, whose name is next then.
    fn block(&mut self, ends: &[&str]) -> Result<Block> {
        let mut block = Vec::new();
        loop {
            let line = self.line();
            let action = match self.next() {
                Token::Data(text) => Action::Text(text),
                Token::PrintBegin => {
                    let printed = self.tuple(true, &[])?;
                    self.expect(Token::PrintEnd, "'}}'")?;
                    Action::Print(printed)
                }
                Token::BlockBegin => {
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(block);
                    }
                    let before = block.len();
                    let action = self.nested(|parser| parser.statement(&mut block))?;
                    for statement in &mut block[before..] {
                        statement.line = line;
                    }
                    self.expect(Token::BlockEnd, "'%}'")?;
                    match action {
                        Some(action) => action,
                        None => continue,
                    }
                }
                Token::End if ends.is_empty() => return Ok(block),
                Token::End => {
                    self.at = self.tokens.len() - 1;
                    return Err(refuse(format!("a block has no {}", ends.join(" or "))));
                }
                _ => return Err(refuse("an unexpected tag")),
            };
            block.push(Statement { action, line });
        }
    }

    /// The rest of a tag and the block behind it. The tag that ends it is next, unless it is
    /// `dropped`, when it is behind us.
    fn body(&mut self, ends: &[&str]) -> Result<Block> {
        self.skip_sign(":");
        self.expect(Token::BlockEnd, "'%}'")?;
        self.block(ends)
    }

    fn body_until(&mut self, end: &str) -> Result<Block> {
        let block = self.body(&[end])?;
        self.next();
        Ok(block)
    }

    /// A body in which filters must exist, as in all but an `if`.
    fn hard<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        let soft = std::mem::replace(&mut self.soft, false);
        let parsed = parse(self);
        self.soft = soft;
        parsed
    }

    /// A body that Python runs as a function of its own.
    fn function<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        let loops = std::mem::replace(&mut self.loops, 0);
        let parsed = self.hard(parse);
        self.loops = loops;
        parsed
    }

    fn statement(&mut self, block: &mut Block) -> Result<Option<Action>> {
        let name = self.expect_name()?;
        let action = match &*name {
            "for" => self.for_loop()?,
            "if" => self.if_block()?,
            "set" => self.set()?,
            "macro" => {
                let name = self.expect_name()?;
                Action::Macro(self.macro_of(Some(name), true, "endmacro")?)
            }
            "call" => {
                let signature = self.is_sign("(");
                let parameters = if signature { self.signature()? } else { Vec::new() };
                let call = self.expression()?;
                if !matches!(call.kind, Kind::Call(..)) {
                    return Err(refuse("a call block needs a call"));
                }
                Action::CallBlock(call, self.macro_with(None, parameters, "endcall")?)
            }
            "generation" => Action::Generation(self.macro_of(None, false, "endgeneration")?),
            "filter" => {
                let filter = self
                    .hard(|parser| parser.filters(None, true))?
                    .ok_or_else(|| refuse("no filter"))?;
                Action::FilterBlock(filter, self.hard(|parser| parser.body_until("endfilter"))?)
            }
            "with" => self.with()?,
            "autoescape" => {
                let on = self.expression()?;
                Action::Autoescape(on, self.hard(|parser| parser.body_until("endautoescape"))?)
            }
            "block" => self.named_block()?,
            "print" => {
                let before = block.len();
                while *self.peek() != Token::BlockEnd {
                    if block.len() > before {
                        self.expect_sign(",")?;
                    }
                    let printed = self.expression()?;
                    block.push(Statement { action: Action::Print(printed), line: self.line() });
                }
                return Ok(None);
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return Err(refuse(format!("'{name}' outside of a loop")));
                }
                if *name == *"break" {
                    Action::Break
                } else {
                    Action::Continue
                }
            }
            "extends" | "include" | "import" | "from" => {
                while !matches!(self.peek(), Token::BlockEnd | Token::End) {
                    self.next();
                }
                Action::OtherTemplate
            }
            _ => return Err(refuse(format!("unknown tag '{name}'"))),
        };
        Ok(Some(action))
    }

    fn for_loop(&mut self) -> Result<Action> {
        self.guarded += 1;
        let target = self.target(&["in"])?;
        self.expect_word("in")?;
        let over = self.tuple(false, &["recursive"])?;
        let test = match self.skip_name("if") {
            true => Some(self.hard(Parser::expression)?),
            false => None,
        };
        let recursive = self.skip_name("recursive");
        let read = self.special.len();
        self.loops += 1;
        let body = self.hard(|parser| parser.body(&["endfor", "else"]))?;
        self.loops -= 1;
        let has_loop = recursive || self.special[read..].contains(&"loop");
        let otherwise = match self.next() {
            Token::Name(name) if *name == *"else" => {
                self.hard(|parser| parser.body_until("endfor"))?
            }
            _ => Vec::new(),
        };
        self.guarded -= 1;
        Ok(Action::For(Arc::new(For { target, over, test, recursive, body, otherwise, has_loop })))
    }

    fn if_block(&mut self) -> Result<Action> {
        let soft = std::mem::replace(&mut self.soft, true);
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let test = self.tuple(false, &[])?;
            branches.push((test, self.body(&["elif", "else", "endif"])?));
            match self.next() {
                Token::Name(name) if *name == *"elif" => continue,
                Token::Name(name) if *name == *"else" => otherwise = self.body_until("endif")?,
                _ => {}
            }
            break;
        }
        self.soft = soft;
        Ok(Action::If(branches, otherwise))
    }

    fn set(&mut self) -> Result<Action> {
        let target = self.target(&[])?;
        if self.skip_sign("=") {
            return Ok(Action::Set(target, self.tuple(true, &[])?));
        }
        let filter = self.hard(|parser| parser.filters(None, false))?;
        let body = self.hard(|parser| parser.body_until("endset"))?;
        Ok(Action::SetBlock(target, filter, body))
    }

    fn with(&mut self) -> Result<Action> {
        let mut values = Vec::new();
        while !matches!(self.peek(), Token::BlockEnd | Token::End) {
            if !values.is_empty() {
                self.expect_sign(",")?;
            }
            let guarded = std::mem::replace(&mut self.guarded, 0); // a parameter
            let target = self.target(&[])?;
            self.guarded = guarded;
            self.expect_sign("=")?;
            values.push((target, self.expression()?));
        }
        Ok(Action::With(values, self.hard(|parser| parser.body_until("endwith"))?))
    }

    fn named_block(&mut self) -> Result<Action> {
        let name = self.expect_name()?;
        let scoped = self.skip_name("scoped");
        let required = self.skip_name("required");
        if !self.blocks.insert(name.clone()) {
            return Err(refuse(format!("the block '{name}' is defined twice")));
        }
        let read = self.special.len();
        let body = self.function(|parser| parser.body_until("endblock"))?;
        self.special.truncate(read);
        self.skip_name(&name);
        if required {
            return Err(refuse("a required block that no template fills"));
        }
        Ok(Action::NamedBlock(body, scoped))
    }

    fn signature(&mut self) -> Result<Vec<(Name, Option<Expression>)>> {
        self.expect_sign("(")?;
        let mut parameters: Vec<(Name, Option<Expression>)> = Vec::new();
        let mut known = HashSet::new();
        while !self.is_sign(")") {
            if !parameters.is_empty() {
                self.expect_sign(",")?;
            }
            let name = self.expect_name()?;
            check_assignable(&name)?;
            if !known.insert(name.clone()) {
                return Err(refuse(format!("two parameters are called '{name}'")));
            }
            let default = match self.skip_sign("=") {
                true => Some(self.hard(Parser::expression)?),
                false if parameters.last().is_some_and(|(_, default)| default.is_some()) => {
                    return Err(refuse("a parameter without a default follows one with it"));
                }
                false => None,
            };
            parameters.push((name, default));
        }
        self.expect_sign(")")?;
        Ok(parameters)
    }

    fn macro_of(&mut self, name: Option<Name>, signed: bool, end: &str) -> Result<Arc<Macro>> {
        if let Some(name) = &name {
            check_assignable(name)?;
        }
        let parameters = if signed { self.signature()? } else { Vec::new() };
        self.macro_with(name, parameters, end)
    }

    fn macro_with(
        &mut self,
        name: Option<Name>,
        parameters: Vec<(Name, Option<Expression>)>,
        end: &str,
    ) -> Result<Arc<Macro>> {
        let read = self.special.len();
        let body = self.function(|parser| parser.body_until(end))?;
        let reads = |name| self.special[read..].contains(&name);
        let own = |name: &str| parameters.iter().find(|(known, _)| **known == *name);
        if let (true, Some((_, None))) = (reads("caller"), own("caller")) {
            return Err(refuse("the parameter 'caller' needs a default"));
        }
        Ok(Arc::new(Macro {
            name,
            takes_caller: reads("caller"),
            takes_more_by_name: reads("kwargs") && own("kwargs").is_none(),
            takes_more_by_place: reads("varargs") && own("varargs").is_none(),
            parameters,
            body,
        }))
    }

    /// A name, an attribute of a namespace, or several in a row.
    fn target(&mut self, ends: &[&str]) -> Result<Target> {
        let in_loop = !ends.is_empty();
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            if !targets.is_empty() {
                self.expect_sign(",")?;
            }
            let ends_here = matches!(self.peek(), Token::BlockEnd | Token::PrintEnd)
                || self.is_sign(")")
                || ends.iter().any(|end| self.is_name(end));
            if ends_here {
                break;
            }
            targets.push(self.one_target(in_loop)?);
            if !self.is_sign(",") {
                break;
            }
            is_tuple = true;
        }
        match (is_tuple, targets.pop()) {
            (_, None) => Err(self.unexpected("a name")),
            (false, Some(target)) => Ok(target),
            (true, Some(target)) => {
                targets.push(target);
                Ok(Target::Tuple(targets))
            }
        }
    }

    fn one_target(&mut self, in_loop: bool) -> Result<Target> {
        if self.skip_sign("(") {
            let target = self.nested(|parser| parser.target(&[]))?;
            self.expect_sign(")")?;
            return Ok(target);
        }
        let name = self.expect_name()?;
        if !in_loop && self.skip_sign(".") {
            return Ok(Target::Namespace(name, self.expect_name()?));
        }
        check_assignable(&name)?;
        if self.guarded > 0 && *name == *"loop" {
            return Err(refuse("the variable 'loop' of a loop cannot be set"));
        }
        Ok(Target::Name(name))
    }

    fn node(&self, kind: Kind) -> Result<Expression> {
        let depth = kind.depth() + 1;
        match depth > MAX_DEPTH {
            true => Err(refuse("an expression is nested too deeply")),
            false => Ok(Expression { kind, depth }),
        }
    }

    /// An expression, or a tuple where commas follow.
    fn tuple(&mut self, conditional: bool, ends: &[&str]) -> Result<Expression> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_sign(",")?;
            }
            let ends_here = matches!(self.peek(), Token::BlockEnd | Token::PrintEnd)
                || self.is_sign(")")
                || ends.iter().any(|end| self.is_name(end));
            if ends_here {
                break;
            }
            items.push(match conditional {
                true => self.expression()?,
                false => self.nested(Parser::or)?,
            });
            if !self.is_sign(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            None => Err(self.unexpected("an expression")),
            Some(item) if !is_tuple => Ok(item),
            Some(item) => {
                items.push(item);
                self.node(Kind::Tuple(items))
            }
        }
    }

    fn expression(&mut self) -> Result<Expression> {
        self.nested(Parser::conditional)
    }

    fn conditional(&mut self) -> Result<Expression> {
        let unknown = self.unknown.len();
        let mut then = self.or()?;
        while self.skip_name("if") {
            self.unknown.truncate(unknown);
            let soft = std::mem::replace(&mut self.soft, true);
            let test = Box::new(self.or()?);
            let otherwise = match self.skip_name("else") {
                true => Some(Box::new(self.nested(Parser::conditional)?)),
                false => None,
            };
            self.soft = soft;
            then = self.node(Kind::Conditional { test, then: Box::new(then), otherwise })?;
        }
        Ok(then)
    }

    fn or(&mut self) -> Result<Expression> {
        let mut left = self.and()?;
        while self.skip_name("or") {
            let right = self.and()?;
            left = self.node(Kind::Or(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression> {
        let mut left = self.not()?;
        while self.skip_name("and") {
            let right = self.not()?;
            left = self.node(Kind::And(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expression> {
        if self.skip_name("not") {
            let value = self.nested(Parser::not)?;
            return self.node(Kind::Not(Box::new(value)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expression> {
        let first = self.sum()?;
        let mut others = Vec::new();
        while let Some(comparison) = self.comparison_sign() {
            others.push((comparison, self.sum()?));
        }
        match others.is_empty() {
            true => Ok(first),
            false => self.node(Kind::Compare(Box::new(first), others)),
        }
    }

    fn comparison_sign(&mut self) -> Option<Comparison> {
        let comparison = match self.peek() {
            Token::Sign("==") => Comparison::Equal,
            Token::Sign("!=") => Comparison::NotEqual,
            Token::Sign("<") => Comparison::Less,
            Token::Sign("<=") => Comparison::LessOrEqual,
            Token::Sign(">") => Comparison::Greater,
            Token::Sign(">=") => Comparison::GreaterOrEqual,
            Token::Name(name) if **name == *"in" => Comparison::In,
            Token::Name(name) if **name == *"not" => match self.look() {
                Token::Name(name) if **name == *"in" => {
                    self.next();
                    Comparison::NotIn
                }
                _ => return None,
            },
            _ => return None,
        };
        self.next();
        Some(comparison)
    }

    /// The operator that is next, where it is one of these.
    fn operator(&mut self, known: &[(&str, Operator)]) -> Option<Operator> {
        let (_, operator) = known.iter().find(|(sign, _)| self.is_sign(sign))?;
        self.next();
        Some(*operator)
    }

    fn sum(&mut self) -> Result<Expression> {
        let mut left = self.concatenation()?;
        while let Some(operator) = self.operator(&[("+", Operator::Add), ("-", Operator::Subtract)])
        {
            let right = self.concatenation()?;
            left = self.node(Kind::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn concatenation(&mut self) -> Result<Expression> {
        let first = self.product()?;
        if !self.is_sign("~") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_sign("~") {
            items.push(self.product()?);
        }
        self.node(Kind::Concat(items))
    }

    fn product(&mut self) -> Result<Expression> {
        let mut left = self.power()?;
        while let Some(operator) = self.operator(&[
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::DivideFloor),
            ("%", Operator::Modulo),
        ]) {
            let right = self.power()?;
            left = self.node(Kind::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn power(&mut self) -> Result<Expression> {
        let mut left = self.unary(true)?;
        while let Some(operator) = self.operator(&[("**", Operator::Power)]) {
            let right = self.unary(true)?;
            left = self.node(Kind::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expression> {
        let value = if self.skip_sign("-") {
            let value = self.nested(|parser| parser.unary(false))?;
            self.node(Kind::Negated(Box::new(value)))?
        } else if self.skip_sign("+") {
            let value = self.nested(|parser| parser.unary(false))?;
            self.node(Kind::Positive(Box::new(value)))?
        } else {
            self.primary()?
        };
        let value = self.postfix(value)?;
        match with_filters {
            true => self.filtered(value),
            false => Ok(value),
        }
    }

    fn primary(&mut self) -> Result<Expression> {
        let kind = match self.next() {
            Token::Name(name) => match &*name {
                "true" | "True" => Kind::Constant(Constant::Bool(true)),
                "false" | "False" => Kind::Constant(Constant::Bool(false)),
                "none" | "None" => Kind::Constant(Constant::None),
                _ => {
                    self.special.extend(SPECIAL.into_iter().find(|special| **special == *name));
                    Kind::Name(name)
                }
            },
            Token::Text(mut text) => {
                while let Token::Text(more) = self.peek() {
                    text.push_str(more);
                    self.next();
                }
                Kind::Constant(Constant::Text(Arc::new(text)))
            }
            Token::Int(number) => Kind::Constant(Constant::Int(number)),
            Token::Float(number) => Kind::Constant(Constant::Float(number)),
            Token::Sign("(") => {
                if self.skip_sign(")") {
                    return self.node(Kind::Tuple(Vec::new()));
                }
                let inside = self.nested(|parser| parser.tuple(true, &[]))?;
                self.expect_sign(")")?;
                return Ok(inside);
            }
            Token::Sign("[") => {
                let items = self.listed("]", Parser::expression)?;
                Kind::List(items)
            }
            Token::Sign("{") => {
                let pairs = self.listed("}", |parser| {
                    let key = parser.expression()?;
                    parser.expect_sign(":")?;
                    Ok((key, parser.expression()?))
                })?;
                Kind::Dict(pairs)
            }
            _ => {
                self.at -= 1;
                return Err(self.unexpected("an expression"));
            }
        };
        self.node(kind)
    }

    /// Items between commas, of which one may be the last.
    fn listed<T>(&mut self, end: &str, item: impl Fn(&mut Parser) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.is_sign(end) {
            if !items.is_empty() {
                self.expect_sign(",")?;
            }
            if self.is_sign(end) {
                break;
            }
            items.push(item(self)?);
        }
        self.expect_sign(end)?;
        Ok(items)
    }

    fn postfix(&mut self, mut value: Expression) -> Result<Expression> {
        loop {
            value = if self.skip_sign(".") {
                self.after_dot(value)?
            } else if self.skip_sign("[") {
                self.subscript(value)?
            } else if self.is_sign("(") {
                let arguments = self.arguments()?;
                self.node(Kind::Call(Box::new(value), arguments))?
            } else {
                return Ok(value);
            };
        }
    }

    fn after_dot(&mut self, value: Expression) -> Result<Expression> {
        match self.next() {
            Token::Name(name) => self.node(Kind::Attribute(Box::new(value), name)),
            Token::Int(index) => {
                let index = self.node(Kind::Constant(Constant::Int(index)))?;
                self.node(Kind::Item(Box::new(value), Box::new(index)))
            }
            _ => {
                self.at -= 1;
                Err(self.unexpected("a name or number"))
            }
        }
    }

    fn subscript(&mut self, value: Expression) -> Result<Expression> {
        let start = match self.is_sign(":") {
            true => None,
            false => Some(self.expression()?),
        };
        if self.skip_sign(":") {
            let mut bounds = [start, None, None];
            bounds[1] = self.bound()?;
            if self.skip_sign(":") {
                bounds[2] = self.bound()?;
            }
            self.expect_sign("]")?;
            return self.node(Kind::Slice(Box::new(value), Box::new(bounds)));
        }
        let mut items: Vec<Expression> = start.into_iter().collect();
        let several = self.is_sign(",");
        while !self.is_sign("]") {
            self.expect_sign(",")?;
            items.push(self.expression()?);
        }
        self.expect_sign("]")?;
        let index = match items.pop() {
            Some(index) if !several => index,
            last => {
                items.extend(last);
                self.node(Kind::Tuple(items))?
            }
        };
        self.node(Kind::Item(Box::new(value), Box::new(index)))
    }

    fn bound(&mut self) -> Result<Option<Expression>> {
        match self.is_sign(":") || self.is_sign("]") || self.is_sign(",") {
            true => Ok(None),
            false => self.expression().map(Some),
        }
    }

    fn arguments(&mut self) -> Result<Arguments> {
        self.expect_sign("(")?;
        let mut arguments = Arguments::default();
        let mut known = HashSet::new();
        let mut first = true;
        while !self.is_sign(")") {
            if !std::mem::take(&mut first) {
                self.expect_sign(",")?;
                if self.is_sign(")") {
                    break;
                }
            }
            self.nested(|parser| parser.argument(&mut arguments, &mut known))?;
        }
        self.expect_sign(")")?;
        Ok(arguments)
    }

    /// `known` are the names so far.
    fn argument(&mut self, arguments: &mut Arguments, known: &mut HashSet<Name>) -> Result<()> {
        let after_more = arguments.more_by_name.is_some();
        let misplaced = || Err(refuse("the arguments of a call are out of order"));
        if self.skip_sign("*") {
            if after_more || arguments.more_by_place.is_some() {
                return misplaced();
            }
            arguments.more_by_place = Some(Box::new(self.expression()?));
        } else if self.skip_sign("**") {
            if after_more {
                return misplaced();
            }
            arguments.more_by_name = Some(Box::new(self.expression()?));
        } else if let (Token::Name(name), Token::Sign("=")) = (self.peek().clone(), self.look()) {
            if after_more {
                return misplaced();
            }
            self.next();
            self.next();
            if !known.insert(name.clone()) {
                return Err(refuse(format!("the argument '{name}' is given twice")));
            }
            arguments.by_name.push((name, self.expression()?));
        } else {
            let more = after_more || arguments.more_by_place.is_some();
            if more || !arguments.by_name.is_empty() {
                return misplaced();
            }
            arguments.by_place.push(self.expression()?);
        }
        Ok(())
    }

    fn filtered(&mut self, mut value: Expression) -> Result<Expression> {
        loop {
            value = if self.is_sign("|") {
                match self.filters(Some(value), false)? {
                    Some(value) => value,
                    None => return Err(self.unexpected("a filter")),
                }
            } else if self.is_name("is") {
                self.test(value)?
            } else if self.is_sign("(") {
                let arguments = self.arguments()?;
                self.node(Kind::Call(Box::new(value), arguments))?
            } else {
                return Ok(value);
            };
        }
    }

    /// `|name(...)` again and again; the first without its stroke where it is `inline`.
    fn filters(
        &mut self,
        mut value: Option<Expression>,
        mut inline: bool,
    ) -> Result<Option<Expression>> {
        while inline || self.skip_sign("|") {
            inline = false;
            let name = self.dotted_name()?;
            if !self.soft && !is_filter(&name) {
                self.unknown.push(format!("filter called '{name}'"));
            }
            let arguments = match self.is_sign("(") {
                true => self.arguments()?,
                false => Arguments::default(),
            };
            value = Some(self.node(Kind::Filter(value.map(Box::new), name, arguments))?);
        }
        Ok(value)
    }

    fn dotted_name(&mut self) -> Result<Name> {
        let mut name = self.expect_name()?.to_string();
        while self.skip_sign(".") {
            name.push('.');
            name.push_str(&self.expect_name()?);
        }
        Ok(name.into())
    }

    fn test(&mut self, value: Expression) -> Result<Expression> {
        self.next();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        if !self.soft && !is_test(&name) {
            self.unknown.push(format!("test called '{name}'"));
        }
        let arguments = match self.peek() {
            Token::Sign("(") => self.arguments()?,
            Token::Name(word) if matches!(&**word, "else" | "or" | "and") => Arguments::default(),
            Token::Name(word) if **word == *"is" => {
                return Err(refuse("several tests in a row"));
            }
            Token::Name(_) | Token::Text(_) | Token::Int(_) | Token::Float(_) => {
                self.test_argument()?
            }
            Token::Sign("[" | "{") => self.test_argument()?,
            _ => Arguments::default(),
        };
        let test = self.node(Kind::Test(Box::new(value), name, arguments))?;
        match negated {
            true => self.node(Kind::Not(Box::new(test))),
            false => Ok(test),
        }
    }

    fn test_argument(&mut self) -> Result<Arguments> {
        let value = self.primary()?;
        let by_place = vec![self.postfix(value)?];
        Ok(Arguments { by_place, ..Arguments::default() })
    }
}

fn check_assignable(name: &str) -> Result<()> {
    match matches!(name, "true" | "True" | "false" | "False" | "none" | "None") {
        true => Err(refuse(format!("'{name}' cannot be set"))),
        false => Ok(()),
    }
}
