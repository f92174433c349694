/*
 * parley.h: write a Parley moderation plugin in C. ABI version 1, specified in
 * docs/plugin-abi.md; README.md beside this file is the reference. Freestanding:
 * no libc, no WASI, no allocation. Include it in one source file, which defines
 *
 *     uint64_t parley_judge(const struct parley_message *m);
 *
 * and returns one of parley_allow(), parley_flag(), parley_redact(),
 * parley_hold() and parley_deny(). With a configuration it defines
 * PARLEY_CONFIG(c) { ... } as well. Build:
 *
 *     clang --target=wasm32 -O2 -mbulk-memory -ffreestanding -nostdlib \
 *         -Wl,--no-entry -Wl,--strip-all -o NAME.wasm NAME.c
 *
 * The host puts memory back after each decision, so variables keep nothing
 * from one message to the next; what PARLEY_CONFIG stores stays.
 */
#ifndef PARLEY_H
#define PARLEY_H

#include <stddef.h>
#include <stdint.h>

#define PARLEY_EXPORT(name) __attribute__((export_name(name)))

/*
 * Keeps a function out of its callers: the host charges fuel for a loop's whole
 * body in each round, whether its branches are taken or not.
 */
#define PARLEY_APART __attribute__((noinline, unused))

/*
 * The room for one input, and for the configuration. Define it before the
 * include for more: as many bytes as the manifest's limits.input_bytes or its
 * config have, whichever is larger.
 */
#ifndef PARLEY_MAX_INPUT
#define PARLEY_MAX_INPUT 16384
#endif

enum {
	PARLEY_VERSION = 1,
	PARLEY_MAX_REASON = 256,
	PARLEY_MAX_SPANS = 256,
	PARLEY_MAX_SCORE = 1000,
};

enum { /* verdicts */
	PARLEY_ALLOW = 0,
	PARLEY_FLAG = 1,
	PARLEY_REDACT = 2,
	PARLEY_HOLD = 3,
	PARLEY_DENY = 4,
	PARLEY_ERROR = 255,
};

enum { /* fields; spans may name the first two */
	PARLEY_TEXT,
	PARLEY_NORMALIZED,
	PARLEY_USER,
	PARLEY_ROOM,
	PARLEY_ROLES, /* sorted, '\n' between roles */
	PARLEY_KIND,  /* "message", "edit", "nick" or "topic" */
	PARLEY_SIGNALS,
	PARLEY_FIELDS,
};

struct parley_bytes {
	const uint8_t *at;
	uint32_t len;
};

struct parley_message {
	int64_t time_ms; /* Unix time */
	struct parley_bytes field[PARLEY_FIELDS]; /* empty where the host sent none */
	uint32_t recent_per_minute, repeats, account_age_hours;
};

/* A run of bytes to mask, on UTF-8 boundaries of PARLEY_TEXT or PARLEY_NORMALIZED. */
struct parley_span {
	uint32_t field, start, length;
};

/* What to mask, gathered with parley_mask. It begins as {0}. */
struct parley_spans {
	uint32_t n;
	struct parley_span at[PARLEY_MAX_SPANS];
};

uint64_t parley_judge(const struct parley_message *m);

/* ---- bytes ---- */

static inline int parley_equal(struct parley_bytes b, const char *s)
{
	for (uint32_t i = 0; i < b.len; i++)
		if (!s[i] || b.at[i] != (uint8_t)s[i])
			return 0;
	return !s[b.len];
}

static inline struct parley_bytes parley_string(const char *s)
{
	struct parley_bytes b = {(const uint8_t *)s, 0};
	while (s[b.len])
		b.len++;
	return b;
}

/* Whether the author has a role, such as "moderator". */
static inline int parley_has_role(const struct parley_message *m, const char *role)
{
	struct parley_bytes all = m->field[PARLEY_ROLES], one = {all.at, 0};
	for (uint32_t i = 0; i < all.len; i++) {
		if (all.at[i] != '\n') {
			one.len++;
			continue;
		}
		if (parley_equal(one, role))
			return 1;
		one = (struct parley_bytes){all.at + i + 1, 0};
	}
	return one.len && parley_equal(one, role);
}

