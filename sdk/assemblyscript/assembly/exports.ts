import { Bytes } from "./bytes";
import { Config } from "./config";
import { Message } from "./message";
import { clear, error } from "./reply";

/** Judges one message and returns what one of allow, flag, redact, hold, deny and error does. */
type Judge = (m: Message) => u64;

/** Takes the configuration. */
type Configure = (c: Config) => void;

let judge: Judge | null = null;
let reader: Configure | null = null;

// All that decisions need is made before the host's snapshot.
const message = new Message();
let buffer: usize = 0;

/**
 * Makes a function the module's judge. Call it once, at the top of the file.
 * configure is called once before the first decision, and not at all where the
 * manifest has no "config"; a judge without it takes none.
 */
export function register(decide: Judge, configure: Configure | null = null): void {
  judge = decide;
  reader = configure;
}

// What the host calls. The entry file exports these four:
// export { abi_version, input_buffer, configure, decide } from ".../exports";

export function abi_version(): u32 {
  return 1;
}

export function input_buffer(capacity: u32): usize {
  buffer = heap.alloc(capacity);
  return buffer;
}

export function configure(ptr: usize, length: u32): u32 {
  if (reader === null || ptr != buffer) return 1;
  const config = new Config(new Bytes(ptr, length));
  reader!(config);
  return config.finish();
}

export function decide(ptr: usize, length: u32): u64 {
  clear();
  if (judge === null || ptr != buffer || !message.decode(ptr, length)) return error();
  return judge!(message);
}
