//! Whether an agent is alive: the rule, written once. A frame counts as heard when the agent sent
//! it, by its own clock, never when a buffer let it through.

use std::collections::VecDeque;
use std::time::Duration;

use pasamanos_faults::planted;

/// How long an offset stays in the window, ms. The clocks of two machines drift less than a
/// millisecond in it, and a path that got slower is believed after it.
const WINDOW_MS: i64 = 600_000;

/// What one session's frames say about time.
#[derive(Clone, Debug)]
pub struct Heard {
    boot_id: String,
    /// (receipt, offset), offsets falling: the front is the largest of the window.
    offsets: VecDeque<(i64, i64)>,
    last_heard_ms: i64,
}

impl Heard {
    /// Of a session whose first frame was sent at `agent_ms` and received at `receipt_ms`.
    #[must_use]
    pub fn new(boot_id: String, agent_ms: i64, receipt_ms: i64) -> Self {
        let mut heard = Self { boot_id, offsets: VecDeque::new(), last_heard_ms: i64::MIN };
        heard.frame(agent_ms, receipt_ms);
        heard
    }

    /// Counts a frame; answers the instant at which it counts as heard, in the server's clock:
    /// min(receipt, agent time − offset).
    pub fn frame(&mut self, agent_ms: i64, receipt_ms: i64) -> i64 {
        let offset = agent_ms.saturating_sub(receipt_ms);
        while self.offsets.back().is_some_and(|(_, o)| *o <= offset) {
            self.offsets.pop_back();
        }
        self.offsets.push_back((receipt_ms, offset));
        while self.offsets.front().is_some_and(|(at, _)| receipt_ms - at > WINDOW_MS) {
            self.offsets.pop_front();
        }
        let mut heard = receipt_ms.min(agent_ms.saturating_sub(self.offset_ms()));
        if planted!("server-heard-on-receipt") {
            heard = receipt_ms;
        }
        self.last_heard_ms = self.last_heard_ms.max(heard);
        heard
    }

    /// The largest (agent time − receipt time) of the window: agent's clock minus ours, ms.
    #[must_use]
    pub fn offset_ms(&self) -> i64 {
        self.offsets.front().map_or(0, |(_, offset)| *offset)
    }

    /// How long ago the last frame counts as heard.
    #[must_use]
    pub fn age(&self, now_ms: i64) -> Duration {
        let ms = now_ms.saturating_sub(self.last_heard_ms).max(0);
        Duration::from_millis(ms.unsigned_abs())
    }

    /// Whether the session was heard from within the lease time.
    #[must_use]
    pub fn within(&self, ttl: Duration, now_ms: i64) -> bool {
        self.age(now_ms) < ttl
    }

    /// Which start of the farm PC its clock counts from.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// The agent's clock at an instant of ours.
    #[must_use]
    pub fn agent_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_add(self.offset_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(25);

    #[test]
    fn silence_for_the_lease_time_is_offline_to_the_millisecond() {
        let heard = Heard::new("b".into(), 1_000_000, 50_000);
        assert!(heard.within(TTL, 50_000 + 24_999));
        assert!(!heard.within(TTL, 50_000 + 25_000));
    }

    #[test]
    fn frames_that_sat_in_a_buffer_extend_nothing() {
        let mut heard = Heard::new("b".into(), 1_000_000, 0);
        // Sent at 8 s and 16 s, let through at 60 s.
        assert_eq!(heard.frame(1_008_000, 60_000), 8_000);
        assert_eq!(heard.frame(1_016_000, 60_000), 16_000);
        assert!(!heard.within(TTL, 60_000));
    }

    #[test]
    fn a_faster_path_corrects_the_offset() {
        let mut heard = Heard::new("b".into(), 1_000_000, 400);
        assert_eq!(heard.offset_ms(), 999_600);
        assert_eq!(heard.frame(1_008_000, 8_100), 8_100);
        assert_eq!(heard.offset_ms(), 999_900);
        assert_eq!(heard.agent_ms(9_000), 1_008_900);
    }

    #[test]
    fn a_path_that_got_slower_is_believed_after_the_window() {
        let mut heard = Heard::new("b".into(), 1_000_000, 0);
        for s in 1..=700 {
            heard.frame(1_000_000 + s * 1_000, s * 1_000 + 300);
        }
        assert_eq!(heard.offset_ms(), 999_700);
        assert!(heard.offsets.len() < 1_000);
    }
}
