//! Symbolic values: linear forms over unknown run-time values.
//!
//! A [`Value`] is `sum(coefficient * atom) + constant`, modulo the operand's width. An *atom* is one run-time value that is
//! computed once: the result of an instruction that is not followed, or what a local holds at a join. Arithmetic is done
//! modulo 2^64; as reduction modulo 2^32 is a ring homomorphism, what is equal here is equal there.
//!
//! Invariants:
//! - two values that compare equal are equal at run time, within one iteration of every loop that holds both atoms' births;
//! - atoms are numbered in the order of their birth: an atom that is older than a loop does not change in it.

use crate::limits;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Number of an atom, in order of birth.
pub(crate) type Atom = u32;

/// A sum of atoms with coefficients, interned. [`Linear::ZERO`] is the empty sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Linear(u32);

impl Linear {
    pub const ZERO: Self = Self(0);
}

/// A linear form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Value {
    pub linear: Linear,
    pub constant: i64,
}

impl Value {
    pub fn constant(constant: i64) -> Self {
        Self {
            linear: Linear::ZERO,
            constant,
        }
    }

    pub fn is_constant(self) -> bool {
        self.linear == Linear::ZERO
    }

    pub fn plus(self, constant: i64) -> Self {
        Self {
            linear: self.linear,
            constant: self.constant.wrapping_add(constant),
        }
    }
}

type Terms = Box<[(Atom, i64)]>;

/// All values of one function.
#[derive(Debug)]
pub(crate) struct Values {
    forms: Vec<Terms>,
    index: BTreeMap<Terms, Linear>,
    atoms: Atom,
}

impl Values {
    pub fn new() -> Self {
        let empty: Terms = Box::new([]);
        Self {
            forms: Vec::from([empty.clone()]),
            index: BTreeMap::from([(empty, Linear::ZERO)]),
            atoms: 0,
        }
    }

    /// The number that the next atom gets.
    pub fn next_atom(&self) -> Atom {
        self.atoms
    }

    /// A value that nothing is known about.
    pub fn fresh(&mut self) -> Value {
        let atom = self.atoms;
        self.atoms += 1;
        self.of_atom(atom)
    }

    /// The value of one atom.
    pub fn of_atom(&mut self, atom: Atom) -> Value {
        let linear = self.intern(Box::new([(atom, 1)]));
        Value { linear, constant: 0 }
    }

    /// The terms of a sum, by ascending atom, no coefficient 0.
    pub fn terms(&self, linear: Linear) -> &[(Atom, i64)] {
        &self.forms[linear.0 as usize]
    }

    fn intern(&mut self, terms: Terms) -> Linear {
        if let Some(&linear) = self.index.get(&terms) {
            return linear;
        }
        let linear = Linear(self.forms.len() as u32);
        self.forms.push(terms.clone());
        self.index.insert(terms, linear);
        linear
    }

    /// `a + scale * b`, or a fresh value where that has too many terms.
    pub fn combine(&mut self, a: Value, b: Value, scale: i64) -> Value {
        let constant = a.constant.wrapping_add(b.constant.wrapping_mul(scale));
        if b.is_constant() || scale == 0 {
            return Value {
                linear: a.linear,
                constant,
            };
        }
        let mut sum: Vec<(Atom, i64)> = self.terms(a.linear).to_vec();
        for &(atom, coefficient) in &self.forms[b.linear.0 as usize] {
            let addend = coefficient.wrapping_mul(scale);
            match sum.binary_search_by_key(&atom, |&(atom, _)| atom) {
                Ok(at) => sum[at].1 = sum[at].1.wrapping_add(addend),
                Err(at) => sum.insert(at, (atom, addend)),
            }
        }
        sum.retain(|&(_, coefficient)| coefficient != 0);
        if sum.len() > limits::TERMS_MAX {
            return self.fresh();
        }
        let linear = self.intern(sum.into());
        Value { linear, constant }
    }

    pub fn add(&mut self, a: Value, b: Value) -> Value {
        if a.is_constant() {
            b.plus(a.constant)
        } else {
            self.combine(a, b, 1)
        }
    }

    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.combine(a, b, -1)
    }

    /// `a * b` where one of them is a constant, else a fresh value.
    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        match (a.is_constant(), b.is_constant()) {
            (_, true) => self.combine(Value::constant(0), a, b.constant),
            (true, _) => self.combine(Value::constant(0), b, a.constant),
            _ => self.fresh(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sums_are_one() {
        let mut values = Values::new();
        let (a, b) = (values.fresh(), values.fresh());
        let left = values.add(a, b);
        let scaled = values.mul(b, Value::constant(3));
        let back = values.combine(scaled, b, -2);
        let right = values.add(back, a);
        assert_eq!(left, right);
        let zero = values.sub(left, right);
        assert_eq!(zero, Value::constant(0));
    }

    #[test]
    fn too_many_terms_are_forgotten() {
        let mut values = Values::new();
        let mut sum = Value::constant(0);
        for _ in 0..limits::TERMS_MAX {
            let next = values.fresh();
            sum = values.add(sum, next);
        }
        assert_eq!(values.terms(sum.linear).len(), limits::TERMS_MAX);
        let next = values.fresh();
        let over = values.add(sum, next);
        assert_eq!(values.terms(over.linear).len(), 1);
    }

    #[test]
    fn a_product_of_unknowns_is_unknown() {
        let mut values = Values::new();
        let (a, b) = (values.fresh(), values.fresh());
        let (one, two) = (values.mul(a, b), values.mul(a, b));
        assert_ne!(one, two);
    }
}
