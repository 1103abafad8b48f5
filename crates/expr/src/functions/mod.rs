//! Every function of the language: what it takes, where it may be used, and what it does.

mod json;
mod network;
mod replace;
mod signed;
mod text;

use std::borrow::Cow;

use crate::eval::{Machine, TEXT_MOST};
use crate::phase::Phase;
use crate::plan::Operand;
use crate::types::Type;
use crate::value::{Fetched, Value};

pub(crate) use network::masked;
pub(crate) use replace::{Remembered, check_replacement, remembered};

/// A function; `any` and `all` are not here, they are part of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Cidr,
    Cidr6,
    Concat,
    DecodeBase64,
    EndsWith,
    StartsWith,
    Join,
    Len,
    LookupJsonInteger,
    LookupJsonString,
    Lower,
    Upper,
    RegexReplace,
    WildcardReplace,
    RemoveBytes,
    RemoveQueryArgs,
    Split,
    Substring,
    ToString,
    UrlDecode,
    UuidV4,
    TimedHmac,
}

/// Whether an argument is written out or computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Literal,
    Computed,
    Either,
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    pub kinds: &'static [Type],
    pub written: Written,
}

/// One function's declaration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declared {
    pub name: &'static str,
    pub function: Function,
    pub parameters: &'static [Parameter],
    /// How many of the parameters must be given.
    pub required: usize,
    /// The last parameter may be repeated up to `ARGUMENTS_MOST`.
    pub repeats: bool,
    /// None: the type of the first argument.
    pub result: Option<Type>,
    /// Phases that may use it; empty for all.
    pub phases: &'static [Phase],
}

/// No call has more arguments.
pub(crate) const ARGUMENTS_MOST: usize = 64;

const fn takes(kinds: &'static [Type], written: Written) -> Parameter {
    Parameter { kinds, written }
}

const TEXT: Parameter = takes(&[Type::Bytes], Written::Either);
const TEXT_FIELD: Parameter = takes(&[Type::Bytes], Written::Computed);
const TEXT_LITERAL: Parameter = takes(&[Type::Bytes], Written::Literal);
const INT: Parameter = takes(&[Type::Int], Written::Either);
const INT_LITERAL: Parameter = takes(&[Type::Int], Written::Literal);
const ADDRESS: Parameter = takes(&[Type::Ip], Written::Computed);
const STRINGS: Parameter = takes(&[Type::STRINGS], Written::Computed);
const JOINABLE: Parameter =
    takes(&[Type::Bytes, Type::STRINGS, Type::Array(&Type::Int), Type::TRUTHS], Written::Either);
const COUNTABLE: Parameter = takes(
    &[
        Type::Bytes,
        Type::STRINGS,
        Type::Array(&Type::Int),
        Type::Array(&Type::STRINGS),
        Type::TRUTHS,
        Type::Array(&Type::Ip),
    ],
    Written::Computed,
);
const PATH: Parameter = takes(&[Type::Bytes, Type::Int], Written::Literal);
const PLAIN: Parameter = takes(&[Type::Int, Type::Bool, Type::Ip], Written::Computed);

const ADDRESS_PHASES: &[Phase] = &[Phase::FirewallCustom, Phase::RateLimit];
const REDIRECTS: &[Phase] = &[Phase::DynamicRedirect, Phase::Transform, Phase::Redirect];
const REWRITES: &[Phase] = &[
    Phase::DynamicRedirect,
    Phase::Transform,
    Phase::Redirect,
    Phase::LateTransform,
    Phase::ResponseHeaders,
];
const ANSWERS: &[Phase] = &[Phase::ResponseHeaders, Phase::CustomErrors];
const EVERYWHERE: &[Phase] = &[];

const fn fixed(
    name: &'static str,
    function: Function,
    parameters: &'static [Parameter],
    required: usize,
    result: Option<Type>,
    phases: &'static [Phase],
) -> Declared {
    Declared { name, function, parameters, required, repeats: false, result, phases }
}

