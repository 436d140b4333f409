//! Everything synced is there, nothing is invented: the one judgement over every image.

use ringmain::storage::log::{Found, Recovered};

use crate::mutant::Mutant;
use crate::rig::{Anatomy, Expected, recover, recover_from, slot_at, slot_of};

/// Looks at images, and counts them.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) states: u64,
    /// Of these, how many had lost an acknowledged record to damage that nothing on the disk could tell from a torn tail.
    pub(crate) undetectable: u64,
    found: Vec<Found>,
}

/// What an image breaks, in a sentence.
pub(crate) type Verdict = Result<(), String>;

impl Oracle {
    /// An image that a crash has left, and nothing worse: no damage may be reported.
    pub(crate) fn crashed(&mut self, image: &[u8], expected: &Expected, mutant: &Mutant) -> Verdict {
        self.states += 1;
        let mut found = std::mem::take(&mut self.found);
        let verdict = recover(image, mutant, &mut found)
            .map_err(|refusal| refusal.to_string())
            .and_then(|recovered| judge_crash(image, expected, &found, &recovered));
        self.found = found;
        verdict
    }

    /// An image that was damaged after all in it was acknowledged. `touches` says whether any byte of a range of the disk
    /// has changed.
    pub(crate) fn damaged(
        &mut self,
        image: &[u8],
        truth: &Truth<'_>,
        touches: impl Fn(usize, usize) -> bool,
        mutant: &Mutant,
    ) -> Verdict {
        self.judged(image, truth, touches, |found| recover(image, mutant, found))
    }

    /// The same for a segment that ends too early.
    pub(crate) fn truncated(
        &mut self,
        image: &[u8],
        truth: &Truth<'_>,
        (slot, len): (ringmain::storage::log::Slot, usize),
        mutant: &Mutant,
    ) -> Verdict {
        let end = slot_at(slot) + len;
        let touches = |from: usize, to: usize| from < slot_at(slot) + slot_of(image, slot).len() && to > end;
        let is_of_it = |from: usize, to: usize| from >= slot_at(slot) && touches(from, to);
        self.judged(image, truth, is_of_it, |found| {
            recover_from(image, mutant, found, |of| {
                let bytes = slot_of(image, of);
                if of == slot { &bytes[..len] } else { bytes }
            })
        })
    }

    fn judged(
        &mut self,
        image: &[u8],
        truth: &Truth<'_>,
        touches: impl Fn(usize, usize) -> bool,
        recover: impl FnOnce(&mut Vec<Found>) -> Result<Recovered, ringmain::storage::log::Refusal>,
    ) -> Verdict {
        self.states += 1;
        let mut found = std::mem::take(&mut self.found);
        let verdict = recover(&mut found).map_err(|refusal| refusal.to_string()).and_then(|recovered| {
            let lost = judge_damage(image, truth, &touches, &found, &recovered)?;
            self.undetectable += u64::from(lost);
            Ok(())
        });
        self.found = found;
        verdict
    }
}

/// What was on the disk before it was damaged. All of it was acknowledged.
#[derive(Debug)]
pub(crate) struct Truth<'a> {
    pub(crate) anatomy: &'a Anatomy,
    pub(crate) expected: &'a Expected,
    /// What the manifest proves was durable.
    pub(crate) proven: u64,
}

fn judge_crash(image: &[u8], expected: &Expected, found: &[Found], recovered: &Recovered) -> Verdict {
    if let Some(damage) = recovered.report.damages.first() {
        return Err(format!("nothing was damaged, and yet: {damage}"));
    }
    let mut stands = found.iter().chain(&recovered.tail);
    let first = stands.clone().next().map_or(expected.releasing + 1, |found| found.sequence);
    if first != expected.released + 1 && first != expected.releasing + 1 {
        return Err(format!("record {first} comes first, after {} were released", expected.released));
    }
    let last = stands.try_fold(first - 1, |before, found| {
        if found.sequence != before + 1 {
            return Err(format!("record {} follows {before}", found.sequence));
        }
        is_true(image, expected, found).map(|()| found.sequence)
    })?;
    if last < expected.acknowledged {
        return Err(format!("all up to {} was acknowledged, and {last} is the last", expected.acknowledged));
    }
    Ok(())
}

fn is_true(image: &[u8], expected: &Expected, found: &Found) -> Verdict {
    let payload = &slot_of(image, found.segment.slot)[found.payload()];
    match expected.payloads.get(found.sequence as usize) {
        Some(true_one) if true_one == payload => Ok(()),
        Some(_) => Err(format!("record {} isn't what was written", found.sequence)),
        None => Err(format!("record {} was never written, or was cut off", found.sequence)),
    }
}

/// Has an acknowledged record been lost that nothing could tell of?
fn judge_damage(
    image: &[u8],
    truth: &Truth<'_>,
    touches: impl Fn(usize, usize) -> bool,
    found: &[Found],
    recovered: &Recovered,
) -> Result<bool, String> {
    let Truth { anatomy, expected, proven } = truth;
    let whole = anatomy.witnesses.iter().filter(|(from, to, _)| !touches(*from, *to));
    let witnessed = whole.map(|(_, _, durable)| *durable).max().unwrap_or(0).max(*proven);
    let mut stands = found.iter().chain(&recovered.tail).peekable();
    let (mut missing, mut is_cut) = (0, false);
    for record in &anatomy.records {
        let at = slot_at(record.segment.slot) + record.offset as usize;
        let end = slot_at(record.segment.slot) + record.payload().end;
        let (sequence, is_touched) = (record.sequence, touches(at, end));
        is_cut |= is_touched && sequence > witnessed;
        let should_stand = !is_touched && !is_cut;
        let stands = stands.next_if(|found| found.sequence == sequence);
        match (should_stand, stands) {
            (true, Some(found)) => is_true(image, expected, found)?,
            (false, None) => {}
            (true, None) => return Err(format!("record {sequence} is whole, and wasn't recovered")),
            (false, Some(_)) => {
                return Err(format!("record {sequence} is damaged or cut off, and yet it stands"));
            }
        }
        if is_touched && sequence <= witnessed {
            missing += 1;
            let covers = |range: ringmain::storage::log::Range| range.contains(sequence);
            if !recovered.report.damages.iter().filter_map(|damage| damage.missing).any(covers) {
                return Err(format!("record {sequence} is lost, and nobody is told"));
            }
        }
    }
    if let Some(found) = stands.next() {
        return Err(format!("record {} was invented", found.sequence));
    }
    if recovered.report.missing() != missing {
        return Err(format!("{missing} records are lost, and {} are reported", recovered.report.missing()));
    }
    for damage in &recovered.report.damages {
        let start = slot_at(damage.segment.slot);
        if !touches(start + damage.from as usize, start + damage.to as usize) {
            return Err(format!("nothing is damaged there: {damage}"));
        }
    }
    Ok(is_cut)
}
