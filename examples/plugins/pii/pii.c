/*
 * pii finds personal data that people paste by mistake: e-mail addresses, phone
 * numbers, payment card numbers that pass the Luhn check, and IBANs that pass
 * theirs. It reads the normalised text, in which full-width digits are digits,
 * invisible characters are gone and everything is in lower case; what it finds
 * is plain ASCII there, so every span lies on character boundaries.
 *
 * Each rule looks at a bounded stretch of text from where something may begin,
 * so the work grows with the length of the text and no faster.
 */
#include "parley.h"

/*
 * The host charges a loop's whole body for each of its rounds, so what is
 * seldom needed is kept out of the loop over the text.
 */
#define APART __attribute__((noinline))

enum { CODE_EMAIL = 1, CODE_PHONE, CODE_CARD, CODE_IBAN, KINDS };

enum {
	MAX_LOCAL = 64,   /* RFC 5321, 4.5.3.1 */
	MAX_DOMAIN = 253, /* with its dots */
	MAX_OWN = 32,
};

static const char *const kinds[] = {"email", "phone", "card", "iban"};
static const char *const modes[] = {"redact", "deny", "hold", "flag"};
static const uint32_t verdicts[] = {PARLEY_REDACT, PARLEY_DENY, PARLEY_HOLD, PARLEY_FLAG};

/* The configuration. */
static uint32_t verdict = PARLEY_REDACT;
static int wanted[KINDS] = {0, 1, 1, 1, 1};
static char own[MAX_OWN][64]; /* domains whose addresses may be posted */
static uint32_t owns;
static char reason[PARLEY_MAX_REASON + 1] = "It held an e-mail address, or a phone, card or account number; such things are better not posted here.";

PARLEY_CONFIG(c)
{
	while (parley_config_key(c)) {
		if (parley_config_is(c, "mode")) {
			verdict = verdicts[parley_config_choice(c, modes, 4)];
		} else if (parley_config_is(c, "reason")) {
			parley_config_text(c, reason, sizeof reason);
		} else if (parley_config_is(c, "find")) {
			for (int k = 1; k < KINDS; k++)
				wanted[k] = 0;
			for (parley_config_list(c); parley_config_item(c);)
				wanted[1 + parley_config_choice(c, kinds, 4)] = 1;
		} else if (parley_config_is(c, "own_domains")) {
			for (parley_config_list(c); parley_config_item(c);) {
				if (owns == MAX_OWN)
					parley_config_refuse(c);
				else
					parley_config_text(c, own[owns++], sizeof own[0]);
			}
		} else {
			parley_config_refuse(c);
		}
	}
}

static int digit(uint8_t c) { return c >= '0' && c <= '9'; }
static int letter(uint8_t c) { return c >= 'a' && c <= 'z'; }
static int alnum(uint8_t c) { return digit(c) || letter(c); }

/* The text, and the byte at i, 0 outside of it. */
static struct parley_bytes text;
static uint8_t at(uint32_t i) { return i < text.len ? text.at[i] : 0; }

/* ---- numbers ---- */

/* A row of groups of digits, such as "+49 (171) 234-5678". */
struct row {
	uint8_t digits[24];
	uint8_t ends[8]; /* how many digits there are at the end of each group */
	uint8_t gap[8];  /* what stands before it: ' ', '-', '.', '/', '(' or ')' with or without a space */
	uint32_t end[8]; /* where it ends in the text */
	uint32_t n, groups;
};

static uint32_t group_size(const struct row *r, uint32_t g) { return r->ends[g] - (g ? r->ends[g - 1] : 0); }

/* Reads at most 8 groups and 23 digits; a group that would be longer is left out. */
static APART void read_row(struct row *r, uint32_t i)
{
	uint8_t gap = 0;
	r->n = r->groups = 0;
	while (r->groups < 8) {
		uint32_t n = r->n, from = i;
		while (digit(at(i)) && n < sizeof r->digits)
			r->digits[n++] = (uint8_t)(at(i++) - '0');
		if (i == from || n == sizeof r->digits)
			return;
		r->n = n;
		r->ends[r->groups] = (uint8_t)n;
		r->gap[r->groups] = gap;
		r->end[r->groups++] = i;
		gap = at(i);
		switch (gap) {
		case ' ':
			i++;
			if (at(i) == '(') { /* "+49 (0)171" */
				gap = '(';
				i++;
			}
			break;
		case ')':
			i++;
			if (at(i) == ' ' || at(i) == '-')
				i++;
			break;
		case '(':
		case '-':
		case '.':
		case '/':
			i++;
			break;
		default:
			return;
		}
	}
}

