//! From syntax tree to plan: names, types, limits, and where things may be used.

use memchr::memmem::Finder;

use crate::ast::{self, Joint, Literal, Operator, Right, Step};
use crate::error::{Fault, Span, nearest};
use crate::functions::{self, Declared, Function, Parameter, Remembered, Written};
use crate::pattern::Pattern;
use crate::plan::{Base, Constant, Kind, Node, Operand, Order, Test, Truths};
use crate::regular::Regular;
use crate::types::Type;
use crate::{Options, fields, literal};

/// What a part of an expression turned out to be.
pub(crate) enum Checked {
    Truth(Node),
    Truths(Truths),
    Operand(Operand),
}

pub(crate) struct Checker<'o> {
    options: &'o Options<'o>,
    regex_replaced: bool,
    wildcard_replaced: bool,
}

impl<'o> Checker<'o> {
    pub fn new(options: &'o Options<'o>) -> Self {
        Self { options, regex_replaced: false, wildcard_replaced: false }
    }

    /// An expression with one truth.
    pub fn truth(&mut self, node: &ast::Node) -> Result<Node, Fault> {
        match self.any(node)? {
            Checked::Truth(truth) => Ok(truth),
            Checked::Operand(Operand { kind: Type::Bool, steps, span, base })
                if !steps.contains(&Step::Each) =>
            {
                let operand = Operand { kind: Type::Bool, steps, span, base };
                Ok(Node { span: node.span, kind: Kind::Compare(operand, Test::Holds) })
            }
            Checked::Operand(operand) if operand.mapped() => Err(unpacked(node.span)),
            Checked::Operand(operand) => {
                Err(Fault::new(node.span, format!("expected value of type Bool, but got {}", operand.kind))
                    .hint("compare it with something"))
            }
            Checked::Truths(_) => Err(unpacked(node.span)),
        }
    }

    /// An expression with a value of a type.
    pub fn value(&mut self, node: &ast::Node, kind: Type) -> Result<Operand, Fault> {
        let parameter = Parameter { kinds: &[], written: Written::Either };
        let operand = self.operand(node, &[kind], parameter.written)?;
        if operand.mapped() { Err(unpacked(node.span)) } else { Ok(operand) }
    }

    fn any(&mut self, node: &ast::Node) -> Result<Checked, Fault> {
        let truth = |kind| Ok(Checked::Truth(Node { span: node.span, kind }));
        match &node.kind {
            ast::Kind::Literal(Literal::Word(word)) if word == "true" || word == "false" => {
                truth(Kind::Constant(word == "true"))
            }
            ast::Kind::Literal(_) => Err(Fault::new(node.span, "expected a field or a function")),
            ast::Kind::Field(_) | ast::Kind::Index(..) => self.path(node).map(Checked::Operand),
            ast::Kind::Call(name, arguments) if name == "any" || name == "all" => {
                let truths = Box::new(self.only_truths(node, arguments)?);
                truth(if name == "any" { Kind::Any(truths) } else { Kind::All(truths) })
            }
            ast::Kind::Call(..) => self.path(node).map(Checked::Operand),
            ast::Kind::Compare(left, operator, right) => {
                let operand = self.path(left)?;
                let test = self.test(&operand, *operator, right, node.span)?;
                if operand.mapped() {
                    return Ok(Checked::Truths(Truths::Mapped(operand, test)));
                }
                truth(Kind::Compare(operand, test))
            }
            ast::Kind::Not(inner) => match self.any(inner)? {
                Checked::Truths(truths) => Ok(Checked::Truths(Truths::Not(Box::new(truths)))),
                Checked::Operand(operand) if is_truths(&operand) => {
                    Ok(Checked::Truths(Truths::Not(Box::new(as_truths(operand)))))
                }
                other => truth(Kind::Not(Box::new(one_truth(other, inner.span)?))),
            },
            ast::Kind::Join(joint, parts) => self.joined(node, *joint, parts),
        }
    }

    fn joined(&mut self, node: &ast::Node, joint: Joint, parts: &[ast::Node]) -> Result<Checked, Fault> {
        let (mut truths, mut nodes) = (Vec::new(), Vec::new());
        for part in parts {
            match self.any(part)? {
                Checked::Truths(row) => truths.push(row),
                Checked::Operand(operand) if is_truths(&operand) => truths.push(as_truths(operand)),
                other => nodes.push(one_truth(other, part.span)?),
            }
        }
        match (truths.is_empty(), nodes.is_empty()) {
            (true, _) => Ok(Checked::Truth(Node { span: node.span, kind: Kind::Join(joint, nodes) })),
            (false, true) => Ok(Checked::Truths(Truths::Join(joint, truths))),
            (false, false) => Err(Fault::new(node.span, "expected value of type Bool, but got Array<Bool>")
                .hint("put the part with [*] into any(...) or all(...)")),
        }
    }