/* The length of the UTF-8 sequence b begins with, 0 if it begins with none. */
static inline uint32_t parley_rune(const uint8_t *b, uint32_t len)
{
	uint32_t n, c, least;
	if (!len)
		return 0;
	if (b[0] < 0x80)
		return 1;
	if (b[0] < 0xe0)
		n = 2, c = b[0] & 0x1f, least = 0x80;
	else if (b[0] < 0xf0)
		n = 3, c = b[0] & 0x0f, least = 0x800;
	else
		n = 4, c = b[0] & 0x07, least = 0x10000;
	if (b[0] < 0xc2 || b[0] > 0xf4 || n > len)
		return 0;
	for (uint32_t i = 1; i < n; i++) {
		if ((b[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (b[i] & 0x3f);
	}
	return c < least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

static inline uint32_t parley_get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint8_t *parley_put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	return p + 2;
}

static inline uint8_t *parley_put32(uint8_t *p, uint32_t v)
{
	return parley_put16(parley_put16(p, v), v >> 16);
}

/* ---- spans ---- */

/* Whether a stands before b. */
static inline int parley_before(const struct parley_span *a, const struct parley_span *b)
{
	return a->field < b->field || (a->field == b->field && a->start < b->start);
}

/*
 * Sorts n spans, drops empty ones and joins those that touch or overlap;
 * returns how many are left. With squeeze, every second one is joined to its
 * neighbour as well: rather a few characters too many masked than one too few.
 */
static PARLEY_APART uint32_t parley_tidy(struct parley_span *s, uint32_t n, int squeeze)
{
	uint32_t gap = 0;
	for (uint32_t i = 1; i < n; i++)
		gap = parley_before(&s[i], &s[i - 1]) ? 121 : gap;
	for (; gap; gap /= 3) /* shell sort, where they are not in order anyway */
		for (uint32_t i = gap; i < n; i++) {
			struct parley_span x = s[i];
			uint32_t k = i;
			for (; k >= gap && parley_before(&x, &s[k - gap]); k -= gap)
				s[k] = s[k - gap];
			s[k] = x;
		}
	uint32_t out = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct parley_span *p = out ? &s[out - 1] : 0;
		if (!s[i].length)
			continue;
		if (p && p->field == s[i].field && (s[i].start <= p->start + p->length || (squeeze && i % 2))) {
			uint32_t end = s[i].start + s[i].length;
			if (end > p->start + p->length)
				p->length = end - p->start;
			continue;
		}
		s[out++] = s[i];
	}
	return out;
}

/*
 * Adds the bytes start to end of a field to what is masked. Spans may come in
 * any order and overlap. Where there are more than the ABI has room for,
 * neighbours are joined.
 */
static PARLEY_APART void parley_mask(struct parley_spans *s, uint32_t field, uint32_t start, uint32_t end)
{
	if (start >= end)
		return;
	if (s->n == PARLEY_MAX_SPANS)
		s->n = parley_tidy(s->at, s->n, 0);
	if (s->n == PARLEY_MAX_SPANS)
		s->n = parley_tidy(s->at, s->n, 1);
	s->at[s->n++] = (struct parley_span){field, start, end - start};
}

/* ---- verdicts ---- */

/* The result: header, reason and spans without padding. */
static uint8_t parley_out[8 + PARLEY_MAX_REASON + PARLEY_MAX_SPANS * sizeof(struct parley_span)];

/*
 * Any verdict in full. code is the plugin's own number for the rule that fired,
 * score says how sure it is, 0 to 1000. Of the reason, what exceeds 256 bytes
 * is cut off between characters, and bytes that are no UTF-8 become '?'. Spans
 * go with PARLEY_REDACT alone, which without any is PARLEY_ALLOW; they are
 * sorted in place.
 */
static PARLEY_APART uint64_t parley_answer(uint32_t verdict, uint16_t code, uint32_t score, struct parley_bytes reason,
	struct parley_span *spans, uint32_t nspans)
{
	if (verdict == PARLEY_ERROR || verdict > PARLEY_DENY)
		return PARLEY_ERROR;
	nspans = verdict == PARLEY_REDACT ? parley_tidy(spans, nspans < PARLEY_MAX_SPANS ? nspans : PARLEY_MAX_SPANS, 0) : 0;
	if (verdict == PARLEY_ALLOW || (verdict == PARLEY_REDACT && !nspans))
		return 0;
	uint32_t n = 0;
	uint8_t *p = parley_out + 8;
	for (uint32_t i = 0; i < reason.len;) {
		uint32_t size = parley_rune(reason.at + i, reason.len - i), whole = size ? size : 1;
		if (n + whole > PARLEY_MAX_REASON)
			break;
		for (uint32_t k = 0; k < whole; k++)
			p[n++] = size ? reason.at[i + k] : '?';
		i += whole;
	}
	p = parley_put16(parley_out, code);
	p = parley_put16(p, score < PARLEY_MAX_SCORE ? score : PARLEY_MAX_SCORE);
	p = parley_put16(p, n);
	p = parley_put16(p, nspans) + n;
	for (uint32_t i = 0; i < nspans; i++) {
		p = parley_put32(p, spans[i].field);
		p = parley_put32(p, spans[i].start);
		p = parley_put32(p, spans[i].length);
	}
	return verdict | (uint64_t)(p - parley_out) << 8 | (uint64_t)(uintptr_t)parley_out << 32;
}

/* The verdicts as they are mostly wanted: certain, with a constant reason. */
static inline uint64_t parley_allow(void) { return 0; }
static inline uint64_t parley_error(void) { return PARLEY_ERROR; } /* could not judge; counts as a failure */

static inline uint64_t parley_flag(uint16_t code, const char *reason)
{
	return parley_answer(PARLEY_FLAG, code, PARLEY_MAX_SCORE, parley_string(reason), 0, 0);
}

static inline uint64_t parley_hold(uint16_t code, const char *reason)
{
	return parley_answer(PARLEY_HOLD, code, PARLEY_MAX_SCORE, parley_string(reason), 0, 0);
}

static inline uint64_t parley_deny(uint16_t code, const char *reason)
{
	return parley_answer(PARLEY_DENY, code, PARLEY_MAX_SCORE, parley_string(reason), 0, 0);
}

static inline uint64_t parley_redact(uint16_t code, const char *reason, struct parley_span *spans, uint32_t nspans)
{
	return parley_answer(PARLEY_REDACT, code, PARLEY_MAX_SCORE, parley_string(reason), spans, nspans);
}

/* ---- configuration ---- */

/*
 * A reader of the manifest's "config": one flat JSON object whose values are
 * texts, whole numbers, true or false, and lists of these. It reads forwards
 * and stops for good at the first thing that is not as expected, so a reader
 * need not check each step:
 *
 *     PARLEY_CONFIG(c)
 *     {
 *         while (parley_config_key(c)) {
 *             if (parley_config_is(c, "most"))
 *                 most = (uint32_t)parley_config_number(c, 1, 100);
 *             else
 *                 parley_config_refuse(c); // an unknown key
 *         }
 *     }
 *
 * What configure returns is 1 + the byte of the config where it stopped.
 */
struct parley_config {
	const uint8_t *start, *at, *end;
	struct parley_bytes key;
	int open, failed; /* open: nothing read yet of the object or list */
};

static inline void parley_config_refuse(struct parley_config *c) { c->failed = 1; }

/* The next byte that is no white space, 0 at the end. */
static inline uint8_t parley_config_peek(struct parley_config *c)
{
	while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
		c->at++;
	return c->at < c->end && !c->failed ? *c->at : 0;
}

static inline int parley_config_take(struct parley_config *c, uint8_t want)
{
	if (parley_config_peek(c) != want) {
		c->failed = 1;
		return 0;
	}
	c->at++;
	return 1;
}

/* Whether a value follows in the object or list that ends with close. */
static inline int parley_config_more(struct parley_config *c, uint8_t close)
{
	int open = c->open;
	c->open = 0;
	if (parley_config_peek(c) == close) {
		c->at++;
		return 0;
	}
	return open ? !c->failed : parley_config_take(c, ',');
}

/* The next key, as it is written; 0 after the last. */
static PARLEY_APART int parley_config_key(struct parley_config *c)
{
	if (!parley_config_more(c, '}') || !parley_config_take(c, '"'))
		return 0;
	c->key.at = c->at;
	while (c->at < c->end && *c->at != '"' && *c->at != '\\')
		c->at++;
	c->key.len = (uint32_t)(c->at - c->key.at);
	return parley_config_take(c, '"') && parley_config_take(c, ':');
}

static inline int parley_config_is(const struct parley_config *c, const char *key) { return parley_equal(c->key, key); }

/* for (parley_config_list(c); parley_config_item(c);) reads each value of a list. */
static inline void parley_config_list(struct parley_config *c) { c->open = parley_config_take(c, '['); }
static inline int parley_config_item(struct parley_config *c) { return !c->failed && parley_config_more(c, ']'); }

static inline uint32_t parley_config_word(struct parley_config *c, const char *word)
{
	uint32_t n = 0;
	while (word[n] && c->at + n < c->end && c->at[n] == (uint8_t)word[n])
		n++;
	return word[n] ? 0 : n;
}

static inline int parley_config_bool(struct parley_config *c)
{
	parley_config_peek(c);
	uint32_t yes = parley_config_word(c, "true"), any = yes ? yes : parley_config_word(c, "false");
	c->failed |= !any;
	c->at += c->failed ? 0 : any;
	return yes && !c->failed;
}

/* A whole number from least to most; least if there is none. */
static PARLEY_APART int64_t parley_config_number(struct parley_config *c, int32_t least, int32_t most)
{
	int negative = parley_config_peek(c) == '-';
	const uint8_t *p = c->at + negative;
	int64_t v = 0;
	uint32_t n = 0;
	for (; p < c->end && n < 11 && *p >= '0' && *p <= '9'; p++, n++)
		v = v * 10 + (*p - '0');
	v = negative ? -v : v;
	if (c->failed || !n || n > 10 || (n > 1 && p[-(int)n] == '0') || v < least || v > most ||
		(p < c->end && (*p == '.' || *p == 'e' || *p == 'E'))) {
		c->failed = 1;
		return least;
	}
	c->at = p;
	return v;
}

static inline int parley_config_hex4(struct parley_config *c, uint32_t *rune)
{
	if (c->end - c->at < 4)
		return 0;
	*rune = 0;
	for (int i = 0; i < 4; i++) {
		uint8_t h = *c->at++;
		uint8_t low = h | 0x20;
		if (h >= '0' && h <= '9')
			*rune = *rune << 4 | (h - '0');
		else if (low >= 'a' && low <= 'f')
			*rune = *rune << 4 | (low - 'a' + 10);
		else
			return 0;
	}
	return 1;
}

/* One character of a text, decoded; its length, 0 where it is malformed. */
static PARLEY_APART uint32_t parley_config_char(struct parley_config *c, uint8_t out[4])
{
	uint32_t n = parley_rune(c->at, (uint32_t)(c->end - c->at)), r, low;
	if (n != 1 || *c->at != '\\') {
		if (n && *c->at >= 0x20)
			for (uint32_t i = 0; i < n; i++)
				out[i] = *c->at++;
		else
			n = 0;
		return n;
	}
	if (c->end - c->at < 2)
		return 0;
	c->at++;
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	for (int i = 0; from[i]; i++)
		if (*c->at == (uint8_t)from[i]) {
			out[0] = (uint8_t)to[i];
			c->at++;
			return 1;
		}
	if (*c->at++ != 'u' || !parley_config_hex4(c, &r) || (r >= 0xdc00 && r < 0xe000))
		return 0;
	if (r >= 0xd800 && r < 0xdc00) {
		if (c->end - c->at < 2 || *c->at++ != '\\' || *c->at++ != 'u' || !parley_config_hex4(c, &low) || low < 0xdc00 || low > 0xdfff)
			return 0;
		r = 0x10000 + ((r - 0xd800) << 10) + (low - 0xdc00);
	}
	if (r < 0x80)
		return out[0] = (uint8_t)r, 1;
	n = r < 0x800 ? 2 : r < 0x10000 ? 3 : 4;
	for (uint32_t i = n; i-- > 1; r >>= 6)
		out[i] = (uint8_t)(0x80 | (r & 0x3f));
	out[0] = (uint8_t)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | r);
	return n;
}

/*
 * A text of at most size - 1 bytes, with a zero byte after it; returns its
 * length. A longer one is refused.
 */
static PARLEY_APART uint32_t parley_config_text(struct parley_config *c, char *into, uint32_t size)
{
	uint32_t n = 0;
	const uint8_t *first = c->at;
	into[0] = 0;
	if (!parley_config_take(c, '"'))
		return 0;
	while (c->at < c->end && *c->at != '"') {
		uint8_t one[4];
		uint32_t len = parley_config_char(c, one);
		if (!len || n + len >= size) {
			c->failed = 1;
			break;
		}
		for (uint32_t i = 0; i < len; i++)
			into[n++] = (char)one[i];
	}
	into[n] = 0;
	if (c->failed) {
		c->at = first; /* the value is at fault, not one of its bytes */
		return 0;
	}
	return parley_config_take(c, '"') ? n : 0;
}

/* Which of n words a text is; any other is refused. */
static PARLEY_APART uint32_t parley_config_choice(struct parley_config *c, const char *const *words, uint32_t n)
{
	char word[32];
	const uint8_t *first = c->at;
	struct parley_bytes got = {(const uint8_t *)word, parley_config_text(c, word, sizeof word)};
	for (uint32_t i = 0; i < n && !c->failed; i++)
		if (parley_equal(got, words[i]))
			return i;
	c->failed = 1;
	c->at = first;
	return 0;
}

static inline uint32_t parley_configured(const uint8_t *json, uint32_t len, void (*read)(struct parley_config *))
{
	struct parley_config c = {.start = json, .at = json, .end = json + len, .open = 1};
	if (parley_config_take(&c, '{'))
		read(&c);
	parley_config_peek(&c);
	return c.failed || c.at < c.end ? 1 + (uint32_t)(c.at - c.start) : 0;
}

#define PARLEY_CONFIG(c) \
	static void parley_read_config(struct parley_config *); \
	PARLEY_EXPORT("configure") uint32_t parley_configure(uint32_t ptr, uint32_t len) \
	{ \
		return parley_configured((const uint8_t *)(uintptr_t)ptr, len, parley_read_config); \
	} \
	static void parley_read_config(struct parley_config *c)

/* ---- what the host calls ---- */

static uint8_t parley_in[PARLEY_MAX_INPUT];

PARLEY_EXPORT("abi_version") uint32_t parley_abi_version(void) { return PARLEY_VERSION; }

/* 0 refuses: the manifest asks for more input than this plugin has room for. */
PARLEY_EXPORT("input_buffer") uint32_t parley_input_buffer(uint32_t capacity)
{
	return capacity <= sizeof parley_in ? (uint32_t)(uintptr_t)parley_in : 0;
}

/* Reads an input into *m, whose fields point into it; 0 if it is malformed. */
static inline int parley_decode(struct parley_message *m, const uint8_t *in, uint32_t len)
{
	*m = (struct parley_message){0};
	if (len < 16 || parley_get32(in) != PARLEY_VERSION)
		return 0;
	uint32_t nfields = parley_get32(in + 4);
	if (nfields > (len - 16) / 8)
		return 0;
	m->time_ms = (int64_t)((uint64_t)parley_get32(in + 8) | (uint64_t)parley_get32(in + 12) << 32);
	for (uint32_t f = 0; f < nfields && f < PARLEY_FIELDS; f++) { /* fields of later hosts are passed over */
		uint32_t off = parley_get32(in + 16 + f * 8), n = parley_get32(in + 20 + f * 8);
		if (off > len || n > len - off)
			return 0;
		m->field[f] = (struct parley_bytes){in + off, n};
	}
	if (m->field[PARLEY_SIGNALS].len >= 12) {
		const uint8_t *s = m->field[PARLEY_SIGNALS].at;
		m->recent_per_minute = parley_get32(s);
		m->repeats = parley_get32(s + 4);
		m->account_age_hours = parley_get32(s + 8);
	}
	return 1;
}

PARLEY_EXPORT("decide") uint64_t parley_decide(uint32_t ptr, uint32_t len)
{
	struct parley_message m;
	return parley_decode(&m, (const uint8_t *)(uintptr_t)ptr, len) ? parley_judge(&m) : parley_error();
}

#endif
