/*
 * parley.h: write a Parley moderation plugin in C. ABI version 1, specified in
 * docs/plugin-abi.md. Freestanding: no libc, no WASI, no allocation. Include it
 * in one source file, which defines
 *
 *     uint64_t parley_judge(const struct parley_message *m);
 *
 * and returns one of parley_allow(), parley_flag(), parley_redact(),
 * parley_hold() and parley_deny(). Build:
 *
 *     clang --target=wasm32 -O2 -mbulk-memory -ffreestanding -nostdlib \
 *         -Wl,--no-entry -Wl,--strip-all -o NAME.wasm NAME.c
 *
 * The host puts memory back after each decision, so variables keep nothing
 * from one message to the next.
 */
#ifndef PARLEY_H
#define PARLEY_H

#include <stddef.h>
#include <stdint.h>

#define PARLEY_EXPORT(name) __attribute__((export_name(name)))

enum {
	PARLEY_VERSION = 1,
	PARLEY_MAX_INPUT = 16384, /* default of limits.input_bytes */
	PARLEY_MAX_REASON = 256,
	PARLEY_MAX_SPANS = 256,
};

enum { /* fields; spans may name the first two */
	PARLEY_TEXT,
	PARLEY_NORMALIZED,
	PARLEY_USER,
	PARLEY_ROOM,
	PARLEY_ROLES, /* '\n' between roles */
	PARLEY_KIND,
	PARLEY_SIGNALS,
	PARLEY_FIELDS,
};

struct parley_bytes {
	const uint8_t *at;
	uint32_t len;
};

struct parley_message {
	int64_t time_ms; /* Unix time */
	struct parley_bytes field[PARLEY_FIELDS];
	uint32_t recent_per_minute, repeats, account_age_hours;
};

struct parley_span { /* sorted by field and start, without overlap, on UTF-8 boundaries */
	uint32_t field, start, length;
};

uint64_t parley_judge(const struct parley_message *m);

static uint8_t parley_in[PARLEY_MAX_INPUT];

/* The result: header, reason and spans without padding. */
static uint8_t parley_out[8 + PARLEY_MAX_REASON + PARLEY_MAX_SPANS * 12];

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

static inline uint64_t parley_result(uint32_t verdict, uint16_t code, const char *reason,
	const struct parley_span *spans, uint32_t nspans)
{
	uint32_t n = 0;
	while (n < PARLEY_MAX_REASON && reason[n])
		n++;
	if (nspans > PARLEY_MAX_SPANS)
		nspans = PARLEY_MAX_SPANS;
	uint8_t *p = parley_put16(parley_out, code);
	p = parley_put16(p, 1000); /* score: certain */
	p = parley_put16(p, n);
	p = parley_put16(p, nspans);
	for (uint32_t i = 0; i < n; i++)
		*p++ = (uint8_t)reason[i];
	for (uint32_t i = 0; i < nspans; i++) {
		p = parley_put32(p, spans[i].field);
		p = parley_put32(p, spans[i].start);
		p = parley_put32(p, spans[i].length);
	}
	return verdict | (uint64_t)(p - parley_out) << 8 | (uint64_t)(uintptr_t)parley_out << 32;
}

static inline uint64_t parley_allow(void) { return 0; }
static inline uint64_t parley_flag(uint16_t code, const char *reason) { return parley_result(1, code, reason, 0, 0); }
static inline uint64_t parley_hold(uint16_t code, const char *reason) { return parley_result(3, code, reason, 0, 0); }
static inline uint64_t parley_deny(uint16_t code, const char *reason) { return parley_result(4, code, reason, 0, 0); }

static inline uint64_t parley_redact(uint16_t code, const char *reason, const struct parley_span *spans, uint32_t nspans)
{
	return nspans ? parley_result(2, code, reason, spans, nspans) : parley_allow();
}

PARLEY_EXPORT("abi_version") uint32_t parley_abi_version(void) { return PARLEY_VERSION; }

/* 0 refuses: the manifest asks for more input than this plugin has room for. */
PARLEY_EXPORT("input_buffer") uint32_t parley_input_buffer(uint32_t capacity)
{
	return capacity <= sizeof parley_in ? (uint32_t)(uintptr_t)parley_in : 0;
}

PARLEY_EXPORT("decide") uint64_t parley_decide(uint32_t ptr, uint32_t len)
{
	const uint64_t error = 255;
	const uint8_t *in = (const uint8_t *)(uintptr_t)ptr;
	struct parley_message m = {0};
	if (len < 16 || parley_get32(in) != PARLEY_VERSION)
		return error;
	uint32_t nfields = parley_get32(in + 4);
	if (nfields > (len - 16) / 8)
		return error;
	m.time_ms = (int64_t)((uint64_t)parley_get32(in + 8) | (uint64_t)parley_get32(in + 12) << 32);
	for (uint32_t f = 0; f < nfields && f < PARLEY_FIELDS; f++) { /* fields of later hosts are passed over */
		uint32_t off = parley_get32(in + 16 + f * 8), n = parley_get32(in + 20 + f * 8);
		if (off > len || n > len - off)
			return error;
		m.field[f].at = in + off;
		m.field[f].len = n;
	}
	if (m.field[PARLEY_SIGNALS].len >= 12) {
		const uint8_t *s = m.field[PARLEY_SIGNALS].at;
		m.recent_per_minute = parley_get32(s);
		m.repeats = parley_get32(s + 4);
		m.account_age_hours = parley_get32(s + 8);
	}
	return parley_judge(&m);
}

#endif