    fn only_truths(&mut self, call: &ast::Node, arguments: &[ast::Node]) -> Result<Truths, Fault> {
        let [argument] = arguments else {
            return Err(Fault::new(call.span, "invalid number of arguments: expected 1"));
        };
        match self.any(argument)? {
            Checked::Truths(truths) => Ok(truths),
            Checked::Operand(operand) if is_truths(&operand) => Ok(as_truths(operand)),
            Checked::Operand(operand) => Err(wrong_type(argument.span, &[Type::TRUTHS], operand.kind)),
            Checked::Truth(_) => Err(wrong_type(argument.span, &[Type::TRUTHS], Type::Bool)
                .hint("compare an array unpacked by [*]")),
        }
    }

    /// A field or call with its indexes.
    fn path(&mut self, node: &ast::Node) -> Result<Operand, Fault> {
        match &node.kind {
            ast::Kind::Field(name) => self.field(name, node.span),
            ast::Kind::Call(name, _) if name == "any" || name == "all" => {
                let truth = self.truth(node)?;
                let base = Base::Truth(Box::new(truth));
                Ok(Operand { span: node.span, base, steps: Vec::new(), kind: Type::Bool })
            }
            ast::Kind::Call(name, arguments) => self.call(name, arguments, node.span),
            ast::Kind::Index(base, step) => {
                let mut operand = self.path(base)?;
                operand.kind = match (operand.kind, step) {
                    (Type::Array(of), Step::At(_) | Step::Each)
                    | (Type::Map(of), Step::Key(_) | Step::Each) => *of,
                    (kind, step) => {
                        let index = match step {
                            Step::At(position) => position.to_string(),
                            Step::Key(key) => ast::Quoted(key).to_string(),
                            Step::Each => "*".to_owned(),
                        };
                        return Err(Fault::new(
                            node.span,
                            format!("cannot access index {index} for type {kind}"),
                        ));
                    }
                };
                operand.steps.push(step.clone());
                operand.span = node.span;
                Ok(operand)
            }
            ast::Kind::Literal(_) => Err(Fault::new(node.span, "expected a field or a function")
                .hint("the field stands left of the operator")),
            _ => Err(Fault::new(node.span, "expected a field or a function")),
        }
    }

    fn field(&mut self, name: &str, span: Span) -> Result<Operand, Fault> {
        let Some(id) = fields::find(name) else {
            let fault = Fault::new(span, "unknown identifier");
            if functions::find(name).is_some() {
                return Err(fault.hint(format!("{name} is a function: write {name}(...)")));
            }
            return Err(match fields::suggest(name) {
                Some(near) => fault.hint(format!("unknown field {name}; did you mean {near}?")),
                None => fault,
            });
        };
        let field = id.field();
        if let Some(phase) = self.options.phase
            && phase < field.since
        {
            return Err(Fault::new(
                span,
                format!(
                    "the use of field {name} is not allowed in phase {}: it is known from {} on",
                    phase.name(),
                    field.since.name()
                ),
            ));
        }
        Ok(Operand { span, base: Base::Field(id), steps: Vec::new(), kind: field.kind })
    }

