import { Bytes, encode, rune } from "./bytes";

const QUOTE: i32 = 0x22;
const BACKSLASH: i32 = 0x5c;

/**
 * A reader of the manifest's "config": one flat JSON object whose values are
 * texts, whole numbers, true or false, and lists of these. It reads forwards
 * and stops for good at the first thing that is not as expected, so its user
 * need not check each step:
 *
 *     while (c.key()) {
 *       if (c.is("most")) most = c.number(1, 100);
 *       else c.refuse(); // an unknown key
 *     }
 *
 * The operator is told 1 + the byte of the config where it stopped.
 */
export class Config {
  private at: i32 = 0;
  private open: bool = true; // nothing read yet of the object or list
  private bad: bool = false;
  private name: Bytes = new Bytes();
  private word: Bytes = new Bytes(memory.data(32), 0);
  private utf8: usize = memory.data(4);

  constructor(private json: Bytes) {
    this.take(0x7b);
  }

  /** Refuses the configuration because of what was read last. */
  refuse(): void {
    this.bad = true;
  }

  /** Whether something was refused or malformed. */
  failed(): bool {
    return this.bad;
  }

  /** Reads the next key; false after the last. */
  key(): bool {
    if (!this.more(0x7d) || !this.take(QUOTE)) return false;
    const first = this.at;
    while (this.at < this.json.length && this.json.at(this.at) != QUOTE && this.json.at(this.at) != BACKSLASH) this.at++;
    this.name.set(this.json.ptr + <usize>first, this.at - first);
    return this.take(QUOTE) && this.take(0x3a);
  }

  /** Whether the key is this one. */
  is(name: string): bool {
    return this.name.equals(name);
  }

  /** Begins a list: for (c.list(); c.item();) reads each value. */
  list(): void {
    this.open = this.take(0x5b);
  }

  /** Whether the list has another value, which is to be read next. */
  item(): bool {
    return !this.bad && this.more(0x5d);
  }

  /** true or false. */
  bool(): bool {
    this.peek();
    const yes = this.starts("true");
    if (!this.bad && (yes || this.starts("false"))) {
      this.at += yes ? 4 : 5;
      return yes;
    }
    this.bad = true;
    return false;
  }

  private starts(word: string): bool {
    if (this.json.length - this.at < word.length) return false;
    for (let i = 0; i < word.length; i++) {
      if (this.json.at(this.at + i) != word.charCodeAt(i)) return false;
    }
    return true;
  }

  /** A whole number from least to most; least if there is none. */
  number(least: i32, most: i32): i32 {
    const negative = this.peek() == 0x2d;
    const first = this.at + i32(negative);
    let i = first;
    let v: i64 = 0;
    while (i < this.json.length && i - first < 11 && this.digit(i)) v = v * 10 + (this.json.at(i++) - 48);
    const n = i - first;
    const next = i < this.json.length ? this.json.at(i) : 0;
    if (negative) v = -v;
    if (this.bad || !n || n > 10 || (n > 1 && this.json.at(first) == 48) || v < least || v > most
      || next == 0x2e || next == 0x65 || next == 0x45) {
      this.bad = true;
      return least;
    }
    this.at = i;
    return <i32>v;
  }

  @inline
  private digit(i: i32): bool {
    return this.json.at(i) >= 48 && this.json.at(i) <= 57;
  }

  /** Which of the words a text is; any other is refused. */
  choice(words: StaticArray<string>): i32 {
    const first = this.at;
    this.word.length = this.text(this.word.ptr, 32);
    for (let i = 0; i < words.length && !this.bad; i++) {
      if (this.word.equals(unchecked(words[i]))) return i;
    }
    this.bad = true;
    this.at = first;
    return 0;
  }

  /** Writes a text of at most size bytes to an address and returns its length. A longer one is refused. */
  text(into: usize, size: i32): i32 {
    const first = this.at;
    let n = 0;
    if (!this.take(QUOTE)) return 0;
    while (this.at < this.json.length && this.json.at(this.at) != QUOTE) {
      const length = this.char();
      if (!length || n + length > size) {
        this.bad = true;
        this.at = first; // the value is at fault, not one of its bytes
        return 0;
      }
      memory.copy(into + <usize>n, this.utf8, length);
      n += length;
    }
    return this.take(QUOTE) ? n : 0;
  }

  /** One character of a text, decoded to this.utf8; its length, 0 where it is malformed. */
  private char(): i32 {
    const p = this.json.ptr + <usize>this.at;
    const n = rune(p, this.json.length - this.at);
    if (!n || load<u8>(p) < 0x20) return 0;
    if (load<u8>(p) != BACKSLASH) {
      memory.copy(this.utf8, p, n);
      this.at += n;
      return n;
    }
    if (this.json.length - this.at < 2) return 0;
    this.at += 2;
    switch (load<u8>(p, 1)) {
      case QUOTE:
      case BACKSLASH:
      case 0x2f: return encode(load<u8>(p, 1), this.utf8);
      case 0x62: return encode(8, this.utf8);
      case 0x66: return encode(12, this.utf8);
      case 0x6e: return encode(10, this.utf8);
      case 0x72: return encode(13, this.utf8);
      case 0x74: return encode(9, this.utf8);
      case 0x75: return this.unicode();
      default: return 0;
    }
  }

  /** The rest of \uXXXX, and its second half where there is one. */
  private unicode(): i32 {
    let c = this.hex4();
    if (c < 0 || (c & 0xfc00) == 0xdc00) return 0;
    if ((c & 0xfc00) == 0xd800) {
      if (!this.starts("\\u")) return 0;
      this.at += 2;
      const low = this.hex4();
      if ((low & ~0x3ff) != 0xdc00) return 0;
      c = 0x10000 + (((c & 0x3ff) << 10) | (low & 0x3ff));
    }
    return encode(c, this.utf8);
  }

  private hex4(): i32 {
    if (this.json.length - this.at < 4) return -1;
    let v: i32 = 0;
    for (let i = 0; i < 4; i++) {
      const h: i32 = this.json.at(this.at++);
      const low = h | 0x20;
      if (h >= 48 && h <= 57) v = (v << 4) | (h - 48);
      else if (low >= 97 && low <= 102) v = (v << 4) | (low - 87);
      else return -1;
    }
    return v;
  }

  /** The next byte that is no white space, 0 at the end. */
  private peek(): i32 {
    while (this.at < this.json.length) {
      const c: i32 = this.json.at(this.at);
      if (c != 0x20 && c != 9 && c != 10 && c != 13) return this.bad ? 0 : c;
      this.at++;
    }
    return 0;
  }

  private take(want: i32): bool {
    if (this.peek() != want) {
      this.bad = true;
      return false;
    }
    this.at++;
    return true;
  }

  /** Whether a value follows in the object or list that ends with close. */
  private more(close: i32): bool {
    const open = this.open;
    this.open = false;
    if (this.peek() == close) {
      this.at++;
      return false;
    }
    return open ? !this.bad : this.take(0x2c);
  }

  /** 0 if all was read and nothing refused, else 1 + the byte where it stopped. */
  finish(): u32 {
    this.peek();
    return this.bad || this.at < this.json.length ? 1 + this.at : 0;
  }
}
