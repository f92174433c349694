// Package plugintest is the conformance kit of the plugin ABI: it holds a guest
// against every rule of docs/plugin-abi.md that a guest or its SDK can break,
// through the host that servers use. An SDK for another language conforms when
// its conformance guest passes Run.
//
// # The guest
//
// A conformance guest answers what the text of the message tells it to. The
// text is words with one space between them; CODE, SCORE, START, END, N and
// STEP are decimal numbers, and REASON is the rest of the text.
//
//	flag CODE SCORE REASON      flag, with exactly these
//	hold CODE SCORE REASON      hold
//	deny CODE SCORE REASON      deny
//	redact CODE SCORE SPAN...   redact with the reason "masked"; SPAN is
//	                            tSTART-END for the text, nSTART-END for the
//	                            normalised text, handed to the SDK in that order
//	stripes N STEP              redact, code 1, of N bytes of the text, at STEP*i
//	                            for i from N-1 down to 0
//	read FIELD                  flag with the field as the reason and its length
//	                            as the code; FIELD is text, normalized, user,
//	                            room, roles or kind
//	quote START END             flag with those bytes of the text as the reason,
//	                            which may begin and end inside a character
//	role NAME                   flag, code 1 if the author has that role, else 0
//	signals                     flag, reason "RECENT REPEATS AGE" in decimal
//	time                        flag, reason the Unix ms in decimal, signed
//	count                       flag, reason how often this command came so far,
//	                            by a variable that begins as 0
//	config                      flag, reason "MARK|NUMBER|on|ITEM,ITEM": the
//	                            configuration; "off" where it is not on
//	error                       say that it cannot judge
//	trap                        panic, abort or whatever ends the program
//	spin                        loop for ever
//	anything else               allow
//
// A reason longer than 256 bytes is cut by the SDK between characters, a score
// above 1000 is taken for 1000, and spans are sorted, joined and kept to 256.
//
// Its configuration is an object with "mark" (a text of at most 64 bytes),
// "number" (a whole number from -1000 to 1000), "on" (true or false) and "list"
// (at most 8 texts of at most 16 bytes), each optional: "|0|off|" is what it
// tells without any. It refuses every other key and value.
//
// The guests of the SDKs here are sdk/c/conformance, sdk/rust/conformance,
// sdk/assemblyscript/conformance and sdk/plugin/conformance.
package plugintest
