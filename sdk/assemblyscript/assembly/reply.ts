import { Bytes, encode, rune } from "./bytes";

/** What a judge may say of a message. */
export enum Verdict {
  Allow = 0,
  Flag = 1,
  Redact = 2,
  Hold = 3,
  Deny = 4,
  Error = 255,
}

/** The two texts that mask may name. */
export enum Field {
  Text = 0,
  Normalized = 1,
}

const MAX_REASON: i32 = 256;
const MAX_SPANS: i32 = 256;
const MAX_SCORE: i32 = 1000;
const HEADER: i32 = 8;
const SPAN: i32 = 12;

/** Lets the message pass. */
export function allow(): u64 {
  return 0;
}

/** Says that the judge could not judge, which counts as a failure. */
export function error(): u64 {
  return Verdict.Error;
}

/** Lets the message pass and marks it for moderators. */
export function flag(code: i32, reason: string, score: i32 = MAX_SCORE): u64 {
  return answer(Verdict.Flag, code, reason, score);
}

/** Lets the message pass with what mask was told masked; without any it is allow. */
export function redact(code: i32, reason: string, score: i32 = MAX_SCORE): u64 {
  return answer(Verdict.Redact, code, reason, score);
}

/** Keeps the message back until a moderator has looked at it. */
export function hold(code: i32, reason: string, score: i32 = MAX_SCORE): u64 {
  return answer(Verdict.Hold, code, reason, score);
}

/** Refuses the message. */
export function deny(code: i32, reason: string, score: i32 = MAX_SCORE): u64 {
  return answer(Verdict.Deny, code, reason, score);
}

const out: usize = memory.data(3336); // HEADER + MAX_REASON + MAX_SPANS * SPAN

/**
 * Any verdict in full. code is the plugin's own number for the rule that fired,
 * score says how sure it is, 0 to 1000. Of the reason, what exceeds 256 bytes
 * is cut off between characters, and bytes that are no UTF-8 become "?".
 */
export function answer(verdict: Verdict, code: i32, reason: string, score: i32 = MAX_SCORE): u64 {
  return answerBytes(verdict, code, utf8(reason), score);
}

/** The same with a reason in UTF-8, such as one from the configuration or a part of the message. */
export function answerBytes(verdict: Verdict, code: i32, reason: Bytes, score: i32 = MAX_SCORE): u64 {
  let spans = 0;
  switch (verdict) {
    case Verdict.Flag:
    case Verdict.Hold:
    case Verdict.Deny:
      break;
    case Verdict.Redact:
      tidy(false);
      spans = count;
      if (spans) break;
    case Verdict.Allow:
      return 0;
    default:
      return Verdict.Error;
  }
  const n = copyReason(reason);
  store<u16>(out, <u16>code);
  store<u16>(out, <u16>max(0, min(score, MAX_SCORE)), 2);
  store<u16>(out, <u16>n, 4);
  store<u16>(out, <u16>spans, 6);
  let to = out + <usize>(HEADER + n);
  for (let i = 0; i < spans; i++) {
    const s = span(i);
    store<u32>(to, load<u32>(s));
    store<u32>(to, load<u32>(s, 4), 4);
    store<u32>(to, load<u32>(s, 8) - load<u32>(s, 4), 8);
    to += SPAN;
  }
  return <u64>verdict | (<u64>(to - out) << 8) | (<u64>out << 32);
}

function copyReason(reason: Bytes): i32 {
  const to = out + HEADER;
  let n = 0;
  for (let i = 0; i < reason.length;) {
    const size = rune(reason.ptr + <usize>i, reason.length - i);
    const whole = max(size, 1);
    if (n + whole > MAX_REASON) break;
    for (let k = 0; k < whole; k++) {
      store<u8>(to + <usize>(n + k), size ? reason.at(i + k) : 63);
    }
    n += whole;
    i += whole;
  }
  return n;
}

const encoded: usize = memory.data(264);
const encodedReason = new Bytes(encoded, 0);

/** The UTF-8 of as much of a text as a reason may have. */
function utf8(text: string): Bytes {
  let n = 0;
  for (let i = 0; i < text.length && n < MAX_REASON + 4; i++) {
    const c = <u32>text.codePointAt(i);
    if (c >= 0x10000) i++;
    n += encode(c, encoded + <usize>n);
  }
  encodedReason.length = n;
  return encodedReason;
}

// Spans: {field, start, end}, three u32 each.
const spans: usize = memory.data(3072);
let count: i32 = 0;

@inline
function span(i: i32): usize {
  return spans + <usize>(i * SPAN);
}

/** Whether there is anything to mask. */
export function masked(): bool {
  return count > 0;
}

/**
 * Adds the bytes from start up to end of a text, both on UTF-8 boundaries, to
 * what redact masks. Spans may come in any order and overlap; of more than 256,
 * neighbours are joined: rather a few characters too many masked than one too
 * few.
 */
export function mask(field: Field, start: i32, end: i32): void {
  if (start < 0 || start >= end) return;
  if (count == MAX_SPANS) tidy(false);
  if (count == MAX_SPANS) tidy(true);
  const s = span(count++);
  store<u32>(s, field);
  store<u32>(s, start, 4);
  store<u32>(s, end, 8);
}

/** Forgets what mask was told. */
export function clear(): void {
  count = 0;
}

@inline
function key(i: i32): u64 {
  return (<u64>load<u32>(span(i)) << 32) | load<u32>(span(i), 4);
}

/** Sorts spans and joins those that touch; with squeeze, every second one to its neighbour as well. */
function tidy(squeeze: bool): void {
  let gap = 0;
  for (let i = 1; i < count; i++) {
    if (key(i) < key(i - 1)) gap = 121;
  }
  for (; gap > 0; gap /= 3) { // shell sort, where they are not in order anyway
    for (let i = gap; i < count; i++) {
      const k = key(i);
      const end = load<u32>(span(i), 8);
      let at = i;
      for (; at >= gap && k < key(at - gap); at -= gap) memory.copy(span(at), span(at - gap), SPAN);
      store<u32>(span(at), <u32>(k >> 32));
      store<u32>(span(at), <u32>k, 4);
      store<u32>(span(at), end, 8);
    }
  }
  let n = 0;
  for (let i = 0; i < count; i++) {
    const s = span(i);
    if (n > 0) {
      const p = span(n - 1);
      if (load<u32>(p) == load<u32>(s) && (load<u32>(s, 4) <= load<u32>(p, 8) || (squeeze && (i & 1)))) {
        store<u32>(p, max(load<u32>(p, 8), load<u32>(s, 8)), 8);
        continue;
      }
    }
    memory.copy(span(n++), s, SPAN);
  }
  count = n;
}
