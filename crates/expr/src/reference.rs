//! What the reference says of functions: how each is called, where it may be used, what it does.

use crate::Phase;
use crate::functions::{Declared, FUNCTIONS, Function, Parameter, Written};
use crate::types::Type;

/// One function, for people to read.
#[derive(Clone, Debug)]
pub struct FunctionReference {
    /// Its name.
    pub name: &'static str,
    /// How it is called: `lower(Bytes) -> Bytes`; what is optional in brackets, `...` where the last may be repeated.
    pub signature: String,
    /// Phases that may use it; empty for all.
    pub phases: &'static [Phase],
    /// What it does, in one or two sentences.
    pub doc: &'static str,
}

/// Every function, in alphabetical order.
pub fn functions_reference() -> Vec<FunctionReference> {
    let quantifier = |name, doc| FunctionReference {
        name,
        signature: format!("{name}(Array<Bool>) -> Bool"),
        phases: &[],
        doc,
    };
    let mut all: Vec<_> = FUNCTIONS.iter().map(of).collect();
    all.push(quantifier("any", "True when at least one is; false for an empty or missing array."));
    all.push(quantifier(
        "all",
        "True when every one is. Also for an empty array, as one of a comparison with [*] over nothing; false for an array \
         that is missing.",
    ));
    all.sort_by_key(|function| function.name);
    all
}

fn of(declared: &Declared) -> FunctionReference {
    let mut parameters = String::new();
    for (position, parameter) in declared.parameters.iter().enumerate() {
        let text = kinds(parameter);
        let comma = if position == 0 { "" } else { ", " };
        parameters += &if position < declared.required { format!("{comma}{text}") } else { format!("[{comma}{text}]") };
    }
    if declared.repeats {
        parameters += ", ...";
    }
    let result = declared.result.map_or("the type of the first".to_owned(), |kind| kind.to_string());
    FunctionReference {
        name: declared.name,
        signature: format!("{}({parameters}) -> {result}", declared.name),
        phases: declared.phases,
        doc: doc(declared.function),
    }
}

fn kinds(parameter: &Parameter) -> String {
    let kinds: Vec<String> = parameter.kinds.iter().map(Type::to_string).collect();
    let literal = if parameter.written == Written::Literal { " literal" } else { "" };
    format!("{}{literal}", kinds.join(" or "))
}

fn doc(function: Function) -> &'static str {
    match function {
        Function::Cidr => "The network of an address: its first bits, of IPv4 and of IPv6, the others zero.",
        Function::Cidr6 => "The network of an IPv6 address; an IPv4 address is left as it is.",
        Function::Concat => "All of them one after the other; a missing one counts as empty.",
        Function::DecodeBase64 => "What base64 stands for; missing when it is none.",
        Function::EndsWith => "Whether the first ends with the second, upper and lower case told apart.",
        Function::StartsWith => "Whether the first begins with the second, upper and lower case told apart.",
        Function::Join => "The elements in one string, with the second between them.",
        Function::Len => "How many bytes a string has, or how many elements an array.",
        Function::LookupJsonInteger => {
            "The whole number at a path of names and positions in JSON; missing when there is none, as for 42.0."
        }
        Function::LookupJsonString => "The string at a path of names and positions in JSON; missing when there is none.",
        Function::Lower => "ASCII letters in lower case.",
        Function::Upper => "ASCII letters in upper case.",
        Function::RegexReplace => {
            "The first match of a regular expression replaced; ${1} to ${8} are its groups, $$ is a dollar sign. Once in an \
             expression."
        }
        Function::WildcardReplace => {
            "A value that fits a wildcard pattern as a whole, replaced; ${1} is what the first * stands for. Upper and \
             lower case are told apart with \"s\". Once in an expression."
        }
        Function::RemoveBytes => "The first without every byte that occurs in the second.",
        Function::RemoveQueryArgs => "A query without the arguments of these names, the others in their order.",
        Function::Split => "The parts between separators, at most so many, 1 to 128; the last is the rest.",
        Function::Substring => {
            "From one byte position up to, without, another, counted from 0; negative ones count from the end."
        }
        Function::ToString => "A number, an address or a truth as text.",
        Function::UrlDecode => {
            "Percent-encoding undone and + made a space; with \"r\" until nothing is left to undo, with \"u\" also %uXXXX."
        }
        Function::UuidV4 => "A random UUID made of random bytes.",
        Function::TimedHmac => {
            "Whether the second ends with a time and an HMAC-SHA256 by the key, no older than so many seconds at the time \
             given; then the length of the separator before the time, and \"s\" for URL-safe base64."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::functions_reference;

    #[test]
    fn signatures_say_what_is_optional_and_what_repeats() {
        let all = functions_reference();
        let signature = |name| {
            let found = all.iter().find(|function| function.name == name);
            found.map(|function| function.signature.as_str()).unwrap_or_default()
        };
        assert_eq!(signature("lower"), "lower(Bytes) -> Bytes");
        assert_eq!(signature("substring"), "substring(Bytes, Int[, Int]) -> Bytes");
        assert_eq!(
            signature("lookup_json_string"),
            "lookup_json_string(Bytes, Bytes or Int literal, ...) -> Bytes"
        );
        assert_eq!(signature("cidr"), "cidr(Ip, Int literal, Int literal) -> Ip");
        assert_eq!(signature("any"), "any(Array<Bool>) -> Bool");
        assert_eq!(all.len(), 24);
    }
}
