//! Why an expression holds, does not hold, or cannot be told: every node with its truth and its value.

use crate::error::Span;
use crate::eval::Machine;
use crate::plan::{Kind, Node, Operand, Truths};
use crate::value::{Fetched, Value};
use crate::{Context, Steps, Truth};

/// One node of an expression and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// How deep it stands; the whole expression is 0.
    pub depth: usize,
    /// Where it stands in the source.
    pub span: Span,
    /// Its text.
    pub text: String,
    /// Its truth.
    pub truth: Truth,
    /// What the compared operand was: a value, `missing` or `unknown`. None for nodes that compare nothing.
    pub value: Option<String>,
}

/// The longest part of a value that is shown, in characters.
const SHOWN_MOST: usize = 200;

/// Every node is evaluated on its own, also those that evaluation would not have reached.
pub(crate) fn explain(source: &str, plan: &Node, context: &dyn Context) -> Vec<Explained> {
    let mut lines = Vec::new();
    node(source, plan, context, 0, &mut lines);
    lines
}

fn node(source: &str, plan: &Node, context: &dyn Context, depth: usize, lines: &mut Vec<Explained>) {
    let mut steps = Steps::default();
    let truth = Machine { context, steps: &mut steps }.truth(plan);
    let value = match &plan.kind {
        Kind::Compare(operand, _) => Some(shown(operand, context)),
        Kind::Any(truths) | Kind::All(truths) => Some(compared(truths, context)),
        Kind::Constant(_) | Kind::Not(_) | Kind::Join(..) => None,
    };
    let text = source.get(plan.span.start..plan.span.end).unwrap_or_default().to_owned();
    lines.push(Explained { depth, span: plan.span, text, truth, value });
    match &plan.kind {
        Kind::Not(inner) => node(source, inner, context, depth + 1, lines),
        Kind::Join(_, parts) => {
            for part in parts {
                node(source, part, context, depth + 1, lines);
            }
        }
        Kind::Constant(_) | Kind::Compare(..) | Kind::Any(_) | Kind::All(_) => (),
    }
}

fn compared(truths: &Truths, context: &dyn Context) -> String {
    match truths {
        Truths::Mapped(operand, _) | Truths::Plain(operand) => shown(operand, context),
        Truths::Not(inner) => compared(inner, context),
        Truths::Join(_, parts) => {
            parts.iter().map(|part| compared(part, context)).collect::<Vec<_>>().join("; ")
        }
    }
}

fn shown(operand: &Operand, context: &dyn Context) -> String {
    let mut steps = Steps::default();
    let mut machine = Machine { context, steps: &mut steps };
    let mut texts = Vec::new();
    let whole = match machine.value_or_elements(operand, &mut |fetched| texts.push(of(&fetched))) {
        Some(fetched) => of(&fetched),
        None => format!("[{}]", texts.join(", ")),
    };
    match whole.char_indices().nth(SHOWN_MOST) {
        Some((cut, _)) => format!("{}...", &whole[..cut]),
        None => whole,
    }
}

fn of(fetched: &Fetched<'_>) -> String {
    match fetched {
        Fetched::Missing => "missing".to_owned(),
        Fetched::Unknown => "unknown".to_owned(),
        Fetched::Value(Value::Bool(value)) => value.to_string(),
        Fetched::Value(Value::Int(value)) => value.to_string(),
        Fetched::Value(Value::Ip(value)) => value.to_string(),
        Fetched::Value(Value::Bytes(bytes)) => crate::ast::Quoted(bytes).to_string(),
        Fetched::Value(Value::Array(array)) => {
            let mut texts = Vec::new();
            array.clone().visit(&mut |value| {
                texts.push(of(&Fetched::Value(value)));
                texts.len() < SHOWN_MOST
            });
            format!("[{}]", texts.join(", "))
        }
        Fetched::Value(Value::Map(map)) => format!("{map:?}"),
    }
}
