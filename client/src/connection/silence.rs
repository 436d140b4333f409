//! When is a silent server a dead one?
//!
//! While somebody waits and nothing comes, the other end is pinged; if that brings nothing either, the
//! connection is given up, and its requests go elsewhere while there is time. A server that is only slow
//! answers pings at once, because that takes nothing but its loop.

use std::time::Duration;

use tokio::time::Instant;

/// What is known of the other end's life.
#[derive(Debug)]
pub(super) struct Silence {
    /// The latest of: something was read, somebody began to wait.
    since: Instant,
    /// A ping is out since then.
    pinged: Option<Instant>,
    /// Something was read in this poll.
    was_heard: bool,
    /// Requests waited at the end of the last poll.
    was_awaited: bool,
}

/// What to do about silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listening {
    /// Nobody waits.
    Quiet,
    /// Look again then.
    Until(Instant),
    /// Ping, and look again then.
    Ping(Instant),
    /// The ping was not answered.
    Dead,
}

impl Silence {
    /// Of a connection that has just come up.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, pinged: None, was_heard: false, was_awaited: false }
    }

    /// Something was read.
    pub(super) fn heard(&mut self) {
        self.was_heard = true;
    }

    /// `patience` is how long silence is borne before a ping (`None`: for ever), `answer_within` how long
    /// after it.
    pub(super) fn look(
        &mut self,
        now: Instant,
        is_awaited: bool,
        patience: Option<Duration>,
        answer_within: Duration,
    ) -> Listening {
        if self.was_heard || (is_awaited && !self.was_awaited) {
            self.since = now;
            self.pinged = None;
        }
        self.was_heard = false;
        self.was_awaited = is_awaited;
        let Some(patience) = patience else { return Listening::Quiet };
        match self.pinged {
            Some(pinged) if now >= pinged + answer_within => Listening::Dead,
            Some(pinged) => Listening::Until(pinged + answer_within),
            None if now >= self.since + patience => {
                self.pinged = Some(now);
                Listening::Ping(now + answer_within)
            }
            None => Listening::Until(self.since + patience),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(250);

    fn look(silence: &mut Silence, now: Instant) -> Listening {
        silence.look(now, true, Some(PATIENCE), PATIENCE)
    }

    #[test]
    fn silence_is_pinged_then_given_up() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        assert_eq!(look(&mut silence, start), Listening::Until(start + PATIENCE));
        assert_eq!(look(&mut silence, start + PATIENCE), Listening::Ping(start + 2 * PATIENCE));
        assert_eq!(look(&mut silence, start + PATIENCE), Listening::Until(start + 2 * PATIENCE));
        assert_eq!(look(&mut silence, start + 2 * PATIENCE), Listening::Dead);
    }

    #[test]
    fn any_sign_of_life_begins_it_anew() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        look(&mut silence, start);
        look(&mut silence, start + PATIENCE);
        silence.heard();
        let heard = start + 2 * PATIENCE;
        assert_eq!(look(&mut silence, heard), Listening::Until(heard + PATIENCE));
    }

    /// A subscription may be silent for long; a request that comes then is waited for from then on.
    #[test]
    fn silence_counts_from_when_somebody_waits() {
        let (start, long) = (Instant::now(), Duration::from_secs(10));
        let mut silence = Silence::new(start);
        assert_eq!(silence.look(start, false, Some(long), PATIENCE), Listening::Until(start + long));
        let asked = start + Duration::from_secs(9);
        assert_eq!(look(&mut silence, asked), Listening::Until(asked + PATIENCE));
        assert_eq!(silence.look(asked, false, None, PATIENCE), Listening::Quiet);
    }
}
