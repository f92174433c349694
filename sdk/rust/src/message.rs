use crate::VERSION;

/// One message to judge. Its slices point into the input; a field the host did
/// not send is empty.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct Message<'a> {
    /// Unix time in milliseconds at which the server accepted it.
    pub time_ms: i64,
    /// What was written: UTF-8 in Normalization Form C.
    pub text: &'a [u8],
    /// The text for matching: lower case, look-alikes and invisible characters
    /// folded away.
    pub normalized: &'a [u8],
    /// Who wrote it.
    pub user: &'a [u8],
    /// Where.
    pub room: &'a [u8],
    /// Global and room roles, sorted, `\n` between them; see [`Message::has_role`].
    pub roles: &'a [u8],
    /// `message`, `edit`, `nick` or `topic`; later hosts may have more.
    pub kind: &'a [u8],
    /// What the host counted.
    pub signals: Signals,
}

/// What the host knows of the author.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct Signals {
    /// Messages of the author in this room in the last minute.
    pub recent_per_minute: u32,
    /// How many of the author's last 8 had the same text.
    pub repeats: u32,
    /// 0 for guests and where it is not known.
    pub account_age_hours: u32,
}

impl<'a> Message<'a> {
    /// Whether the author has a role, such as `moderator`.
    pub fn has_role(&self, role: &str) -> bool {
        !role.is_empty() && self.roles.split(|c| *c == b'\n').any(|r| r == role.as_bytes())
    }

    /// Reads an input; `None` if it is malformed.
    pub fn decode(input: &'a [u8]) -> Option<Message<'a>> {
        if word(input, 0)? != VERSION {
            return None;
        }
        let (low, high) = (word(input, 8)?, word(input, 12)?);
        let count = word(input, 4)? as usize;
        if count > (input.len() - 16) / 8 {
            return None;
        }
        let mut fields: [&[u8]; 7] = [&[]; 7];
        // Fields of later hosts are passed over.
        for (f, field) in fields.iter_mut().enumerate().take(count) {
            let start = word(input, 16 + 8 * f)? as usize;
            let size = word(input, 20 + 8 * f)? as usize;
            *field = input.get(start..)?.get(..size)?;
        }
        let [text, normalized, user, room, roles, kind, signals] = fields;
        let signal = |i| if signals.len() < 12 { 0 } else { word(signals, i).unwrap_or(0) };
        Some(Message {
            time_ms: (u64::from(high) << 32 | u64::from(low)) as i64,
            text,
            normalized,
            user,
            room,
            roles,
            kind,
            signals: Signals { recent_per_minute: signal(0), repeats: signal(4), account_age_hours: signal(8) },
        })
    }
}

fn word(b: &[u8], at: usize) -> Option<u32> {
    let b = b.get(at..)?.get(..4)?;
    Some(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        let m = Message { roles: b"admin\nowner", ..Message::default() };
        assert!(m.has_role("admin") && m.has_role("owner"));
        assert!(!m.has_role("own") && !m.has_role("") && !Message::default().has_role(""));
    }

    #[test]
    fn malformed() {
        for n in 0..100 {
            assert_eq!(Message::decode(&[0xff; 100][..n]), None);
        }
        let mut one = [0u8; 24];
        one[0] = 1;
        one[4] = 1;
        assert!(Message::decode(&one).is_some());
        one[20] = 25;
        assert_eq!(Message::decode(&one), None);
    }
}
