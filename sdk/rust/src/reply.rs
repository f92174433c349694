use crate::{Spans, MAX_REASON, MAX_SCORE, MAX_SPANS};

/// What a judge may say of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Let it pass.
    Allow = 0,
    /// Let it pass and mark it for moderators.
    Flag = 1,
    /// Let it pass with the spans masked.
    Redact = 2,
    /// Keep it until a moderator has looked.
    Hold = 3,
    /// Refuse it.
    Deny = 4,
    /// The judge could not judge; counts as a failure.
    Error = 255,
}

/// A judge's answer. `code` is the plugin's own number for the rule that fired,
/// which people see as `rule_CODE`; `reason` is one sentence for the author of
/// the message, text or bytes.
pub struct Reply<'a> {
    verdict: Verdict,
    code: u16,
    score: u16,
    reason: &'a [u8],
    spans: Option<&'a mut Spans>,
}

impl<'a> Reply<'a> {
    fn plain(verdict: Verdict, code: u16, reason: &'a [u8]) -> Reply<'a> {
        Reply { verdict, code, score: MAX_SCORE, reason, spans: None }
    }

    /// Any verdict: for plugins whose configuration says which. Without spans
    /// [`Verdict::Redact`] is [`Verdict::Allow`]; with any other verdict they
    /// do not matter.
    pub fn new<R: AsRef<[u8]> + ?Sized>(verdict: Verdict, code: u16, reason: &'a R, spans: &'a mut Spans) -> Reply<'a> {
        match verdict {
            Verdict::Redact => Reply::redact(code, reason, spans),
            _ => Reply::plain(verdict, code, reason.as_ref()),
        }
    }

    /// Lets the message pass.
    pub fn allow() -> Reply<'a> {
        Reply::plain(Verdict::Allow, 0, &[])
    }

    /// Lets the message pass and marks it for moderators.
    pub fn flag<R: AsRef<[u8]> + ?Sized>(code: u16, reason: &'a R) -> Reply<'a> {
        Reply::plain(Verdict::Flag, code, reason.as_ref())
    }

    /// Lets the message pass with the spans masked. Without spans it is
    /// [`Reply::allow`].
    pub fn redact<R: AsRef<[u8]> + ?Sized>(code: u16, reason: &'a R, spans: &'a mut Spans) -> Reply<'a> {
        Reply { spans: Some(spans), ..Reply::plain(Verdict::Redact, code, reason.as_ref()) }
    }

    /// Keeps the message back until a moderator has looked at it.
    pub fn hold<R: AsRef<[u8]> + ?Sized>(code: u16, reason: &'a R) -> Reply<'a> {
        Reply::plain(Verdict::Hold, code, reason.as_ref())
    }

    /// Refuses the message.
    pub fn deny<R: AsRef<[u8]> + ?Sized>(code: u16, reason: &'a R) -> Reply<'a> {
        Reply::plain(Verdict::Deny, code, reason.as_ref())
    }

    /// Says that the judge could not judge, which counts as a failure.
    pub fn error() -> Reply<'a> {
        Reply::plain(Verdict::Error, 0, &[])
    }

    /// Says how sure the judge is, 0 to 1000; 1000 if this is not called.
    pub fn score(mut self, score: u16) -> Reply<'a> {
        self.score = score.min(MAX_SCORE);
        self
    }

    /// Writes the result and returns the verdict and how many bytes it has.
    pub(crate) fn encode(self, out: &mut [u8; RESULT_SIZE]) -> (Verdict, usize) {
        let spans = match self.spans {
            Some(spans) => spans.tidied(),
            None => &[],
        };
        match self.verdict {
            Verdict::Error => return (Verdict::Error, 0),
            Verdict::Allow => return (Verdict::Allow, 0),
            Verdict::Redact if spans.is_empty() => return (Verdict::Allow, 0),
            _ => {}
        }
        let reason = copy_reason(self.reason, &mut out[HEADER_SIZE..]);
        let header = [self.code, self.score, reason as u16, spans.len() as u16];
        for (to, v) in out.chunks_exact_mut(2).zip(header) {
            to.copy_from_slice(&v.to_le_bytes());
        }
        let body = &mut out[HEADER_SIZE + reason..];
        for (to, s) in body.chunks_exact_mut(SPAN_SIZE).zip(spans) {
            to[..4].copy_from_slice(&(s.field as u32).to_le_bytes());
            to[4..8].copy_from_slice(&s.start.to_le_bytes());
            to[8..].copy_from_slice(&(s.end - s.start).to_le_bytes());
        }
        (self.verdict, HEADER_SIZE + reason + spans.len() * SPAN_SIZE)
    }
}

const HEADER_SIZE: usize = 8;
const SPAN_SIZE: usize = 12;
/// The size of the largest result.
pub(crate) const RESULT_SIZE: usize = HEADER_SIZE + MAX_REASON + MAX_SPANS * SPAN_SIZE;

/// Copies what fits of a reason, cut between characters; bytes that are no
/// UTF-8 become '?'. Returns its length.
fn copy_reason(mut reason: &[u8], out: &mut [u8]) -> usize {
    let mut n = 0;
    loop {
        let (whole, bad) = match core::str::from_utf8(reason) {
            Ok(s) => (s, None),
            Err(e) => {
                let (good, rest) = reason.split_at(e.valid_up_to());
                let bad = e.error_len().unwrap_or(rest.len());
                // valid_up_to says so
                (core::str::from_utf8(good).unwrap_or(""), Some(&rest[bad..]))
            }
        };
        let mut end = whole.len().min(MAX_REASON - n);
        while !whole.is_char_boundary(end) {
            end -= 1;
        }
        out[n..n + end].copy_from_slice(&whole.as_bytes()[..end]);
        n += end;
        match bad {
            Some(rest) if end == whole.len() && n < MAX_REASON => {
                out[n] = b'?';
                n += 1;
                reason = rest;
            }
            _ => return n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let mut out = [0; 300];
        for (give, want) in [
            (b"abc".to_vec(), "abc".to_string()),
            ("é".repeat(200).into_bytes(), "é".repeat(128)),
            (["x", &"é".repeat(200)].concat().into_bytes(), ["x", &"é".repeat(127)].concat()),
            (b"a\xffb\xe4\xb8".to_vec(), "a?b?".to_string()),
            (vec![0xff; 300], "?".repeat(256)),
        ] {
            let n = copy_reason(&give, &mut out);
            assert_eq!(std::str::from_utf8(&out[..n]), Ok(want.as_str()));
        }
    }
}
