//! What a for loop walks over, and its variable `loop`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use crate::jinja_scope::Scope;
use crate::jinja_syntax::For;
use crate::value::{Items, Value};

pub struct Loop {
    pub node: Arc<For>,
    /// Around the loop.
    pub scope: Rc<Scope>,
    pub feed: RefCell<Feed>,
    /// Of the item that the body is run with; -1 before the first.
    pub index0: Cell<i128>,
    /// Of the whole, once it is known.
    pub length: Cell<Option<usize>>,
    pub previous: RefCell<Option<Value>>,
    pub current: RefCell<Option<Value>>,
    pub last_changed: RefCell<Option<Vec<Value>>>,
    pub depth0: usize,
}

/// The items to come: those looked at before their turn, then the rest.
pub struct Feed {
    pub ahead: VecDeque<Value>,
    pub items: Items,
    /// Where the test of the loop sees its target.
    pub test_scope: Rc<Scope>,
}

impl Loop {
    pub fn new(node: &Arc<For>, scope: &Rc<Scope>, items: Items, depth0: usize) -> Loop {
        let length = if node.test.is_none() { items.left() } else { None };
        let test_scope = Scope::within(scope);
        Loop {
            node: node.clone(),
            scope: scope.clone(),
            feed: RefCell::new(Feed { ahead: VecDeque::new(), items, test_scope }),
            index0: Cell::new(-1),
            length: Cell::new(length),
            previous: RefCell::default(),
            current: RefCell::default(),
            last_changed: RefCell::default(),
            depth0,
        }
    }

    /// The body's turn has come for this item.
    pub fn enter(&self, item: Value) {
        self.index0.set(self.index0.get() + 1);
        self.previous.replace(self.current.replace(Some(item)));
    }
}