const fn repeating(declared: Declared) -> Declared {
    Declared { repeats: true, ..declared }
}

const BOOL: Option<Type> = Some(Type::Bool);
const INTEGER: Option<Type> = Some(Type::Int);
const BYTES: Option<Type> = Some(Type::Bytes);
const IP: Option<Type> = Some(Type::Ip);

/// Every function but `any` and `all`.
#[rustfmt::skip]
pub(crate) const FUNCTIONS: &[Declared] = &[
    fixed("cidr", Function::Cidr, &[ADDRESS, INT_LITERAL, INT_LITERAL], 3, IP, ADDRESS_PHASES),
    fixed("cidr6", Function::Cidr6, &[ADDRESS, INT_LITERAL], 2, IP, ADDRESS_PHASES),
    repeating(fixed("concat", Function::Concat, &[JOINABLE], 1, None, EVERYWHERE)),
    fixed("decode_base64", Function::DecodeBase64, &[TEXT_FIELD], 1, BYTES, EVERYWHERE),
    fixed("ends_with", Function::EndsWith, &[TEXT_FIELD, TEXT], 2, BOOL, EVERYWHERE),
    fixed("starts_with", Function::StartsWith, &[TEXT_FIELD, TEXT], 2, BOOL, EVERYWHERE),
    fixed("join", Function::Join, &[STRINGS, TEXT], 2, BYTES, EVERYWHERE),
    fixed("len", Function::Len, &[COUNTABLE], 1, INTEGER, EVERYWHERE),
    repeating(fixed("lookup_json_integer", Function::LookupJsonInteger, &[TEXT_FIELD, PATH], 2, INTEGER, EVERYWHERE)),
    repeating(fixed("lookup_json_string", Function::LookupJsonString, &[TEXT_FIELD, PATH], 2, BYTES, EVERYWHERE)),
    fixed("lower", Function::Lower, &[TEXT_FIELD], 1, BYTES, EVERYWHERE),
    fixed("upper", Function::Upper, &[TEXT_FIELD], 1, BYTES, EVERYWHERE),
    fixed("regex_replace", Function::RegexReplace, &[TEXT, TEXT_LITERAL, TEXT_LITERAL], 3, BYTES, REWRITES),
    fixed("wildcard_replace", Function::WildcardReplace, &[TEXT, TEXT_LITERAL, TEXT_LITERAL, TEXT_LITERAL], 3, BYTES, REDIRECTS),
    fixed("remove_bytes", Function::RemoveBytes, &[TEXT_FIELD, TEXT], 2, BYTES, EVERYWHERE),
    repeating(fixed("remove_query_args", Function::RemoveQueryArgs, &[TEXT_FIELD, TEXT_LITERAL], 2, BYTES, REWRITES)),
    fixed("split", Function::Split, &[TEXT_FIELD, TEXT_LITERAL, INT_LITERAL], 3, Some(Type::STRINGS), ANSWERS),
    fixed("substring", Function::Substring, &[TEXT_FIELD, INT, INT], 2, BYTES, EVERYWHERE),
    fixed("to_string", Function::ToString, &[PLAIN], 1, BYTES, REWRITES),
    fixed("url_decode", Function::UrlDecode, &[TEXT_FIELD, TEXT_LITERAL], 1, BYTES, EVERYWHERE),
    fixed("uuidv4", Function::UuidV4, &[TEXT_FIELD], 1, BYTES, REWRITES),
    fixed("is_timed_hmac_valid_v0", Function::TimedHmac, &[TEXT_LITERAL, TEXT_FIELD, INT_LITERAL, INT, INT_LITERAL, TEXT_LITERAL], 4, BOOL, EVERYWHERE),
];

/// The declaration of a name.
pub(crate) fn find(name: &str) -> Option<&'static Declared> {
    FUNCTIONS.iter().find(|declared| declared.name == name)
}

