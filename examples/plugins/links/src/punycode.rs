//! Punycode (RFC 3492): how a name with other letters than ASCII is written on
//! the wire, `xn--bcher-kva` for `bücher`.

const BASE: u32 = 36;
const MAX: usize = 63; // a label

/// Decodes what follows `xn--` and hands each character to `push`; false if it
/// is malformed, or holds characters that no name has.
#[inline(never)]
pub fn decode(label: &[u8], push: &mut dyn FnMut(u32)) -> bool {
    let mut out = [0u32; MAX];
    let mut n = 0;
    let mut rest = label;
    if let Some(at) = label.iter().rposition(|c| *c == b'-') {
        for c in &label[..at] {
            out[n] = u32::from(*c);
            n += 1;
        }
        rest = &label[at + 1..];
    }
    let (mut c, mut i, mut bias) = (128u32, 0u32, 72u32);
    let mut first = true;
    while !rest.is_empty() {
        let before = i;
        let (mut weight, mut k) = (1u32, BASE);
        loop {
            let digit = match rest.first() {
                Some(d @ b'a'..=b'z') => u32::from(d - b'a'),
                Some(d @ b'0'..=b'9') => u32::from(d - b'0') + 26,
                _ => return false,
            };
            rest = &rest[1..];
            i = match digit.checked_mul(weight).and_then(|d| i.checked_add(d)) {
                Some(i) => i,
                None => return false,
            };
            let t = k.saturating_sub(bias).clamp(1, 26);
            if digit < t {
                break;
            }
            weight = match weight.checked_mul(BASE - t) {
                Some(w) => w,
                None => return false,
            };
            k += BASE;
        }
        if n == MAX {
            return false;
        }
        let size = n as u32 + 1;
        bias = adapt(i - before, size, first);
        first = false;
        c = match c.checked_add(i / size) {
            Some(c) if char::from_u32(c).is_some() => c,
            _ => return false,
        };
        let at = (i % size) as usize;
        out.copy_within(at..n, at + 1);
        out[at] = c;
        n += 1;
        i = at as u32 + 1;
    }
    for c in &out[..n] {
        push(*c);
    }
    n > 0 && !first
}

#[inline(never)]
fn adapt(delta: u32, size: u32, first: bool) -> u32 {
    let mut delta = if first { delta / 700 } else { delta / 2 };
    delta += delta / size;
    let mut k = 0;
    while delta > 455 {
        delta /= BASE - 1;
        k += BASE;
    }
    k + BASE * delta / (delta + 38)
}
