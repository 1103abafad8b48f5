//! The types an expression can have.

use std::fmt;

/// The type of a field, an operand or a function's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// True or false.
    Bool,
    /// A signed 64-bit whole number.
    Int,
    /// A string; compared byte by byte, whatever its encoding.
    Bytes,
    /// An IPv4 or IPv6 address.
    Ip,
    /// An ordered list of one type.
    Array(&'static Type),
    /// Values of one type under string keys.
    Map(&'static Type),
}

impl Type {
    /// `Array<Bytes>`.
    pub const STRINGS: Type = Type::Array(&Type::Bytes);
    /// `Array<Bool>`, what a comparison over `[*]` makes.
    pub const TRUTHS: Type = Type::Array(&Type::Bool);

    /// The array of this type; for the element types the language has.
    pub fn array(self) -> Option<Type> {
        Some(Type::Array(match self {
            Type::Bool => &Type::Bool,
            Type::Int => &Type::Int,
            Type::Bytes => &Type::Bytes,
            Type::Ip => &Type::Ip,
            Type::Array(Type::Bytes) => &Type::STRINGS,
            Type::Array(_) | Type::Map(_) => return None,
        }))
    }

    /// What `[*]` unpacks: the type of the elements.
    pub fn element(self) -> Option<Type> {
        match self {
            Type::Array(of) | Type::Map(of) => Some(*of),
            Type::Bool | Type::Int | Type::Bytes | Type::Ip => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Bool => out.write_str("Bool"),
            Type::Int => out.write_str("Int"),
            Type::Bytes => out.write_str("Bytes"),
            Type::Ip => out.write_str("Ip"),
            Type::Array(of) => write!(out, "Array<{of}>"),
            Type::Map(of) => write!(out, "Map<{of}>"),
        }
    }
}