/// The name of a function.
pub(crate) fn name(function: Function) -> &'static str {
    FUNCTIONS.iter().find(|declared| declared.function == function).map_or("", |declared| declared.name)
}

/// The arguments of a call as it runs.
pub(crate) struct Arguments<'e> {
    all: &'e [Operand],
    /// The element of a mapped first argument.
    first: Option<Fetched<'e>>,
}

impl<'e> Arguments<'e> {
    fn count(&self) -> usize {
        self.all.len()
    }

    fn get(&mut self, machine: &mut Machine<'e, '_>, position: usize) -> Fetched<'e> {
        if position == 0
            && let Some(first) = self.first.take()
        {
            return first;
        }
        self.all.get(position).map_or(Fetched::Missing, |operand| machine.value(operand))
    }

    /// A string, paid for; what is none is Unknown, for the checker lets none through.
    fn text(&mut self, machine: &mut Machine<'e, '_>, position: usize) -> Result<Cow<'e, [u8]>, Fetched<'e>> {
        match self.get(machine, position) {
            Fetched::Value(Value::Bytes(bytes)) if machine.pay(bytes.len()) => Ok(bytes),
            Fetched::Value(_) => Err(Fetched::Unknown),
            other => Err(other),
        }
    }

    fn int(&mut self, machine: &mut Machine<'e, '_>, position: usize) -> Result<i64, Fetched<'e>> {
        match self.get(machine, position) {
            Fetched::Value(Value::Int(value)) => Ok(value),
            Fetched::Value(_) => Err(Fetched::Unknown),
            other => Err(other),
        }
    }
}

/// Calls a function. A missing argument makes the result missing, an unknown one unknown.
pub(crate) fn call<'e>(
    machine: &mut Machine<'e, '_>,
    function: Function,
    all: &'e [Operand],
    first: Option<Fetched<'e>>,
) -> Fetched<'e> {
    let arguments = Arguments { all, first };
    let result = match function {
        Function::Cidr => network::cidr(machine, arguments),
        Function::Cidr6 => network::cidr6(machine, arguments),
        Function::Concat => text::concat(machine, arguments),
        Function::DecodeBase64 => text::decode_base64(machine, arguments),
        Function::EndsWith => text::affix(machine, arguments, |text, end| text.ends_with(end)),
        Function::StartsWith => text::affix(machine, arguments, |text, start| text.starts_with(start)),
        Function::Join => text::join(machine, arguments),
        Function::Len => text::len(machine, arguments),
        Function::LookupJsonInteger => json::integer(machine, arguments),
        Function::LookupJsonString => json::string(machine, arguments),
        Function::Lower => text::cased(machine, arguments, <[u8]>::make_ascii_lowercase),
        Function::Upper => text::cased(machine, arguments, <[u8]>::make_ascii_uppercase),
        Function::RegexReplace => replace::regex_replace(machine, arguments),
        Function::WildcardReplace => replace::wildcard_replace(machine, arguments),
        Function::RemoveBytes => text::remove_bytes(machine, arguments),
        Function::RemoveQueryArgs => text::remove_query_args(machine, arguments),
        Function::Split => text::split(machine, arguments),
        Function::Substring => text::substring(machine, arguments),
        Function::ToString => text::to_string(machine, arguments),
        Function::UrlDecode => text::url_decode(machine, arguments),
        Function::UuidV4 => text::uuidv4(machine, arguments),
        Function::TimedHmac => signed::timed_hmac(machine, arguments),
    };
    result.unwrap_or_else(|fetched| fetched)
}

/// What a function's body gives; the error is a Missing or Unknown argument passed on.
type Outcome<'e> = Result<Fetched<'e>, Fetched<'e>>;

/// A string made here, if it is not too long.
fn made<'e>(bytes: Vec<u8>) -> Outcome<'e> {
    if bytes.len() > TEXT_MOST {
        return Ok(Fetched::Unknown);
    }
    Ok(Fetched::Value(Value::Bytes(Cow::Owned(bytes))))
}
