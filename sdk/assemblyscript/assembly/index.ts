// Write a Parley moderation plugin in AssemblyScript. ABI version 1, specified
// in docs/plugin-abi.md; README.md beside this folder is the reference.
//
//     import { Message, allow, deny, register } from "parley/assembly";
//     export { abi_version, input_buffer, configure, decide } from "parley/assembly/exports";
//
//     register((m: Message): u64 => {
//       for (let i = 0; i < m.text.length; i++) {
//         if (m.text.at(i) == 35) return deny(1, "No hash tags in this room, please.");
//       }
//       return allow();
//     });
//
// The host puts memory back after each decision, so what a judge stores is
// gone by the next message; what it stores while it is configured stays.

export { Bytes } from "./bytes";
export { Config } from "./config";
export { Message } from "./message";
export { Field, Verdict, allow, answer, answerBytes, deny, error, flag, hold, mask, masked, redact } from "./reply";
export { register } from "./exports";
