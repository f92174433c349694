/*
 * A plugin for tests and benchmarks: masks the words of its config,
 * {"words":["...", ...]}, wherever they stand alone in the normalised text.
 */
#include "parley.h"

enum { SLOTS = 1024, TEXT = 16384 };

static uint8_t text[TEXT]; /* the words, one after another */
static uint32_t used;
static struct { uint16_t at, len; } slot[SLOTS];

static int letter(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80;
}

static int same(const uint8_t *a, const uint8_t *b, uint32_t n)
{
	while (n--)
		if (*a++ != *b++)
			return 0;
	return 1;
}

/* Where a word is, or the free slot where it belongs. */
static uint32_t find(const uint8_t *w, uint32_t n, uint32_t hash)
{
	uint32_t i = hash % SLOTS;
	while (slot[i].len && !(slot[i].len == n && same(text + slot[i].at, w, n)))
		i = (i + 1) % SLOTS;
	return i;
}

static uint32_t step(uint32_t hash, uint8_t c) { return (hash ^ c) * 16777619u; }

PARLEY_EXPORT("configure") uint32_t configure(const uint8_t *json, uint32_t len)
{
	uint32_t n = 0, quoted = 0, words = 0;
	for (uint32_t i = 0; i < len; i++) {
		if (json[i] != '"') {
			n += quoted;
			continue;
		}
		if (!quoted) {
			quoted = 1, n = 0;
			continue;
		}
		quoted = 0;
		if (i + 1 < len && json[i + 1] == ':')
			continue; /* the key */
		if (n == 0 || used + n > TEXT || ++words > SLOTS / 2)
			return 1;
		uint32_t hash = 2166136261u;
		for (uint32_t k = 0; k < n; k++) {
			text[used + k] = json[i - n + k];
			hash = step(hash, text[used + k]);
		}
		uint32_t at = find(text + used, n, hash);
		slot[at].at = (uint16_t)used;
		slot[at].len = (uint16_t)n;
		used += n;
	}
	return 0;
}

uint64_t parley_judge(const struct parley_message *m)
{
	static struct parley_span spans[PARLEY_MAX_SPANS];
	struct parley_bytes t = m->field[PARLEY_NORMALIZED];
	uint32_t found = 0;
	for (uint32_t i = 0; i < t.len && found < PARLEY_MAX_SPANS;) {
		if (!letter(t.at[i])) {
			i++;
			continue;
		}
		uint32_t start = i, hash = 2166136261u;
		for (; i < t.len && letter(t.at[i]); i++)
			hash = step(hash, t.at[i]);
		if (slot[find(t.at + start, i - start, hash)].len)
			spans[found++] = (struct parley_span){PARLEY_NORMALIZED, start, i - start};
	}
	return parley_redact(1, "That word is not welcome here.", spans, found);
}
