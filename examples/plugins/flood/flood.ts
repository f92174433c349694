// flood keeps a room readable: it judges by how much somebody writes and how
// loud, not by what. The rate and the repeats are signals the host counts; the
// rest it counts itself in the text. README.md says what it catches and how to
// configure it.

import { Bytes, Config, Message, Verdict, allow, answer, answerBytes, register } from "../../../sdk/assemblyscript/assembly";
export { abi_version, input_buffer, configure, decide } from "../../../sdk/assemblyscript/assembly/exports";

// Codes of the rules, which people see as "rule_CODE".
const RATE: i32 = 1;
const REPEATS: i32 = 2;
const CAPITALS: i32 = 3;
const MENTIONS: i32 = 4;
const RUN: i32 = 5;
const LINES: i32 = 6;

const MIN_LETTERS: i32 = 16; // fewer may be all capitals: "OK, NASA and UNESCO"
const MIN_REPEATED: i32 = 4; // bytes; shorter texts may be repeated: "ok", "+1", "gg"
const MAX_ROLES: i32 = 16;

// The configuration; 0 switches a rule off.
let verdict: Verdict = Verdict.Deny;
let rate: u32 = 30;
let repeats: u32 = 3;
let capitals: i32 = 80;
let mentions: i32 = 5;
let run: i32 = 24;
let lines: i32 = 30;
const trusted = memory.data(512); // MAX_ROLES of 32 bytes
const trustedLengths = new StaticArray<i32>(MAX_ROLES);
let trustedCount: i32 = 0;
const ownReason = new Bytes(memory.data(256), 0);

const MODES: StaticArray<string> = ["deny", "hold", "flag"];
const VERDICTS: StaticArray<Verdict> = [Verdict.Deny, Verdict.Hold, Verdict.Flag];

const REASONS: StaticArray<string> = [
  "",
  "That is more than this room can follow; wait a little.",
  "You have written that already.",
  "Please do not shout: write it without all those capitals.",
  "That calls too many people at once.",
  "Please do not fill the room with one character.",
  "Please write fewer lines; a longer text belongs in a file.",
];

function configured(c: Config): void {
  while (c.key()) {
    if (c.is("mode")) verdict = VERDICTS[c.choice(MODES)];
    else if (c.is("rate")) rate = c.number(0, 10000);
    else if (c.is("repeats")) repeats = c.number(0, 8);
    else if (c.is("capitals")) capitals = c.number(0, 99);
    else if (c.is("mentions")) mentions = c.number(0, 1000);
    else if (c.is("run")) run = c.number(0, 10000);
    else if (c.is("lines")) lines = c.number(0, 10000);
    else if (c.is("reason")) ownReason.length = c.text(ownReason.ptr, 256);
    else if (c.is("trusted_roles")) {
      for (c.list(); c.item();) {
        if (trustedCount == MAX_ROLES) {
          c.refuse();
          continue;
        }
        trustedLengths[trustedCount] = c.text(trusted + <usize>(32 * trustedCount), 32);
        trustedCount++;
      }
    } else c.refuse();
  }
}

/** Whether the author has one of the roles that may do as they like. */
function isTrusted(m: Message): bool {
  let start = 0;
  for (let i = 0; i <= m.roles.length && trustedCount; i++) {
    if (i < m.roles.length && m.roles.at(i) != 10) continue;
    for (let k = 0; k < trustedCount; k++) {
      if (trustedLengths[k] == i - start && i > start
        && !memory.compare(m.roles.ptr + <usize>start, trusted + <usize>(32 * k), i - start)) return true;
    }
    start = i + 1;
  }
  return false;
}

/** 1 for a capital of the Latin, Greek or Cyrillic alphabet, -1 for a small letter, 0 for all else. */
function letterCase(c: u32): i32 {
  if (c < 0x80) {
    const low = c | 0x20;
    return low < 0x61 || low > 0x7a ? 0 : c == low ? -1 : 1;
  }
  if (c < 0xc0 || c == 0xd7 || c == 0xf7 || c > 0x45f) return 0;
  if (c < 0xdf) return 1;
  if (c < 0x100) return -1;
  if (c < 0x180) {
    const odd = (c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e); // where capitals have odd numbers
    return ((c & 1) == 1) == odd ? 1 : -1;
  }
  if (c >= 0x386 && c <= 0x3ab) return c == 0x387 || c == 0x390 ? 0 : 1;
  if (c >= 0x3ac && c <= 0x3ce) return -1;
  if (c >= 0x400) return c < 0x430 ? 1 : -1;
  return 0;
}

