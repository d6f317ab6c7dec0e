//! What a template's source says: the tree that the parser makes and the renderer walks.

use std::sync::Arc;

use crate::python_operators::{Comparison, Operator};

pub type Name = Arc<str>;

#[derive(Debug)]
pub enum Constant {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<String>),
}

#[derive(Debug)]
pub struct Expression {
    pub kind: Kind,
    /// Of the tree beneath it.
    pub depth: usize,
}

#[derive(Debug)]
pub enum Kind {
    Constant(Constant),
    Name(Name),
    Tuple(Vec<Expression>),
    List(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Negated(Box<Expression>),
    Positive(Box<Expression>),
    Not(Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Concat(Vec<Expression>),
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    Conditional {
        test: Box<Expression>,
        then: Box<Expression>,
        otherwise: Option<Box<Expression>>,
    },
    Attribute(Box<Expression>, Name),
    Item(Box<Expression>, Box<Expression>),
    Slice(Box<Expression>, Box<[Option<Expression>; 3]>),
    Call(Box<Expression>, Arguments),
    /// Of the text of a block where there is no value.
    Filter(Option<Box<Expression>>, Name, Arguments),
    Test(Box<Expression>, Name, Arguments),
}

#[derive(Debug, Default)]
pub struct Arguments {
    pub by_place: Vec<Expression>,
    pub by_name: Vec<(Name, Expression)>,
    pub more_by_place: Option<Box<Expression>>, // *args
    pub more_by_name: Option<Box<Expression>>,  // **kwargs
}

impl Arguments {
    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let named = self.by_name.iter().map(|(_, value)| value);
        let more = self.more_by_place.iter().chain(&self.more_by_name).map(|more| &**more);
        self.by_place.iter().chain(named).chain(more)
    }
}

impl Kind {
    /// Of the deepest expression right beneath.
    pub fn depth(&self) -> usize {
        let of = |expression: &Expression| expression.depth;
        let most = |expressions: &[Expression]| expressions.iter().map(of).max().unwrap_or(0);
        let given = |arguments: &Arguments| arguments.expressions().map(of).max().unwrap_or(0);
        match self {
            Kind::Constant(_) | Kind::Name(_) => 0,
            Kind::Tuple(items) | Kind::List(items) | Kind::Concat(items) => most(items),
            Kind::Dict(pairs) => {
                pairs.iter().map(|(key, value)| key.depth.max(value.depth)).max().unwrap_or(0)
            }
            Kind::Negated(value) | Kind::Positive(value) | Kind::Not(value) => value.depth,
            Kind::Attribute(value, _) => value.depth,
            Kind::Binary(_, left, right)
            | Kind::And(left, right)
            | Kind::Or(left, right)
            | Kind::Item(left, right) => left.depth.max(right.depth),
            Kind::Compare(first, others) => {
                others.iter().map(|(_, other)| other.depth).fold(first.depth, usize::max)
            }
            Kind::Conditional { test, then, otherwise } => {
                let otherwise = otherwise.as_ref().map_or(0, |value| value.depth);
                test.depth.max(then.depth).max(otherwise)
            }
            Kind::Slice(value, bounds) => {
                bounds.iter().flatten().map(of).fold(value.depth, usize::max)
            }
            Kind::Call(value, arguments) | Kind::Test(value, _, arguments) => {
                value.depth.max(given(arguments))
            }
            Kind::Filter(value, _, arguments) => {
                value.as_ref().map_or(0, |value| value.depth).max(given(arguments))
            }
        }
    }
}

/// What is assigned to.
#[derive(Debug)]
pub enum Target {
    Name(Name),
    Namespace(Name, Name), // attribute of a namespace
    Tuple(Vec<Target>),
}

pub type Block = Vec<Statement>;

#[derive(Debug)]
pub struct Statement {
    pub action: Action,
    pub line: usize,
}

#[derive(Debug)]
pub enum Action {
    Text(String),
    Print(Expression),
    For(Arc<For>),
    If(Vec<(Expression, Block)>, Block),
    Set(Target, Expression),
    /// The text of a block, through a filter where there is one.
    SetBlock(Target, Option<Expression>, Block),
    Macro(Arc<Macro>),
    /// A call that gets the block as its `caller`.
    CallBlock(Expression, Arc<Macro>),
    FilterBlock(Expression, Block),
    With(Vec<(Target, Expression)>, Block),
    Autoescape(Expression, Block),
    /// A part that has a name: it sees the variables of the whole template only.
    NamedBlock(Block, bool),
    /// A block whose text is printed, as a call of it would.
    Generation(Arc<Macro>),
    Break,
    Continue,
    /// Another template, which there never is.
    OtherTemplate,
}

#[derive(Debug)]
pub struct For {
    pub target: Target,
    pub over: Expression,
    pub test: Option<Expression>,
    pub recursive: bool,
    pub body: Block,
    pub otherwise: Block,
    /// Whether the body asks for `loop`.
    pub has_loop: bool,
}

#[derive(Debug)]
pub struct Macro {
    pub name: Option<Name>,
    pub parameters: Vec<(Name, Option<Expression>)>,
    pub body: Block,
    pub takes_caller: bool,
    pub takes_more_by_name: bool,  // kwargs
    pub takes_more_by_place: bool, // varargs
}