    fn call(&mut self, name: &str, arguments: &[ast::Node], span: Span) -> Result<Operand, Fault> {
        let Some(declared) = functions::find(name) else {
            let names = functions::FUNCTIONS.iter().map(|declared| declared.name).chain(["any", "all"]);
            let fault = Fault::new(span, "unknown identifier");
            return Err(match nearest(name, names) {
                Some(near) => fault.hint(format!("unknown function {name}; did you mean {near}?")),
                None => fault.hint(format!("unknown function {name}")),
            });
        };
        self.allowed(declared, span)?;
        let most = if declared.repeats { functions::ARGUMENTS_MOST } else { declared.parameters.len() };
        if arguments.len() < declared.required || arguments.len() > most {
            let expected = match declared.required {
                least if least == most => least.to_string(),
                least => format!("{least} to {most}"),
            };
            return Err(Fault::new(
                span,
                format!("invalid number of arguments: expected {expected}, but got {}", arguments.len()),
            ));
        }
        let mut operands = Vec::with_capacity(arguments.len());
        for (position, argument) in arguments.iter().enumerate() {
            let last = declared.parameters.len() - 1;
            let Some(parameter) = declared.parameters.get(position.min(last)) else { continue };
            let operand = self.operand(argument, parameter.kinds, parameter.written)?;
            if position > 0 && operand.mapped() {
                return Err(Fault::new(
                    argument.span,
                    "[*] may stand only in the first argument of a function",
                ));
            }
            operands.push(operand);
        }
        self.check_call(declared, &mut operands, span)?;
        let mapped = operands.first().is_some_and(Operand::mapped);
        let one = declared.result.or(operands.first().map(|first| first.kind)).unwrap_or(Type::Bytes);
        let kind = if mapped {
            one.array().ok_or_else(|| Fault::new(span, "unsupported operation for this type"))?
        } else {
            one
        };
        let base = if mapped {
            Base::Mapped(declared.function, operands)
        } else {
            Base::Call(declared.function, operands)
        };
        Ok(Operand { span, base, steps: Vec::new(), kind })
    }

    fn allowed(&self, declared: &Declared, span: Span) -> Result<(), Fault> {
        match self.options.phase {
            Some(phase) if !declared.phases.is_empty() && !declared.phases.contains(&phase) => {
                Err(Fault::new(
                    span,
                    format!("the use of function {} is not allowed in phase {}", declared.name, phase.name()),
                ))
            }
            _ => Ok(()),
        }
    }

    fn operand(&mut self, node: &ast::Node, kinds: &[Type], written: Written) -> Result<Operand, Fault> {
        let operand = match &node.kind {
            ast::Kind::Literal(found) => {
                let value = as_argument(found, node.span, kinds)?;
                let kind = match value {
                    Constant::Int(_) => Type::Int,
                    Constant::Ip(_) => Type::Ip,
                    Constant::Bool(_) => Type::Bool,
                    Constant::Bytes(_) => Type::Bytes,
                };
                Operand { span: node.span, base: Base::Literal(value), steps: Vec::new(), kind }
            }
            _ => match self.any(node)? {
                Checked::Operand(operand) => operand,
                Checked::Truth(truth) => Operand {
                    span: node.span,
                    base: Base::Truth(Box::new(truth)),
                    steps: Vec::new(),
                    kind: Type::Bool,
                },
                Checked::Truths(_) => return Err(wrong_type(node.span, kinds, Type::TRUTHS)),
            },
        };
        if !kinds.contains(&operand.kind) {
            return Err(wrong_type(node.span, kinds, operand.kind));
        }
        match (written, operand.literal().is_some()) {
            (Written::Literal, false) => {
                Err(Fault::new(node.span, "invalid kind of argument: expected a literal"))
            }
            (Written::Computed, true) => {
                Err(Fault::new(node.span, "invalid kind of argument: expected a field or a function"))
            }
            _ => Ok(operand),
        }
    }

    /// What single functions ask of their arguments.
    fn check_call(&mut self, declared: &Declared, operands: &mut [Operand], span: Span) -> Result<(), Fault> {
        match declared.function {
            Function::Cidr => {
                within(operands, 1, 1, 32)?;
                within(operands, 2, 1, 128)
            }
            Function::Cidr6 => within(operands, 1, 1, 128),
            Function::Split => {
                within(operands, 2, 1, 128)?;
                not_empty(operands, 1)
            }
            Function::TimedHmac => within(operands, 4, 0, 1024),
            Function::UrlDecode => flags(operands, 1, "ru"),
            Function::Concat => same_types(operands),
            Function::RegexReplace => {
                once(&mut self.regex_replaced, declared, span)?;
                self.compile_replacement(operands, |text, _| {
                    let text = String::from_utf8_lossy(text).into_owned();
                    let compiled = Regular::new(&text)?;
                    Ok((compiled.groups(), Remembered::Regex(Box::new(compiled))))
                })
            }
            Function::WildcardReplace => {
                once(&mut self.wildcard_replaced, declared, span)?;
                flags(operands, 3, "s")?;
                self.compile_replacement(operands, |text, sensitive| {
                    let pattern = Pattern::new(text, sensitive)?;
                    Ok((pattern.stars(), Remembered::Pattern(pattern)))
                })
            }
            _ => Ok(()),
        }
    }

