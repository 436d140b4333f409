//! The dot log: every version that was ever minted, and what it replaced.
//!
//! Dots are the truth that clients don't see. The log is filled by the core itself, at the one place where dots
//! are minted, and every message and record that carries a version is held against it (P6).

use std::collections::BTreeMap;

use ringmain::causality::{Dot, VersionVector};
use ringmain::id::OperationId;
use ringmain::time::Instant;

use crate::history::{Key, Number, read_value};

/// A version that was minted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Minted {
    /// What it replaced: its client's context or, for an overwrite, all that its coordinator had.
    pub covered: VersionVector,
    /// By which operation.
    pub operation: Number,
    /// It is a delete's.
    pub tombstone: bool,
    /// On which node.
    pub node: usize,
    /// When.
    pub at: Instant,
}

/// One dot with two meanings, or a version that nobody minted: P6 is broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clash {
    /// Of this key; `None` if nobody knows it.
    pub key: Option<Key>,
    /// What happened.
    pub sentence: String,
    /// By which operations.
    pub operations: Vec<Number>,
}

/// All dots of a run.
#[derive(Clone, Debug, Default)]
pub struct DotLog {
    keys: BTreeMap<Key, BTreeMap<Dot, Minted>>,
    operations: BTreeMap<Number, Vec<Dot>>,
}

impl DotLog {
    /// A dot was minted. The first mint stands; another of the same dot is a clash.
    pub fn mint(&mut self, key: Key, dot: Dot, minted: Minted) -> Result<(), Clash> {
        let operation = minted.operation;
        if let Some(before) = self.get(key, dot) {
            let sentence = format!("{dot:?} was minted twice: {before:?}, and then {minted:?}");
            return Err(Clash { key: Some(key), sentence, operations: vec![before.operation, operation] });
        }
        self.keys.entry(key).or_default().insert(dot, minted);
        self.operations.entry(operation).or_default().push(dot);
        Ok(())
    }

    /// A message or a record carries this version.
    pub fn witness(&self, key: Key, dot: Dot, operation: Number) -> Result<(), Clash> {
        match self.get(key, dot) {
            Some(minted) if minted.operation == operation => Ok(()),
            Some(minted) => {
                let sentence = format!("{dot:?} is {:?}, and was seen as {operation:?}", minted.operation);
                Err(Clash { key: Some(key), sentence, operations: vec![minted.operation, operation] })
            }
            None => {
                let sentence = format!("{dot:?} of {operation:?} was seen, and nobody minted it");
                Err(Clash { key: Some(key), sentence, operations: vec![operation] })
            }
        }
    }

    /// What is known of a dot.
    pub fn get(&self, key: Key, dot: Dot) -> Option<&Minted> {
        self.keys.get(&key)?.get(&dot)
    }

    /// All dots of a key, in their order.
    pub fn of_key(&self, key: Key) -> impl Iterator<Item = (Dot, &Minted)> {
        self.keys.get(&key).into_iter().flatten().map(|(dot, minted)| (*dot, minted))
    }

    /// The dots under which an operation was applied: none if it never was, several if a retry overtook its
    /// own replication.
    pub fn of_operation(&self, operation: Number) -> &[Dot] {
        self.operations.get(&operation).map_or(&[], Vec::as_slice)
    }
}

/// The operation of a version: by its name, or else by its value.
pub fn operation_of(name: OperationId, value: Option<&[u8]>) -> Option<Number> {
    let by_value = || value.and_then(read_value).map(|(number, ..)| number);
    match name {
        OperationId::NONE => by_value(),
        name => u32::try_from(name.sequence.checked_sub(1)?).ok().map(Number),
    }
}

/// The name of an operation.
pub const fn name_of(client: u32, number: Number) -> OperationId {
    OperationId { client: client as u64 + 1, sequence: number.0 as u64 + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmain::causality::Actor;

    fn minted(operation: u32) -> Minted {
        Minted {
            covered: VersionVector::new(),
            operation: Number(operation),
            tombstone: false,
            node: 0,
            at: Instant(0),
        }
    }

    /// P6: one dot, one value, for ever.
    #[test]
    fn a_dot_has_one_meaning() {
        let mut dots = DotLog::default();
        let dot = Dot { actor: Actor { id: 1, epoch: 1 }, counter: 1 };
        dots.mint(Key(0), dot, minted(1)).unwrap();
        dots.mint(Key(1), dot, minted(2)).unwrap();
        assert!(dots.mint(Key(0), dot, minted(3)).is_err());
        assert!(dots.witness(Key(0), dot, Number(1)).is_ok());
        assert!(dots.witness(Key(0), dot, Number(2)).is_err());
        assert!(dots.witness(Key(2), dot, Number(1)).is_err());
        assert_eq!(dots.of_operation(Number(1)), [dot]);
        assert!(dots.of_operation(Number(3)).is_empty());
    }
}
