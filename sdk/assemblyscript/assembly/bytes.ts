/** A run of bytes in memory, mostly UTF-8. It is read in place, not copied. */
export class Bytes {
  constructor(
    /** Address of the first byte. */
    public ptr: usize = 0,
    public length: i32 = 0,
  ) {}

  /** The byte at i, which must be below length. */
  @inline
  at(i: i32): u8 {
    return load<u8>(this.ptr + <usize>i);
  }

  /** Makes this the bytes from start up to end of that one. */
  set(ptr: usize, length: i32): void {
    this.ptr = ptr;
    this.length = length;
  }

  /** Whether the bytes are those of an ASCII text. */
  equals(text: string): bool {
    if (this.length != text.length) return false;
    for (let i = 0; i < this.length; i++) {
      if (this.at(i) != text.charCodeAt(i)) return false;
    }
    return true;
  }
}

/** The length of the UTF-8 sequence that begins at ptr, 0 if none does. */
export function rune(ptr: usize, length: i32): i32 {
  if (length <= 0) return 0;
  const first: u32 = load<u8>(ptr);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const n = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (n > length) return 0;
  let c = first & (0x7f >> n);
  for (let i = 1; i < n; i++) {
    const next: u32 = load<u8>(ptr + <usize>i);
    if ((next & 0xc0) != 0x80) return 0;
    c = (c << 6) | (next & 0x3f);
  }
  const least: u32 = n == 2 ? 0x80 : n == 3 ? 0x800 : 0x10000;
  return c < least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

/** Writes one code point as UTF-8 and returns how many bytes it has. */
export function encode(c: u32, to: usize): i32 {
  if (c < 0x80) {
    store<u8>(to, <u8>c);
    return 1;
  }
  const n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (let i = n - 1; i > 0; i--) {
    store<u8>(to + <usize>i, <u8>(0x80 | (c & 0x3f)));
    c >>= 6;
  }
  store<u8>(to, <u8>((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | c));
  return n;
}
