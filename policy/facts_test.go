package policy_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/gate"
	"parley/policy"
)

// sees is a policy that reads what the data names, and nothing else.
const sees = `package parley

decision := {"allow": true, "obligations": {"plugins": names}}

names := array.concat(array.concat(input.context.periods, input.context.networks), [name |
	some name in [input.resource.template, sprintf("%v", [input.subject.new_account])]
	name != ""
])
`

// withData compiles sees beside data.parley.
func withData(t testing.TB, data string) *policy.Engine {
	t.Helper()
	e, err := patient().Compile(t.Context(), policy.Files{"p.rego": []byte(sees), "parley/data.yaml": []byte(data)}, "r1")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// named asks and returns what the policy saw, without new_account.
func named(t testing.TB, e *policy.Engine, change func(*gate.Input)) []string {
	t.Helper()
	in := question()
	change(in)
	d := e.Decide(t.Context(), in)
	if d.Failed || len(d.Obligations.Plugins) == 0 {
		t.Fatalf("got %+v", d)
	}
	return d.Obligations.Plugins[:len(d.Obligations.Plugins)-1]
}

func moment(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestPeriods(t *testing.T) {
	e := withData(t, `
time_zone: Europe/Berlin
periods:
  night: [{days: [mon, tue, wed, thu, fri], from: "22:00", to: "06:30"}]
  lunch: [{from: "12:00", to: "13:00"}, {days: [sun], from: "11:30", to: "13:00"}]
  weekend: [{days: [sat, sun], from: "00:00", to: "24:00"}]
  late: [{from: "23:59", to: "24:00"}]
`)
	tests := []struct{ name, at, want string }{ // 1 June 2026 is a Monday; Berlin is at +02:00 then
		{"a morning", "2026-06-02T10:00:00+02:00", ""},
		{"the minute before", "2026-06-01T21:59:59+02:00", ""},
		{"it begins", "2026-06-01T22:00:00+02:00", "night"},
		{"after midnight", "2026-06-02T00:00:00+02:00", "night"},
		{"its last minute", "2026-06-02T06:29:59+02:00", "night"},
		{"it ends", "2026-06-02T06:30:00+02:00", ""},
		{"Monday morning follows Sunday", "2026-06-01T05:00:00+02:00", ""},
		{"Friday's night ends on Saturday", "2026-06-06T05:00:00+02:00", "night weekend"},
		{"Saturday has no night of its own", "2026-06-06T22:30:00+02:00", "weekend"},
		{"every day", "2026-06-03T12:00:00+02:00", "lunch"},
		{"a second window", "2026-06-07T11:45:00+02:00", "lunch weekend"},
		{"to the end of the day", "2026-06-02T23:59:30+02:00", "late night"},
		{"told in another zone", "2026-06-01T20:00:00Z", "night"},
		{"winter is at +01:00", "2026-01-05T21:00:00Z", "night"},
		{"winter, an hour before", "2026-01-05T20:59:00Z", ""},
		{"the hour that summer takes", "2026-03-29T01:30:00Z", "weekend"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := named(t, e, func(in *gate.Input) { in.Raw.Now = moment(t, tt.at) })
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPeriodsAreInUTCUnlessTheDataSaysOtherwise(t *testing.T) {
	e := withData(t, `periods: {noon: [{from: "12:00", to: "12:01"}]}`)
	got := named(t, e, func(in *gate.Input) { in.Raw.Now = moment(t, "2026-06-01T14:00:59+02:00") })
	if !slices.Equal(got, []string{"noon"}) {
		t.Errorf("got %v, want noon", got)
	}
}

func TestNetworks(t *testing.T) {
	e := withData(t, `
networks:
  office: [192.0.2.0/24, "2001:db8:1::/48"]
  printers: [192.0.2.128/25]
  door: [198.51.100.7]
`)
	tests := []struct{ addr, want string }{
		{"192.0.2.1", "office"}, {"192.0.2.200", "office printers"}, {"192.0.3.1", ""}, {"198.51.100.7", "door"}, {"198.51.100.8", ""},
		{"2001:db8:1:2::3", "office"}, {"2001:db8:2::3", ""}, {"::ffff:192.0.2.1", "office"}, {"fe80::1%eth0", ""},
	}
	for _, tt := range tests {
		got := named(t, e, func(in *gate.Input) { in.Raw.Remote = netip.MustParseAddr(tt.addr) })
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %q, want %q", tt.addr, got, tt.want)
		}
	}
}

func TestNewAccounts(t *testing.T) {
	e := withData(t, `new_accounts: {younger_than_s: 3600}`)
	now := moment(t, "2026-06-01T12:00:00Z")
	tests := []struct {
		name  string
		since time.Time
		want  bool
	}{
		{"just now", now, true}, {"within the hour", now.Add(-time.Hour + time.Second), true}, {"an hour", now.Add(-time.Hour), false},
		{"not known", time.Time{}, false}, {"a clock that went back", now.Add(time.Minute), true},
	}
	for _, tt := range tests {
		in := question()
		in.Raw = gate.Raw{Now: now, Since: tt.since}
		if e.Decide(t.Context(), in); in.Subject.NewAccount != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, in.Subject.NewAccount, tt.want)
		}
	}
	in := question()
	in.Raw = gate.Raw{Now: now, Since: now}
	if withData(t, `time_zone: UTC`).Decide(t.Context(), in); in.Subject.NewAccount {
		t.Error("got a new account where the data does not say what one is")
	}
}

func TestTemplates(t *testing.T) {
	e := withData(t, `
templates:
  any: {rooms: ["*"]}
  team: {rooms: ["team-*"]}
  ops: {rooms: ["team-ops-*", pager]}
  archive: {rooms: ["*-old"]}
  lead: {rooms: [team-lead]}
`)
	tests := []struct{ room, want string }{
		{"lobby", "any"}, {"team-a", "team"}, {"team-", "team"}, {"team", "any"}, {"team-ops-1", "ops"}, {"pager", "ops"}, {"team-lead", "lead"},
		{"team-leads", "team"}, {"x-old", "archive"}, {"team-old", "team"}, {"team-ops-old", "ops"}, {"", ""},
	}
	for _, tt := range tests {
		got := named(t, e, func(in *gate.Input) { in.Resource.ID, in.Resource.Template = tt.room, "made-up" })
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %q, want %q", tt.room, got, tt.want)
		}
	}
	got := named(t, withData(t, `templates: {a: {rooms: ["a*a"]}}`), func(in *gate.Input) { in.Resource.ID = "a" })
	if len(got) != 0 {
		t.Errorf("a is not a*a: got %v", got)
	}
}

// everyName is data that names something of each kind.
const everyName = `
periods: {night: [{from: "22:00", to: "06:00"}]}
networks: {office: [192.0.2.0/24]}
new_accounts: {younger_than_s: 3600}
templates: {team: {rooms: ["team-*"]}}
`

// TestNamesAreCached: time that passes makes no new question until a period
// begins, and completing a question allocates nothing.
func TestNamesAreCached(t *testing.T) {
	e := withData(t, everyName)
	ask := func(at string) bool {
		in := question()
		in.Resource.ID = "team-a"
		in.Raw = gate.Raw{Now: moment(t, at), Remote: netip.MustParseAddr("192.0.2.9"), Since: moment(t, "2026-06-01T00:00:00Z")}
		return e.Decide(t.Context(), in).Cached
	}
	for i, tt := range []struct {
		at     string
		cached bool
	}{
		{"2026-06-01T12:00:00Z", false}, {"2026-06-01T12:00:01Z", true}, {"2026-06-01T21:59:59Z", true}, {"2026-06-01T22:00:00Z", false},
		{"2026-06-02T05:59:59Z", true}, {"2026-06-02T06:00:00Z", true}, {"2026-06-02T22:00:00Z", true},
	} {
		if got := ask(tt.at); got != tt.cached {
			t.Errorf("question %d at %s: got cached %v, want %v", i, tt.at, got, tt.cached)
		}
	}
	in := question()
	in.Resource.ID = "team-a"
	in.Raw = gate.Raw{Now: moment(t, "2026-06-01T12:00:00Z"), Remote: netip.MustParseAddr("192.0.2.9"), Since: moment(t, "2026-06-01T11:30:00Z")}
	ctx := t.Context()
	e.Decide(ctx, in)
	if n := testing.AllocsPerRun(100, func() { e.Decide(ctx, in) }); n != 0 {
		t.Errorf("a cached answer allocates %v times, want none", n)
	}
	if in.Resource.Template != "team" || !in.Subject.NewAccount || !slices.Equal(in.Context.Networks, []string{"office"}) || len(in.Context.Periods) != 0 {
		t.Errorf("got %+v", in)
	}
}

// TestARecordIsAskedAgainAsItIs: what is evaluated may be a record that others
// read, with facts that cannot be had again.
func TestARecordIsAskedAgainAsItIs(t *testing.T) {
	e := withData(t, everyName)
	in := question()
	in.Resource.ID = "team-a"
	in.Subject.NewAccount, in.Context.Periods, in.Context.Networks = true, []string{"night"}, []string{"office"}
	for _, ask := range []func() (gate.Decision, error){
		func() (gate.Decision, error) { return e.Evaluate(t.Context(), in) },
		func() (gate.Decision, error) { x, err := e.Explain(t.Context(), in); return x.Decision, err },
		func() (gate.Decision, error) { d, _, _ := e.Blame(t.Context(), in); return d, nil },
	} {
		d, err := ask()
		if want := []string{"night", "office", "team", "true"}; err != nil || !slices.Equal(d.Obligations.Plugins, want) {
			t.Errorf("got %v, %v, want %v", d.Obligations.Plugins, err, want)
		}
	}
	if in.Resource.Template != "" {
		t.Errorf("got the record changed: %+v", in)
	}
}

// TestDataThatCannotBeMeantIsRefused names what is wrong and where.
func TestDataThatCannotBeMeantIsRefused(t *testing.T) {
	tests := []struct{ name, data, want string }{
		{"a key like one of ours", `template: {}`, `data.parley: it has the key "template"; did you mean templates?`},
		{"a key within", `templates: {a: {rooms: [x], quite: []}}`, `data.parley.templates.a: it has the unknown key "quite"; it may have rooms, title`},
		{"another case", `templates: {a: {rooms: [x], Quiet: []}}`, `it has the unknown key "Quiet"`},
		{"a key of a limit", `guests: {limits: {bytes: 1}}`, `data.parley.guests.limits: it has the unknown key "bytes"`},
		{"null", `guests: {networks: null}`, `data.parley.guests.networks: it is null`},
		{"a type", `new_accounts: {younger_than_s: soon}`, `data.parley.new_accounts.younger_than_s: it is a string and must be a whole number`},
		{"a list for an object", `periods: []`, `data.parley.periods: it is a list and must be an object`},
		{"a name", `networks: {The Office: [192.0.2.1]}`, `data.parley.networks: the name "The Office" is not 1 to 64`},
		{"a zone", `time_zone: Berlin`, `data.parley.time_zone: "Berlin" is no time zone`},
		{"the machine's zone", `time_zone: Local`, `"Local" is no time zone`},
		{"a file for a zone", `time_zone: ../../etc/passwd`, `is no time zone`},
		{"no window", `periods: {a: []}`, `data.parley.periods.a: it has 0 windows`},
		{"a day", `periods: {a: [{days: [monday], from: "01:00", to: "02:00"}]}`, `data.parley.periods.a[0].days: "monday" is not one of sun, mon`},
		{"no days", `periods: {a: [{days: [], from: "01:00", to: "02:00"}]}`, `data.parley.periods.a[0].days: it is empty`},
		{"a time", `periods: {a: [{from: "1:00", to: "02:00"}]}`, `data.parley.periods.a[0].from: "1:00" is no time of day`},
		{"a time beyond the day", `periods: {a: [{from: "01:00", to: "24:01"}]}`, `[0].to: "24:01" is no time of day`},
		{"a signed time", `periods: {a: [{from: "+1:00", to: "24:00"}]}`, `[0].from: "+1:00" is no time of day`},
		{"no time", `periods: {a: [{from: "01:00", to: "01:00"}]}`, `a whole day is from 00:00 to 24:00`},
		{"a prefix", `networks: {a: [192.0.2.0/33]}`, `data.parley.networks.a[0]: "192.0.2.0/33" is neither a prefix`},
		{"a mapped prefix", `networks: {a: ["::ffff:192.0.2.0/120"]}`, `is neither a prefix`},
		{"an address with a zone", `networks: {a: ["fe80::1%eth0"]}`, `is neither a prefix`},
		{"no prefix", `networks: {a: []}`, `it has 0 prefixes`},
		{"a network that is not there", `templates: {a: {rooms: [x], networks: [office]}}`, `data.parley.templates.a.networks: there is no network "office"`},
		{"one of guests", `guests: {networks: [office]}`, `data.parley.guests.networks: there is no network "office"`},
		{"a period that is not there", `templates: {a: {rooms: [x], quiet: [night]}}`, `data.parley.templates.a.quiet: there is no period "night"`},
		{"no age", `new_accounts: {open_rooms: false}`, `data.parley.new_accounts.younger_than_s: 0 is not within 1 and`},
		{"new accounts without one", `templates: {a: {rooms: [x], new_accounts: read}}`, `nothing says what a new account is`},
		{"an access", `templates: {a: {rooms: [x], guests: all}}`, `data.parley.templates.a.guests: "all" is not one of none, read, write`},
		{"no rooms", `templates: {a: {title: A}}`, `data.parley.templates.a.rooms: it has 0 names`},
		{"an empty room", `templates: {a: {rooms: [""]}}`, `"" is neither a room's name`},
		{"two stars", `templates: {a: {rooms: ["*x*"]}}`, `"*x*" is neither a room's name`},
		{"a room twice", `templates: {a: {rooms: [x]}, b: {rooms: [x]}}`, `data.parley.templates.b.rooms: "x" belongs to the template a already`},
		{"a star twice", `templates: {a: {rooms: ["x*"]}, b: {rooms: ["x*"]}}`, `"x*" belongs to the template a already`},
		{"a mode", `templates: {a: {rooms: [x], mode: closed}}`, `data.parley.templates.a: mode "closed" is not one of open`},
		{"a visibility", `templates: {a: {rooms: [x], visibility: secret}}`, `visibility "secret" is neither public nor private`},
		{"slow mode", `templates: {a: {rooms: [x], slow_mode_s: -1}}`, `slow_mode_s -1 is not within 0 and 21600`},
		{"a title", `templates: {a: {rooms: [x], title: ` + strings.Repeat("x", 201) + `}}`, `the title has 201 bytes`},
		{"a limit", `guests: {limits: {text_bytes: -1}}`, `data.parley.guests.limits.text_bytes: -1 is not within 0 and`},
		{"half a rate", `new_accounts: {younger_than_s: 1, limits: {rate_limit: {count: 1}}}`, `data.parley.new_accounts.limits.rate_limit: it needs both count and per_s`},
		{"a rate's count", `guests: {limits: {rate_limit: {count: -1, per_s: 1}}}`, `limits.rate_limit.count: -1 is not within`},
		{"a rate's time", `guests: {limits: {rate_limit: {count: 1, per_s: 0}}}`, `limits.rate_limit.per_s: 0 is not within 1 and`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := patient().Compile(t.Context(), policy.Files{"p.rego": []byte(sees), "parley/data.yaml": []byte(tt.data)}, "r1")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestOtherDataIsTheOperators(t *testing.T) {
	e := withData(t, `{staff: [eve], templates: {a: {rooms: [x], own: {Anything: [1, null]}}}}`)
	if got := named(t, e, func(in *gate.Input) { in.Resource.ID = "x" }); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %v, want a", got)
	}
}

// TestPeriodsAreFollowed: who waits for Changed hears of a period that begins
// or ends, in the minute it does, and of nothing else.
func TestPeriodsAreFollowed(t *testing.T) {
	first := withData(t, `periods: {early: [{from: "00:10", to: "00:20"}]}`) // the bubble begins at midnight in UTC
	second := withData(t, `periods: {late: [{from: "01:00", to: "02:00"}]}`)
	synctest.Test(t, func(t *testing.T) {
		live := policy.NewLive(first, "test", quiet())
		ctx, stop := context.WithCancel(t.Context())
		var own sync.WaitGroup
		own.Go(func() { live.FollowPeriods(ctx) })
		defer own.Wait()
		defer stop()
		begin := time.Now()
		told := func() string {
			<-live.Changed()
			return time.Since(begin).String()
		}
		for _, want := range []string{"10m0s", "20m0s", "24h10m0s"} {
			if got := told(); got != want {
				t.Errorf("told after %s, want %s", got, want)
			}
		}
		time.Sleep(49*time.Minute + 30*time.Second) // 00:59:30
		live.Swap(second, "test")
		if got := told(); got != "25h0m0s" {
			t.Errorf("told after %s, want it right after the swap", got)
		}
	})
}
