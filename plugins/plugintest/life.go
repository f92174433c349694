package plugintest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"parley/plugins"
	"parley/sdk/abi"
)

var configRules = []rule{
	{"without a configuration it has its defaults", func(k *kit) error {
		return k.say("config", abi.Flag, abi.Result{Reason: "|0|off|"})
	}},
	{"a configuration is taken", func(k *kit) error {
		most, _ := json.Marshal(strings.Repeat("é", 32))
		return errors.Join(
			k.accepts(`{}`, "|0|off|"),
			k.accepts(`{"mark":"a","number":7,"on":true,"list":["x","yy"]}`, "a|7|on|x,yy"),
			k.accepts(" {\r\n\t\"list\" : [ \"x\" , \"y\" ] , \"on\" : false ,\n \"number\" : -1000 } ", "|-1000|off|x,y"),
			k.accepts(`{"list":[],"number":0,"mark":""}`, "|0|off|"),
			k.accepts(`{"number":1000,"list":["1","2","3","4","5","6","7","8"],"mark":`+string(most)+`}`, strings.Repeat("é", 32)+"|1000|off|1,2,3,4,5,6,7,8"),
		)
	}},
	{"escapes in texts are decoded", func(k *kit) error {
		return k.accepts(`{"mark":"\"\\\/ \u00e9\u4e16\uD83D\uDE00 \u0041","list":["a\\","\"b","\b\f\n\r\t"]}`,
			"\"\\/ é世😀 A|0|off|a\\,\"b,\b\f\n\r\t")
	}},
	{"half a character in the configuration does no harm", func(k *kit) error {
		for _, mark := range []string{`\ud800\ud800`, `a\udc00`, `\ud800x`} {
			p, err := k.load(`{"config":{"mark":"` + mark + `"}}`)
			if err != nil { // refused
				continue
			}
			if got := ask(p, message("config")); got.verdict != abi.Flag {
				return fmt.Errorf("mark %s: got %s, want the config refused, or flag", mark, got)
			}
		}
		return nil
	}},
	{"what the configuration may not say is refused", func(k *kit) error {
		var errs []error
		for _, config := range []string{
			`{"color":"red"}`, `{"mark":"a","more":{"deep":[1,2]}}`, `{"":1}`,
			`{"mark":7}`, `{"mark":["a"]}`, `{"mark":"` + strings.Repeat("a", 65) + `"}`,
			`{"number":"7"}`, `{"number":1001}`, `{"number":-1001}`, `{"number":1.5}`, `{"number":1e2}`, `{"number":99999999999999999999}`, `{"number":true}`,
			`{"on":1}`, `{"on":"true"}`,
			`{"list":"a"}`, `{"list":{}}`, `{"list":[1]}`, `{"list":[["a"]]}`, `{"list":["12345678901234567"]}`,
			`{"list":["1","2","3","4","5","6","7","8","9"]}`,
		} {
			if p, err := k.load(`{"config":` + config + `}`); err == nil {
				errs = append(errs, fmt.Errorf("config %.80s: accepted, it says %s", config, ask(p, message("config"))))
			} else if !strings.Contains(err.Error(), "refused its config") {
				errs = append(errs, fmt.Errorf("config %.80s: got %w, want configure to refuse it", config, err))
			}
		}
		return errors.Join(errs...)
	}},
}

// accepts loads the guest with a configuration and compares what it kept,
// also after it has judged something else.
func (k *kit) accepts(config, want string) error {
	p, err := k.load(`{"config":` + config + `}`)
	if err != nil {
		return fmt.Errorf("config %.80s: %w", config, err)
	}
	ask(p, message(strings.Repeat("something else ", 300)))
	return k.sayTo(p, message("config"), abi.Flag, abi.Result{Reason: want})
}

var lifeRules = []rule{
	{"nothing is remembered from one message to the next", func(k *kit) error {
		var errs []error
		for range 3 {
			errs = append(errs, k.say("count", abi.Flag, abi.Result{Reason: "1"}))
		}
		return errors.Join(errs...)
	}},
	{"the same input gets the same verdict for the same fuel", func(k *kit) error {
		for _, text := range []string{"hello", "read text", "stripes 200 3 " + strings.Repeat("x", 700), "flag 1 2 three"} {
			first := ask(k.plugin, message(text))
			for range 3 {
				if again := ask(k.plugin, message(text)); again.String() != first.String() || again.fuel != first.fuel || first.err != nil {
					return fmt.Errorf("%.40q: got %s for %d fuel, then %s for %d", text, first, first.fuel, again, again.fuel)
				}
			}
		}
		return nil
	}},
	{"several copies judge side by side", func(k *kit) error {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				for n := range 50 {
					reason := fmt.Sprintf("by %d, the %d. time", i, n)
					if err := k.say("flag 9 10 "+reason, abi.Flag, abi.Result{Code: 9, Score: 10, Reason: reason}); err != nil {
						errs[i] = err
						return
					}
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}},
	{"a trap ends one decision", func(k *kit) error {
		return k.ends("trap", plugins.ErrTrap, plugins.ErrAnswer) // an SDK may catch a panic and say that it could not judge
	}},
	{"an endless loop ends one decision", func(k *kit) error {
		return k.ends("spin", plugins.ErrFuel)
	}},
}

// ends wants a text to fail in one of the ways, and the next to be judged as
// ever.
func (k *kit) ends(text string, ways ...error) error {
	got := ask(k.plugin, message(text))
	failed := false
	for _, way := range ways {
		failed = failed || errors.Is(got.err, way)
	}
	if !failed {
		return fmt.Errorf("%s: got %s, want the failure %q", text, got, ways[0])
	}
	return errors.Join(
		k.say("flag 1 2 three", abi.Flag, abi.Result{Code: 1, Score: 2, Reason: "three"}),
		k.say("count", abi.Flag, abi.Result{Reason: "1"}))
}
