//! Where messages begin and end in the bytes of an answer.

/// Follows the five-byte prefixes (a flag and a length) through a stream of bytes.
#[derive(Debug, Default)]
pub struct Frames {
    prefix: [u8; 5],
    /// How much of the prefix was seen.
    seen: usize,
    /// What is left of the message after its prefix.
    left: usize,
}

impl Frames {
    /// Whether the bytes so far end with a whole message.
    pub fn between_messages(&self) -> bool {
        self.seen == 0 && self.left == 0
    }

    /// Passes over the bytes, or only over those that complete the message; says how many.
    pub fn pass(&mut self, bytes: &[u8], rest_of_message: bool) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if rest_of_message && self.between_messages() {
                break;
            }
            if self.left > 0 {
                let step = self.left.min(bytes.len() - at);
                self.left -= step;
                at += step;
                continue;
            }
            self.prefix[self.seen] = bytes[at];
            self.seen += 1;
            at += 1;
            if let (5, [_, length @ ..]) = (self.seen, self.prefix) {
                self.seen = 0;
                self.left = u32::from_be_bytes(length) as usize;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let message = "\0\0\0\0\x0bhello world";
        let stream = ["\0\0\0\0\0", message, message].concat();
        let ends = [0, 5, 5 + message.len(), stream.len()];

        for size in 1..=stream.len() {
            let (mut frames, mut at) = (Frames::default(), 0);
            for chunk in stream.as_bytes().chunks(size) {
                assert_eq!(frames.between_messages(), ends.contains(&at), "{size} {at}");
                assert_eq!(frames.pass(chunk, false), chunk.len());
                at += chunk.len();
            }
            assert!(frames.between_messages());
        }
    }
}
