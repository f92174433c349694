/*
 * shout refuses messages that are all capitals: more than 20 letters, none of
 * them small. It reads the text, not the normalised text, which has no
 * capitals left. Letters are those of Latin, Greek and Cyrillic; other scripts
 * have no case and do not count.
 */
#include "parley.h"

enum {
	SHORT = 20, /* letters that may be capitals: "OK, NASA and UNESCO" is no shouting */
	CODE_SHOUT = 1,
};

enum kind { OTHER, SMALL, CAPITAL };

static int in(uint32_t c, uint32_t from, uint32_t to) { return from <= c && c <= to; }

/* kind_of classifies one code point below U+0800. */
static enum kind kind_of(uint32_t c)
{
	if (in(c, 'A', 'Z') || (in(c, 0xc0, 0xde) && c != 0xd7) || in(c, 0x391, 0x3ab) || in(c, 0x400, 0x42f))
		return CAPITAL;
	if (in(c, 'a', 'z') || (in(c, 0xdf, 0xff) && c != 0xf7) || in(c, 0x3ac, 0x3ce) || in(c, 0x430, 0x45f))
		return SMALL;
	return OTHER;
}

uint64_t parley_judge(const struct parley_message *m)
{
	const uint8_t *p = m->field[PARLEY_TEXT].at, *end = p + m->field[PARLEY_TEXT].len;
	uint32_t capitals = 0;
	while (p < end) {
		uint32_t c = *p++;
		if (c >= 0xc0) { /* the host sends valid UTF-8; longer sequences than two bytes hold no letter we know */
			c = c < 0xe0 && p < end ? (c & 0x1f) << 6 | (*p & 0x3f) : 0xffff;
			while (p < end && (*p & 0xc0) == 0x80)
				p++;
		}
		switch (kind_of(c)) {
		case SMALL:
			return parley_allow();
		case CAPITAL:
			capitals++;
			break;
		case OTHER:
			break;
		}
	}
	if (capitals <= SHORT)
		return parley_allow();
	return parley_deny(CODE_SHOUT, "Please do not shout: write it without all those capitals.");
}
