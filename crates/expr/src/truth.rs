//! Truth with a third value, and the budget of steps that keeps evaluation short.

/// The outcome of an expression (Kleene's strong three-valued logic).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be told: a value it needs is not known, or the budget of steps is used up. Such a rule does not fire.
    Unknown,
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Truth::True } else { Truth::False }
    }
}

impl Truth {
    /// True only when it holds for certain.
    pub fn fires(self) -> bool {
        self == Truth::True
    }

    pub(crate) fn not(self) -> Truth {
        match self {
            Truth::True => Truth::False,
            Truth::False => Truth::True,
            Truth::Unknown => Truth::Unknown,
        }
    }

    pub(crate) fn and(self, other: Truth) -> Truth {
        match (self, other) {
            (Truth::False, _) | (_, Truth::False) => Truth::False,
            (Truth::True, Truth::True) => Truth::True,
            _ => Truth::Unknown,
        }
    }

    pub(crate) fn or(self, other: Truth) -> Truth {
        self.not().and(other.not()).not()
    }

    pub(crate) fn xor(self, other: Truth) -> Truth {
        match (self, other) {
            (Truth::Unknown, _) | (_, Truth::Unknown) => Truth::Unknown,
            (left, right) => Truth::from(left != right),
        }
    }
}

/// How much work an evaluation may still do. Once used up it stays so.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    left: usize,
    exhausted: bool,
}

impl Steps {
    /// What one expression gets unless the caller knows better: some hundred microseconds at worst.
    pub const USUAL: usize = 100_000;

    /// A budget of so many steps: one is about a node, an element, or 64 bytes looked through.
    pub fn new(steps: usize) -> Self {
        Self { left: steps, exhausted: false }
    }

    /// True once more was wanted than there was; the truth may then be Unknown for that reason.
    pub fn exhausted(&self) -> bool {
        self.exhausted
    }

    /// Steps not taken yet.
    pub fn left(&self) -> usize {
        self.left
    }

    pub(crate) fn spend(&mut self, steps: usize) -> bool {
        match self.left.checked_sub(steps) {
            Some(left) if !self.exhausted => {
                self.left = left;
                true
            }
            _ => {
                self.exhausted = true;
                false
            }
        }
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new(Self::USUAL)
    }
}