/* Whether a number may end at i: no letter, digit or decimal follows. */
static int ends_number(uint32_t i)
{
	uint8_t c = at(i);
	if (alnum(c) || c == '@' || c == '_' || c == '%' || c == '=')
		return 0;
	return !((c == '.' || c == ',' || c == '-' || c == ':' || c == '/') && alnum(at(i + 1)));
}

/* Whether a number may begin at i. */
static int begins_number(uint32_t i)
{
	if (!i)
		return 1;
	uint8_t c = at(i - 1), before = i > 1 ? at(i - 2) : 0;
	if (alnum(c) || c == '_' || c == '#' || c == '=' || c == '/' || c == '+' || c == '$' || c == '%' || c == '@')
		return 0;
	return !((c == '.' || c == ',' || c == '-' || c == ':') && digit(before)) && !(c == '-' && alnum(before));
}

static APART int luhn(const uint8_t *d, uint32_t n)
{
	uint32_t sum = 0;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t v = d[n - 1 - i];
		if (i % 2)
			v = v < 5 ? 2 * v : 2 * v - 9;
		sum += v;
	}
	return sum % 10 == 0;
}

/* Whether cards of a network have that many digits and begin so. */
static APART int network(const uint8_t *d, uint32_t n)
{
	uint32_t two = d[0] * 10u + d[1], four = two * 100 + d[2] * 10u + d[3];
	switch (n) {
	case 13:
		return d[0] == 4;
	case 14:
		return two == 36 || two == 38 || two == 39 || (four >= 3000 && four < 3060);
	case 15:
		return two == 34 || two == 37;
	case 16:
		if ((two >= 51 && two <= 55) || (four >= 2221 && four <= 2720) || (four >= 3528 && four <= 3589))
			return 1;
		/* fall through */
	case 17:
	case 18:
	case 19:
		return (d[0] == 4 && (n == 16 || n == 19)) || four == 6011 || two == 65 || two == 62 || two == 64;
	}
	return 0;
}

/* A card number: in one piece, or in the groups that stand on the card. */
static APART uint32_t card(const struct row *r)
{
	uint32_t groups = 1, first = group_size(r, 0);
	if (first == 4 && r->groups >= 3) {
		uint32_t second = group_size(r, 1), third = group_size(r, 2);
		if (second == 6 && (third == 5 || third == 4)) {
			groups = 3;
		} else {
			while (groups < r->groups && groups < 5 && group_size(r, groups - 1) == 4 && group_size(r, groups) <= 4)
				groups++;
			if (groups == 5 && (group_size(r, 4) > 3 || !luhn(r->digits, r->ends[4]) || !network(r->digits, r->ends[4])))
				groups = 4; /* a date or a code after it, not the 17th digit */
		}
		for (uint32_t g = 1; g < groups; g++)
			if ((r->gap[g] != ' ' && r->gap[g] != '-') || r->gap[g] != r->gap[1])
				return 0;
	}
	uint32_t n = r->ends[groups - 1], end = r->end[groups - 1];
	if (n < 13 || n > 19 || !network(r->digits, n) || !luhn(r->digits, n))
		return 0;
	return alnum(at(end)) || (at(end) == '.' && digit(at(end + 1))) ? 0 : end;
}

/* "+49 171 2345678", "0049 171 2345678": skip digits, then a country's. */
static APART uint32_t international(const struct row *r, uint32_t skip)
{
	if (r->n <= skip || !r->digits[skip] || (skip && group_size(r, 0) == r->n && r->n < 12))
		return 0;
	for (uint32_t g = r->groups; g-- > 0;) {
		uint32_t n = r->ends[g] - skip;
		if (n <= 15 && ends_number(r->end[g]))
			return n >= 8 ? r->end[g] : 0;
	}
	return 0;
}

/* "0171 2345678", "01 23 45 67 89", "07700 900123": as they are dialled at home. */
static APART uint32_t national(const struct row *r)
{
	uint32_t first = group_size(r, 0);
	if (r->n < 9 || r->digits[0] || !r->digits[1])
		return 0;
	if (r->groups == 1) /* mobile numbers in one piece, of Germany, France and Britain */
		return ((r->n == 11 && (r->digits[1] == 7 || (r->digits[1] == 1 && r->digits[2] >= 5 && r->digits[2] <= 7))) ||
				(r->n == 10 && (r->digits[1] == 6 || r->digits[1] == 7))) && ends_number(r->end[0]) ? r->end[0] : 0;
	int pairs = r->groups >= 5;
	for (uint32_t g = 0; g < 5 && pairs; g++)
		pairs = group_size(r, g) == 2 && (g < 2 || r->gap[g] == r->gap[1]);
	if (pairs)
		return ends_number(r->end[4]) ? r->end[4] : 0;
	if (first < 2 || first > 6 || (first == 2 && group_size(r, 1) < 3)) /* 01-02-2026 is a date */
		return 0;
	for (uint32_t g = 1; g < r->groups; g++)
		if (r->gap[g] == '.')
			return 0;
	for (uint32_t g = r->groups < 5 ? r->groups : 5; g-- > 1;) {
		uint32_t n = r->ends[g];
		if (n <= 12 && ends_number(r->end[g]))
			return n >= 9 ? r->end[g] : 0;
	}
	return 0;
}

