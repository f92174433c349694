// The AssemblyScript SDK's guest for the conformance kit: the text of a message
// says what to answer. plugins/plugintest documents the commands and checks the
// answers.

import { Bytes, Config, Field, Message, Verdict, allow, answerBytes, error, mask, redact, register } from "../assembly";
export { abi_version, input_buffer, configure, decide } from "../assembly/exports";

const mark = new Bytes(memory.data(64), 0);
let number: i32 = 0;
let on: bool = false;
const items = memory.data(128); // 8 of 16 bytes
const itemLengths = new StaticArray<i32>(8);
let itemCount: i32 = 0;
let times: i32 = 0;

// The reason being written.
const line = new Bytes(memory.data(512), 0);

function put(c: u8): void {
  store<u8>(line.ptr + <usize>line.length, c);
  line.length++;
}

function putText(s: string): void {
  for (let i = 0; i < s.length; i++) put(<u8>s.charCodeAt(i));
}

function putBytes(ptr: usize, length: i32): void {
  for (let i = 0; i < length; i++) put(load<u8>(ptr + <usize>i));
}

// What is left of the text, and the word cut off last.
const left = new Bytes();
const word = new Bytes();

function nextWord(): Bytes {
  let n = 0;
  while (n < left.length && left.at(n) != 32) n++;
  word.set(left.ptr, n);
  const skip = min(n + 1, left.length);
  left.set(left.ptr + <usize>skip, left.length - skip);
  return word;
}

/** The number a word begins with; the word goes on behind it and one character more. */
function decimal(w: Bytes): i32 {
  let v = 0;
  let i = 0;
  while (i < w.length && w.at(i) >= 48 && w.at(i) <= 57) v = v * 10 + (w.at(i++) - 48);
  if (i < w.length) i++;
  w.set(w.ptr + <usize>i, w.length - i);
  return v;
}

function nextNumber(): i32 {
  return decimal(nextWord());
}

function tell(code: i32): u64 {
  return answerBytes(Verdict.Flag, code, line, 0);
}

function verdict(v: Verdict): u64 {
  const code = nextNumber();
  const score = nextNumber();
  return answerBytes(v, code, left, score);
}

function redactSpans(): u64 {
  const code = nextNumber();
  const score = nextNumber();
  while (left.length) {
    const w = nextWord();
    const field = w.at(0) == 110 ? Field.Normalized : Field.Text;
    w.set(w.ptr + 1, w.length - 1);
    const start = decimal(w);
    mask(field, start, decimal(w));
  }
  return redact(code, "masked", score);
}

function stripes(): u64 {
  const n = nextNumber();
  const step = nextNumber();
  for (let i = n - 1; i >= 0; i--) mask(Field.Text, i * step, i * step + 1);
  return redact(1, "striped");
}

function read(m: Message): u64 {
  let field = m.text;
  if (left.equals("normalized")) field = m.normalized;
  else if (left.equals("user")) field = m.user;
  else if (left.equals("room")) field = m.room;
  else if (left.equals("roles")) field = m.roles;
  else if (left.equals("kind")) field = m.kind;
  else if (!left.equals("text")) return error();
  return answerBytes(Verdict.Flag, field.length, field, 0);
}

function config(): u64 {
  putBytes(mark.ptr, mark.length);
  put(124);
  putText(number.toString());
  putText(on ? "|on|" : "|off|");
  for (let i = 0; i < itemCount; i++) {
    if (i) put(44);
    putBytes(items + <usize>(16 * i), itemLengths[i]);
  }
  return tell(0);
}

function judge(m: Message): u64 {
  left.set(m.text.ptr, m.text.length);
  const w = nextWord();
  if (w.equals("flag")) return verdict(Verdict.Flag);
  if (w.equals("hold")) return verdict(Verdict.Hold);
  if (w.equals("deny")) return verdict(Verdict.Deny);
  if (w.equals("redact")) return redactSpans();
  if (w.equals("stripes")) return stripes();
  if (w.equals("read")) return read(m);
  if (w.equals("config")) return config();
  if (w.equals("error")) return error();
  if (w.equals("trap")) throw new Error("as it was told");
  if (w.equals("spin")) while (true) times++;
  if (w.equals("quote")) {
    const start = nextNumber();
    const end = nextNumber();
    return answerBytes(Verdict.Flag, 0, new Bytes(m.text.ptr + <usize>start, end - start), 0);
  }
  if (w.equals("count")) {
    putText((++times).toString());
    return tell(0);
  }
  if (w.equals("time")) {
    putText(m.timeMS.toString());
    return tell(0);
  }
  if (w.equals("signals")) {
    putText(m.recentPerMinute.toString());
    put(32);
    putText(m.repeats.toString());
    put(32);
    putText(m.accountAgeHours.toString());
    return tell(0);
  }
  if (w.equals("role")) {
    return tell(i32(m.hasRole(String.UTF8.decodeUnsafe(left.ptr, left.length))));
  }
  return allow();
}

function configured(c: Config): void {
  while (c.key()) {
    if (c.is("mark")) mark.length = c.text(mark.ptr, 64);
    else if (c.is("number")) number = c.number(-1000, 1000);
    else if (c.is("on")) on = c.bool();
    else if (c.is("list")) {
      for (c.list(); c.item();) {
        if (itemCount == 8) {
          c.refuse();
          continue;
        }
        itemLengths[itemCount] = c.text(items + <usize>(16 * itemCount), 16);
        itemCount++;
      }
    } else c.refuse();
  }
}

register(judge, configured);