    fn compile_replacement(
        &self,
        operands: &mut [Operand],
        compile: impl Fn(&[u8], bool) -> Result<(usize, Remembered), String>,
    ) -> Result<(), Fault> {
        let sensitive = operands.len() > 3;
        let [_, pattern, template, ..] = operands else { return Ok(()) };
        let (Some(Constant::Bytes(text)), Some(Constant::Bytes(with))) =
            (pattern.literal(), template.literal())
        else {
            return Ok(());
        };
        let (captures, compiled) =
            compile(text, sensitive).map_err(|reason| Fault::new(pattern.span, reason))?;
        functions::check_replacement(with, captures).map_err(|reason| Fault::new(template.span, reason))?;
        functions::remembered(pattern, compiled);
        Ok(())
    }

    fn test(&mut self, left: &Operand, operator: Operator, right: &Right, span: Span) -> Result<Test, Fault> {
        let order = match operator {
            Operator::Equal => Some(Order::Equal),
            Operator::NotEqual => Some(Order::NotEqual),
            Operator::Less => Some(Order::Less),
            Operator::LessOrEqual => Some(Order::LessOrEqual),
            Operator::Greater => Some(Order::Greater),
            Operator::GreaterOrEqual => Some(Order::GreaterOrEqual),
            _ => None,
        };
        match (left.kind, operator, order, right) {
            (Type::Int, _, Some(order), Right::Literal(found, at)) => {
                Ok(Test::Int(order, literal::int(found, *at)?))
            }
            (Type::Bytes, _, Some(order), Right::Literal(found, at)) => {
                Ok(Test::Bytes(order, literal::bytes(found, *at)?))
            }
            (Type::Ip, _, Some(order), Right::Literal(found, at)) => {
                Ok(Test::Ip(order, literal::ip(found, *at)?))
            }
            (Type::Int, Operator::BitAnd, _, Right::Literal(found, at)) => {
                Ok(Test::BitAnd(literal::int(found, *at)?))
            }
            (Type::Bytes, Operator::Contains, _, Right::Literal(found, at)) => {
                Ok(Test::Contains(Box::new(Finder::new(&literal::bytes(found, *at)?).into_owned())))
            }
            (Type::Bytes, Operator::Wildcard | Operator::StrictWildcard, _, Right::Literal(found, at)) => {
                let text = literal::bytes(found, *at)?;
                Pattern::new(&text, operator == Operator::StrictWildcard)
                    .map(Test::Wildcard)
                    .map_err(|reason| Fault::new(*at, reason))
            }
            (Type::Bytes, Operator::Matches, _, Right::Regex(text, at)) => Regular::new(text)
                .map(|regex| Test::Matches(Box::new(regex)))
                .map_err(|reason| Fault::new(*at, reason)),
            (Type::Int, _, _, Right::Set(items)) => {
                let ranges: Result<Vec<_>, _> =
                    items.iter().map(|(item, at)| literal::int_range(item, *at)).collect();
                Ok(Test::InInts(literal::merged(ranges?)))
            }
            (Type::Ip, _, _, Right::Set(items)) => {
                let ranges: Result<Vec<_>, _> =
                    items.iter().map(|(item, at)| literal::ip_range(item, *at)).collect();
                Ok(Test::InIps(literal::merged(ranges?)))
            }
            (Type::Bytes, _, _, Right::Set(items)) => {
                let texts: Result<Vec<_>, _> =
                    items.iter().map(|(item, at)| literal::bytes(item, *at)).collect();
                let mut texts = texts?;
                texts.sort_unstable();
                texts.dedup();
                Ok(Test::InBytes(texts))
            }
            (Type::Int | Type::Ip | Type::Bytes, _, _, Right::List(name, at)) => {
                self.list(name, left.kind, *at)
            }
            (kind, operator, ..) => {
                Err(Fault::new(span, "unsupported operation for this type").hint(match kind {
                    Type::Bool => "a Bool stands alone: write it, or not before it".to_owned(),
                    Type::Array(_) | Type::Map(_) => format!("{kind} needs an index: [0], [\"key\"] or [*]"),
                    _ => format!("{} does not apply to {kind}", operator.text()),
                }))
            }
        }
    }