/* "(212) 555-0123", "212-555-0123", "1-212-555-0123" */
static APART uint32_t american(const struct row *r, int paren)
{
	uint32_t g = r->groups == 4 && group_size(r, 0) == 1 && r->digits[0] == 1 ? 1 : 0;
	if (r->groups - g != 3 || group_size(r, g) != 3 || group_size(r, g + 1) != 3 || group_size(r, g + 2) != 4)
		return 0;
	const uint8_t *d = r->digits + g;
	paren |= r->gap[g] == '(';
	if (d[0] < 2 || d[3] < 2 || (paren ? r->gap[g + 1] != ')' : r->gap[g + 1] != r->gap[g + 2]))
		return 0;
	if (r->gap[g + 2] == ' ' && !paren)
		return 0;
	return ends_number(r->end[g + 2]) ? r->end[g + 2] : 0;
}

/* ---- IBAN ---- */

/* Country, length of its IBANs (ISO 13616). */
static const char countries[] =
	"ad24ae23al28at20az28ba20be16bg22bh22br29by28ch21cr22cy28cz24de22dk18do28ee20eg29es24fi18fo18fr27gb22ge22"
	"gi23gl18gr27gt28hr21hu28ie22il23iq23is26it27jo30kw30kz20lb28lc32li21lt20lu20lv21ly25mc27md24me22mk19mr27"
	"mt31mu30nl18no15pk24pl28ps29pt25qa29ro24rs22sa24sc31se24si19sk24sm27st25sv28tl23tn24tr26ua29va22vg24xk20";

static APART uint32_t iban_length(uint8_t a, uint8_t b)
{
	for (const char *c = countries; *c; c += 4)
		if ((uint8_t)c[0] == a && (uint8_t)c[1] == b)
			return (uint32_t)(c[2] - '0') * 10 + (uint32_t)(c[3] - '0');
	return 0;
}

/* Where an IBAN ends that begins at i, 0 if none does. Groups of four may stand apart. */
static APART uint32_t iban(uint32_t i)
{
	uint32_t len, n = 0, mod = 0;
	uint8_t chars[34];
	if (!letter(at(i)) || !letter(at(i + 1)) || !digit(at(i + 2)) || !digit(at(i + 3)) || !(len = iban_length(at(i), at(i + 1))))
		return 0;
	while (n < len) {
		if (n && n % 4 == 0 && (at(i) == ' ' || at(i) == '-'))
			i++;
		if (!alnum(at(i)))
			return 0;
		chars[n++] = at(i++);
	}
	if (alnum(at(i)))
		return 0;
	for (uint32_t k = 0; k < len; k++) { /* the first four go to the end (ISO 7064, MOD 97-10) */
		uint8_t c = chars[(k + 4) % len];
		mod = (digit(c) ? mod * 10 + (c - '0') : mod * 100 + (c - 'a' + 10)) % 97;
	}
	return mod == 1 ? i : 0;
}

/* ---- e-mail ---- */

static int in_local(uint8_t c) { return alnum(c) || c == '.' || c == '_' || c == '%' || c == '+' || c == '-'; }

/* Where the domain that begins at i ends, 0 if none does. */
static APART uint32_t domain(uint32_t i)
{
	uint32_t found = 0, label = i;
	for (uint32_t k = i; k - i < MAX_DOMAIN; k++) {
		uint8_t c = at(k);
		if (alnum(c) || c == '-' || c >= 0x80)
			continue;
		if (c != '.' || k == label)
			break;
		label = k + 1;
		uint32_t t = label; /* an ending: two letters or more, or punycode */
		while (letter(at(t)) && t - label < 24)
			t++;
		if (t - label == 2 && at(label) == 'x' && at(label + 1) == 'n' && at(t) == '-')
			while ((alnum(at(t)) || at(t) == '-') && t - label < 60)
				t++;
		if (t - label >= 2 && !digit(at(t)) && !(at(t) == '-' && alnum(at(t + 1))))
			found = t;
	}
	return found;
}

