/*
 * The C SDK's guest for the conformance kit: the text of a message says what to
 * answer. plugins/plugintest documents the commands and checks the answers.
 */
#include "parley.h"

static char mark[65];
static int64_t number;
static int on;
static char list[8][17];
static uint32_t items;

static char line[1024]; /* the reason being written */
static uint32_t written;
static uint32_t count;

static void put(uint8_t c)
{
	if (written < sizeof line)
		line[written++] = (char)c;
}

static void put_text(const char *s)
{
	while (*s)
		put((uint8_t)*s++);
}

static void put_number(int64_t v)
{
	char digits[20];
	uint32_t n = 0;
	uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
	if (v < 0)
		put('-');
	do
		digits[n++] = (char)('0' + u % 10);
	while (u /= 10);
	while (n)
		put((uint8_t)digits[--n]);
}

static struct parley_bytes reason(void) { return (struct parley_bytes){(const uint8_t *)line, written}; }

/* The next word of what is left. */
static struct parley_bytes word(struct parley_bytes *left)
{
	struct parley_bytes w = {left->at, 0};
	while (w.len < left->len && w.at[w.len] != ' ')
		w.len++;
	uint32_t skip = w.len < left->len ? w.len + 1 : w.len;
	left->at += skip;
	left->len -= skip;
	return w;
}

/* The number that b begins with; b goes on behind it and one character more. */
static uint32_t decimal(struct parley_bytes *b)
{
	uint32_t v = 0, i = 0;
	while (i < b->len && b->at[i] >= '0' && b->at[i] <= '9')
		v = v * 10 + (b->at[i++] - '0');
	i += i < b->len;
	b->at += i;
	b->len -= i;
	return v;
}

static uint64_t tell(uint16_t code) { return parley_answer(PARLEY_FLAG, code, 0, reason(), 0, 0); }

static uint64_t answer(uint32_t verdict, struct parley_bytes left)
{
	uint32_t code = decimal(&left), score = decimal(&left);
	return parley_answer(verdict, (uint16_t)code, score, left, 0, 0);
}

static uint64_t redact(struct parley_bytes left)
{
	struct parley_spans s = {0};
	uint32_t code = decimal(&left), score = decimal(&left);
	while (left.len) {
		struct parley_bytes w = word(&left);
		uint32_t field = w.len && w.at[0] == 'n' ? PARLEY_NORMALIZED : PARLEY_TEXT;
		if (w.len) {
			w.at++;
			w.len--;
		}
		uint32_t start = decimal(&w), end = decimal(&w);
		parley_mask(&s, field, start, end);
	}
	return parley_answer(PARLEY_REDACT, (uint16_t)code, score, parley_string("masked"), s.at, s.n);
}

static uint64_t stripes(struct parley_bytes left)
{
	struct parley_spans s = {0};
	uint32_t n = decimal(&left), step = decimal(&left);
	while (n--)
		parley_mask(&s, PARLEY_TEXT, n * step, n * step + 1);
	return parley_redact(1, "striped", s.at, s.n);
}

static uint64_t read(const struct parley_message *m, struct parley_bytes name)
{
	static const char *const names[] = {"text", "normalized", "user", "room", "roles", "kind"};
	for (uint32_t f = 0; f < 6; f++)
		if (parley_equal(name, names[f]))
			return parley_answer(PARLEY_FLAG, (uint16_t)m->field[f].len, 0, m->field[f], 0, 0);
	return parley_error();
}

static uint64_t quote(struct parley_bytes text, struct parley_bytes left)
{
	uint32_t start = decimal(&left), end = decimal(&left);
	return parley_answer(PARLEY_FLAG, 0, 0, (struct parley_bytes){text.at + start, end - start}, 0, 0);
}

static uint64_t config(void)
{
	put_text(mark);
	put('|');
	put_number(number);
	put_text(on ? "|on|" : "|off|");
	for (uint32_t i = 0; i < items; i++) {
		if (i)
			put(',');
		put_text(list[i]);
	}
	return tell(0);
}

uint64_t parley_judge(const struct parley_message *m)
{
	struct parley_bytes left = m->field[PARLEY_TEXT], w = word(&left);
	if (parley_equal(w, "flag"))
		return answer(PARLEY_FLAG, left);
	if (parley_equal(w, "hold"))
		return answer(PARLEY_HOLD, left);
	if (parley_equal(w, "deny"))
		return answer(PARLEY_DENY, left);
	if (parley_equal(w, "redact"))
		return redact(left);
	if (parley_equal(w, "stripes"))
		return stripes(left);
	if (parley_equal(w, "read"))
		return read(m, word(&left));
	if (parley_equal(w, "quote"))
		return quote(m->field[PARLEY_TEXT], left);
	if (parley_equal(w, "config"))
		return config();
	if (parley_equal(w, "error"))
		return parley_error();
	if (parley_equal(w, "trap"))
		__builtin_trap();
	if (parley_equal(w, "spin"))
		for (volatile uint32_t i = 0;; i++)
			;
	if (parley_equal(w, "count")) {
		put_number(++count);
		return tell(0);
	}
	if (parley_equal(w, "time")) {
		put_number(m->time_ms);
		return tell(0);
	}
	if (parley_equal(w, "signals")) {
		put_number(m->recent_per_minute);
		put(' ');
		put_number(m->repeats);
		put(' ');
		put_number(m->account_age_hours);
		return tell(0);
	}
	if (parley_equal(w, "role")) {
		char role[33] = {0};
		for (uint32_t i = 0; i < left.len && i < 32; i++)
			role[i] = (char)left.at[i];
		return tell((uint16_t)parley_has_role(m, role));
	}
	return parley_allow();
}

PARLEY_CONFIG(c)
{
	while (parley_config_key(c)) {
		if (parley_config_is(c, "mark"))
			parley_config_text(c, mark, sizeof mark);
		else if (parley_config_is(c, "number"))
			number = parley_config_number(c, -1000, 1000);
		else if (parley_config_is(c, "on"))
			on = parley_config_bool(c);
		else if (parley_config_is(c, "list"))
			for (parley_config_list(c); parley_config_item(c);) {
				if (items == 8)
					parley_config_refuse(c);
				else
					parley_config_text(c, list[items++], sizeof list[0]);
			}
		else
			parley_config_refuse(c);
	}
}
