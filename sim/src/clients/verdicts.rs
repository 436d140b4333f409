//! What becomes of a client's operations when they are answered, or when nobody answers.

use ringmain_schema::message::ErrorCode;

use super::requests::Answer;
use super::turn::{ATTEMPTS_MAX, BACK_OFF};
use super::{Context, Intent, Item, Read};
use crate::history::{Number, Outcome};
use crate::world::World;

impl World {
    /// An attempt came to nothing, or nobody knows to what.
    pub(super) fn attempt_failed(&mut self, number: usize, answer: &Answer) {
        self.hang_up(number);
        let Some(job) = &self.clients_mut()[number].job else { return };
        let answers = job.items.iter().map(|item| (item.number, answer.clone())).collect();
        self.on_answers(number, answers);
    }

    /// Operations are answered: those whose outcome is not settled by that are tried again at another node, if that can
    /// do no harm, and together if they were a batch.
    pub(super) fn on_answers(&mut self, number: usize, answers: Vec<(Number, Answer)>) {
        let Some(mut job) = self.clients_mut()[number].job.take() else { return };
        job.request = None;
        for (operation, answer) in answers {
            let Some(place) = job.items.iter().position(|item| item.number == operation) else { continue };
            let item = &mut job.items[place];
            item.in_doubt |= matches!(answer, Answer::Doubtful);
            let is_settled = matches!(answer, Answer::Read(..) | Answer::Stored(..) | Answer::Denied(_));
            let may_repeat = item.is_named || !item.in_doubt || !item.intent.is_write();
            let ends = is_settled || !may_repeat || job.attempts >= ATTEMPTS_MAX;
            if !ends {
                let code = match answer {
                    Answer::Refused(code) => code,
                    _ => ErrorCode::MaybeApplied,
                };
                self.history.get_mut(operation).setback.get_or_insert(code);
            } else {
                let item = job.items.remove(place);
                job.read.extend(self.finish(number, &item, job.attempts, answer));
            }
            if !is_settled {
                self.hang_up(number);
            }
        }
        let now = self.now;
        if !job.items.is_empty() {
            self.clients_mut()[number].job = Some(job);
            return self.plan_client(number, now + BACK_OFF);
        }
        if !job.read.is_empty() {
            return self.follow(number, &job.read);
        }
        let pause = self.clients_mut()[number].next_pause();
        self.plan_client(number, now + pause);
    }

    /// The outcome is known as far as it ever will be. What was read is returned, if something follows from it.
    fn finish(&mut self, number: usize, item: &Item, attempts: u32, answer: Answer) -> Option<Read> {
        let now = self.now;
        let (mut read, mut given) = (None, Context::default());
        let operation = self.history.get_mut(item.number);
        operation.returned = Some(now);
        operation.attempts = attempts;
        operation.outcome = match answer {
            Answer::Read(reading, context, fallbacks) => {
                operation.fallbacks = fallbacks;
                given = context.clone();
                read = Some(Read { key: item.intent.key(), reading: reading.clone(), context });
                Outcome::Got(reading)
            }
            Answer::Stored(receipt, context, fallbacks) => {
                operation.fallbacks = fallbacks;
                operation.receipt = Some(receipt);
                given = context;
                Outcome::Stored
            }
            Answer::Refused(code) | Answer::Denied(code) if !item.in_doubt => Outcome::Failed(code),
            _ => Outcome::Unknown,
        };
        if matches!(operation.outcome, Outcome::Stored) {
            self.on_acknowledged(item.number);
        }
        if !given.sealed.is_empty() {
            self.clients_mut()[number].contexts.insert(item.intent.key(), given);
        }
        read.filter(|_| matches!(item.intent, Intent::Get { then_write: true, .. }))
    }
}