    fn list(&self, name: &str, kind: Type, span: Span) -> Result<Test, Fault> {
        match self.options.lists.iter().find(|(known, _)| *known == name) {
            Some((_, found)) if *found == kind => Ok(Test::InList(name.to_owned())),
            Some((_, found)) => Err(wrong_type(span, &[kind], *found)),
            None => {
                let fault = Fault::new(span, format!("unknown list ${name}"));
                Err(match nearest(name, self.options.lists.iter().map(|(known, _)| *known)) {
                    Some(near) => fault.hint(format!("did you mean ${near}?")),
                    None => fault,
                })
            }
        }
    }
}

fn unpacked(span: Span) -> Fault {
    Fault::new(span, "expected value of type Bool, but got Array<Bool>")
        .hint("what [*] unpacks goes into any(...) or all(...)")
}

fn wrong_type(span: Span, expected: &[Type], found: Type) -> Fault {
    let expected: Vec<String> = expected.iter().map(Type::to_string).collect();
    Fault::new(span, format!("expected value of type {}, but got {found}", expected.join(" or ")))
}

/// An array of truths as it is, or truths unpacked by `[*]`.
fn is_truths(operand: &Operand) -> bool {
    operand.kind == if operand.mapped() { Type::Bool } else { Type::TRUTHS }
}

fn as_truths(operand: Operand) -> Truths {
    if operand.mapped() { Truths::Mapped(operand, Test::Holds) } else { Truths::Plain(operand) }
}

fn one_truth(checked: Checked, span: Span) -> Result<Node, Fault> {
    match checked {
        Checked::Truth(node) => Ok(node),
        Checked::Operand(operand) if operand.mapped() => Err(unpacked(span)),
        Checked::Operand(operand) if operand.kind == Type::Bool => {
            Ok(Node { span, kind: Kind::Compare(operand, Test::Holds) })
        }
        Checked::Operand(operand) => {
            Err(wrong_type(span, &[Type::Bool], operand.kind).hint("compare it with something"))
        }
        Checked::Truths(_) => Err(unpacked(span)),
    }
}

fn as_argument(found: &Literal, span: Span, kinds: &[Type]) -> Result<Constant, Fault> {
    match found {
        Literal::Text(bytes) => Ok(Constant::Bytes(bytes.clone())),
        Literal::Word(word) if word == "true" || word == "false" => Ok(Constant::Bool(word == "true")),
        Literal::Word(_) if kinds.contains(&Type::Int) => literal::int(found, span).map(Constant::Int),
        Literal::Word(_) if kinds.contains(&Type::Ip) => literal::ip(found, span).map(Constant::Ip),
        Literal::Word(_) => literal::bytes(found, span).map(Constant::Bytes),
    }
}

fn within(operands: &[Operand], position: usize, least: i64, most: i64) -> Result<(), Fault> {
    let Some(operand) = operands.get(position) else { return Ok(()) };
    match operand.literal() {
        Some(Constant::Int(value)) if !(least..=most).contains(value) => {
            Err(Fault::new(operand.span, format!("expected a number from {least} to {most}")))
        }
        _ => Ok(()),
    }
}

fn not_empty(operands: &[Operand], position: usize) -> Result<(), Fault> {
    match operands.get(position) {
        Some(operand) if matches!(operand.literal(), Some(Constant::Bytes(bytes)) if bytes.is_empty()) => {
            Err(Fault::new(operand.span, "expected a string that is not empty"))
        }
        _ => Ok(()),
    }
}

fn flags(operands: &[Operand], position: usize, known: &str) -> Result<(), Fault> {
    let Some(operand) = operands.get(position) else { return Ok(()) };
    match operand.literal() {
        Some(Constant::Bytes(bytes)) if !bytes.iter().all(|byte| known.as_bytes().contains(byte)) => {
            Err(Fault::new(operand.span, format!("invalid option: known are the letters {known}")))
        }
        _ => Ok(()),
    }
}

fn same_types(operands: &[Operand]) -> Result<(), Fault> {
    let Some(first) = operands.first() else { return Ok(()) };
    match operands.iter().find(|operand| operand.kind != first.kind) {
        Some(other) => Err(wrong_type(other.span, &[first.kind], other.kind)),
        None => Ok(()),
    }
}

/// Once an expression; a call inside another of its kind is a second one.
fn once(used: &mut bool, declared: &Declared, span: Span) -> Result<(), Fault> {
    if std::mem::replace(used, true) {
        return Err(Fault::new(span, format!("{} may be used only once in an expression", declared.name)));
    }
    Ok(())
}