/** Whether a byte may be part of a name before or after an @. */
@inline
function inName(c: u32): bool {
  const low = c | 0x20;
  return (low >= 0x61 && low <= 0x7a) || (c >= 0x30 && c <= 0x39) || c == 0x5f || c >= 0x80;
}

// What a byte counts for. Rows of some characters are drawn for looks: "-----".
const CAPITAL: u8 = 1;
const SMALL: u8 = 2;
const DRAWN: u8 = 4;
const SPECIAL: u8 = 8; // mentions, line breaks and all beyond ASCII
const kinds = memory.data(256);
for (let c: u32 = 0; c < 256; c++) store<u8>(kinds + c, kindOf(c));

function kindOf(c: u32): u8 {
  if (c >= 0x80 || c == 0x40 || c == 0x0a) return SPECIAL;
  const letter = letterCase(c);
  if (letter) return letter > 0 ? CAPITAL : SMALL;
  return " -=_*#~.+".includes(String.fromCharCode(c)) ? DRAWN : 0;
}

// What has been counted of a text beside plain ASCII.
let large: i32 = 0;
let small: i32 = 0;
let called: i32 = 0;
let rows: i32 = 1;
let longest: i32 = 0; // row of one character
let wide: u32 = 0; // the last character beyond ASCII,
let wideEnd: usize = 0; // where it ended
let wideRow: i32 = 0; // and how many of it there were

/** Counts the character at p, of a text up to end, that is SPECIAL, and returns where the next begins. */
function special(start: usize, p: usize, end: usize): usize {
  let c: u32 = load<u8>(p);
  let next = p + 1;
  if (c == 0x0a) rows++;
  else if (c == 0x40) {
    if ((p == start || !inName(load<u8>(p - 1))) && next < end && inName(load<u8>(next))) called++;
  } else {
    const more = c < 0xc0 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3; // the host sends valid UTF-8
    c &= 0x3f >> more;
    for (let k = 0; k < more && next < end; k++) c = (c << 6) | (load<u8>(next++) & 0x3f);
    const letter = letterCase(c);
    if (letter > 0) large++;
    else if (letter < 0) small++;
    wideRow = c == wide && wideEnd == p ? wideRow + 1 : 1;
    wide = c;
    wideEnd = next;
    longest = max(longest, wideRow);
  }
  return next;
}

/** Counts a text. Plain ASCII goes by a table, for the host charges every step. */
function count(start: usize, end: usize): void {
  let capital = 0, letters = 0, row = 0, most = 0;
  let last: u8 = 0;
  for (let p = start; p < end;) {
    const c = load<u8>(p);
    const kind = load<u8>(kinds + c);
    if (kind & SPECIAL) {
      p = special(start, p, end);
      last = 0;
      continue;
    }
    capital += kind & CAPITAL;
    letters += i32((kind & (CAPITAL | SMALL)) != 0);
    row = i32(c == last) * row + i32(kind != DRAWN);
    most = max(most, row);
    last = c;
    p++;
  }
  large += capital;
  small += letters - capital;
  longest = max(longest, most);
}

/** The rule that a text breaks, 0 if none. */
function loud(text: Bytes): i32 {
  large = small = called = longest = 0; // the host's self-test has been counted too
  rows = 1;
  count(text.ptr, text.ptr + <usize>text.length);
  if (run && longest > run) return RUN;
  if (mentions && called > mentions) return MENTIONS;
  if (lines && rows > lines) return LINES;
  if (capitals && large + small >= MIN_LETTERS && 100 * large > capitals * (large + small)) return CAPITALS;
  return 0;
}

function judge(m: Message): u64 {
  if (isTrusted(m)) return allow();
  let code = 0;
  if (rate && m.recentPerMinute >= rate) code = RATE;
  else if (repeats && m.repeats >= repeats && m.text.length >= MIN_REPEATED) code = REPEATS;
  else code = loud(m.text);
  if (!code) return allow();
  if (ownReason.length) return answerBytes(verdict, code, ownReason);
  return answer(verdict, code, REASONS[code]);
}

register(judge, configured);
