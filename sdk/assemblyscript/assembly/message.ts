import { Bytes } from "./bytes";

const FIELDS: i32 = 7;

/** One message to judge. A field the host did not send is empty. */
export class Message {
  /** Unix time in milliseconds at which the server accepted it. */
  timeMS: i64 = 0;
  /** What was written: UTF-8 in Normalization Form C. */
  text: Bytes = new Bytes();
  /** The text for matching: lower case, look-alikes and invisible characters folded away. */
  normalized: Bytes = new Bytes();
  user: Bytes = new Bytes();
  room: Bytes = new Bytes();
  /** Global and room roles, sorted, "\n" between them; see hasRole. */
  roles: Bytes = new Bytes();
  /** "message", "edit", "nick" or "topic"; later hosts may have more. */
  kind: Bytes = new Bytes();
  /** Messages of the author in this room in the last minute. */
  recentPerMinute: u32 = 0;
  /** How many of the author's last 8 had the same text. */
  repeats: u32 = 0;
  /** 0 for guests and where it is not known. */
  accountAgeHours: u32 = 0;

  private signals: Bytes = new Bytes();
  private role: Bytes = new Bytes();

  /** Whether the author has a role, such as "moderator". */
  hasRole(name: string): bool {
    if (!name.length) return false;
    let start = 0;
    for (let i = 0; i <= this.roles.length; i++) {
      if (i < this.roles.length && this.roles.at(i) != 10) continue;
      this.role.set(this.roles.ptr + <usize>start, i - start);
      if (this.role.equals(name)) return true;
      start = i + 1;
    }
    return false;
  }

  /** Reads an input in place; false if it is malformed. */
  decode(ptr: usize, length: u32): bool {
    if (length < 16 || load<u32>(ptr) != 1) return false;
    const count = load<u32>(ptr, 4);
    if (count > (length - 16) / 8) return false;
    this.timeMS = load<i64>(ptr, 8);
    for (let f = 0; f < FIELDS; f++) {
      let at: u32 = 0;
      let size: u32 = 0;
      if (<u32>f < count) { // fields of later hosts are passed over
        at = load<u32>(ptr + <usize>(8 * f), 16);
        size = load<u32>(ptr + <usize>(8 * f), 20);
        if (at > length || size > length - at) return false;
      }
      this.field(f).set(ptr + <usize>at, size);
    }
    const s = this.signals;
    const whole = s.length >= 12;
    this.recentPerMinute = whole ? load<u32>(s.ptr) : 0;
    this.repeats = whole ? load<u32>(s.ptr, 4) : 0;
    this.accountAgeHours = whole ? load<u32>(s.ptr, 8) : 0;
    return true;
  }

  private field(f: i32): Bytes {
    switch (f) {
      case 0: return this.text;
      case 1: return this.normalized;
      case 2: return this.user;
      case 3: return this.room;
      case 4: return this.roles;
      case 5: return this.kind;
      default: return this.signals;
    }
  }
}