static APART int is_own(uint32_t i, uint32_t end)
{
	struct parley_bytes d = {text.at + i, end - i};
	for (uint32_t k = 0; k < owns; k++)
		if (parley_equal(d, own[k]))
			return 1;
	return 0;
}

/* Where the address around the @ at i begins and ends; 0 as the end for none. */
static APART uint32_t email(uint32_t i, uint32_t least, uint32_t *begin)
{
	uint32_t b = i;
	while (b > least && in_local(at(b - 1)) && i - b <= MAX_LOCAL)
		b--;
	uint8_t before = b ? at(b - 1) : 0;
	while (b < i && (at(b) == '.' || at(b) == '-'))
		b++;
	if (b == i || i - b > MAX_LOCAL || before == '@' || before == '/')
		return 0; /* "@ann@example.org" is a handle, "//ann@example.org" a URL */
	uint32_t end = domain(i + 1);
	if (!end || (at(end) == ':' && (alnum(at(end + 1)) || at(end + 1) == '/' || at(end + 1) == '~')) || at(end) == '@')
		return 0; /* "git@example.org:app.git" is a place to copy from */
	*begin = b;
	return is_own(i + 1, end) ? 0 : end;
}

/* The number that begins at i, of which its first digits say that it may be one: where it ends, and its code. */
static APART uint32_t row(uint32_t i, int only_card, uint32_t *code)
{
	struct row r;
	uint8_t c = at(i);
	uint32_t end = 0, first = i + (c == '+' || c == '(');
	read_row(&r, first);
	if (!r.groups)
		return 0;
	if (wanted[CODE_CARD] && first == i && c != '0' && (end = card(&r))) {
		*code = CODE_CARD;
		return end;
	}
	if (!wanted[CODE_PHONE] || only_card)
		return 0;
	*code = CODE_PHONE;
	if (c == '+')
		return international(&r, 0);
	if (c != '(' && r.n > 2 && !r.digits[0] && !r.digits[1])
		return international(&r, 2);
	return (end = american(&r, c == '(')) ? end : national(&r);
}

static APART uint32_t number(uint32_t i, uint32_t *code)
{
	if (!begins_number(i))
		return 0;
	uint8_t c = at(i);
	if (c == '+' || c == '(')
		return digit(at(i + 1)) ? row(i, 0, code) : 0;
	uint32_t n = 1;
	while (n < 5 && digit(at(i + n)))
		n++;
	/* One of several groups is no phone number: the first would have been it. */
	int inside = i > 1 && at(i - 1) == ' ' && digit(at(i - 2));
	if (inside && (n < 4 || c < '2' || c > '6'))
		return 0;
	if (n < 2 && (c != '1' || !digit(at(i + 4)))) /* "1-212-555-0123" */
		return 0;
	return row(i, inside, code);
}

/* Where what begins or stands at i ends, 0 if nothing does; done is the end of what was found last. */
static APART uint32_t find(uint32_t i, uint32_t done, uint32_t *begin, uint32_t *code)
{
	*begin = i;
	if (at(i) == '@') {
		*code = CODE_EMAIL;
		return wanted[CODE_EMAIL] ? email(i, done, begin) : 0;
	}
	if (letter(at(i))) {
		*code = CODE_IBAN;
		return wanted[CODE_IBAN] && digit(at(i + 3)) && (!i || !alnum(at(i - 1))) ? iban(i) : 0;
	}
	return number(i, code);
}

/* Whether something may begin at i: a cheap test, for it is made for every byte. */
static int may_begin(uint32_t i)
{
	uint8_t c = text.at[i];
	if (c >= 'a')
		return c <= 'z' && i + 2 < text.len && digit(text.at[i + 2]);
	return c == '@' || c == '+' || c == '(' || (digit(c) && !(i && digit(text.at[i - 1])));
}

uint64_t parley_judge(const struct parley_message *m)
{
	static struct parley_spans spans;
	uint32_t first = 0, done = 0;
	spans.n = 0;
	text = m->field[PARLEY_NORMALIZED];
	for (uint32_t i = 0; i < text.len;) {
		while (i < text.len && !may_begin(i))
			i++;
		uint32_t begin = 0, code = 0, end = i < text.len ? find(i, done, &begin, &code) : 0;
		i++;
		if (!end)
			continue;
		parley_mask(&spans, PARLEY_NORMALIZED, begin, end);
		first = first ? first : code;
		i = done = end;
	}
	if (!first)
		return parley_allow();
	return parley_answer(verdict, (uint16_t)first, PARLEY_MAX_SCORE, parley_string(reason), spans.at, spans.n);
}
