package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"encoding/pem"

	"go.uber.org/goleak"

	"parley/core/absent"
	queue "parley/core/absent/redis"
	"parley/core/absent/webhook"
	"parley/core/chat"
	rds "parley/core/redis"
	"parley/core/redis/redistest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-redis looks for a lost server once a second, and ends when it
		// next notices that the client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

const patience = redistest.Patience

var await = redistest.Await

var secret = webhook.Secret(strings.Repeat("s", 32))

// world is a Redis, an endpoint, and workers between them.
type world struct {
	t      *testing.T
	store  *redistest.Server
	client *rds.Client
	q      *queue.Queue // to look, and to bring dead letters back

	mu     sync.Mutex
	answer func(user chat.UserID, n int, w http.ResponseWriter) // n is the how manieth of this user, from 1
	tried  map[chat.UserID]int
	took   map[chat.UserID]int
	texts  map[chat.UserID][]string // of all tries
	*httptest.Server
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: redistest.Start(t, redistest.Options{}), tried: map[chat.UserID]int{}, took: map[chat.UserID]int{}, texts: map[chat.UserID][]string{}}
	c := rds.Defaults()
	c.URL, c.Prefix = w.store.URL(), "p"
	c.DialTimeout, c.CallTimeout = patience, 3*time.Second // which is what a worker needs to see that Redis stands still
	var err error
	if w.client, err = rds.Open(c, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.client.Close() })
	w.q = queue.NewQueue(w.client)
	w.Server = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.Server.Close)
	return w
}

func (w *world) serve(rw http.ResponseWriter, req *http.Request) {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	if err := webhook.Verify(secret, req.Header.Get(webhook.HeaderID), req.Header.Get(webhook.HeaderTimestamp), req.Header.Get(webhook.HeaderSignature), b, time.Now()); err != nil {
		w.t.Errorf("a delivery: %v", err)
	}
	var p struct{ Data absent.Entry }
	if err := json.Unmarshal(b, &p); err != nil {
		w.t.Errorf("a delivery: %v", err)
	}
	u := p.Data.User
	w.mu.Lock()
	w.tried[u]++
	w.texts[u] = append(w.texts[u], p.Data.Text)
	n, answer := w.tried[u], w.answer
	w.mu.Unlock()
	rec := httptest.NewRecorder()
	if answer != nil {
		answer(u, n, rec)
	}
	if rec.Code == http.StatusOK {
		w.mu.Lock()
		w.took[u]++
		w.mu.Unlock()
	}
	for k, v := range rec.Header() {
		rw.Header()[k] = v
	}
	rw.WriteHeader(rec.Code)
	_, _ = rw.Write(rec.Body.Bytes())
}

func (w *world) answers(f func(user chat.UserID, n int, rw http.ResponseWriter)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = f
}

func (w *world) tries(u chat.UserID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tried[u]
}

func (w *world) taken(u chat.UserID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.took[u]
}

// put puts a message for each of the users into the stream.
func (w *world) put(users ...chat.UserID) {
	w.t.Helper()
	for _, u := range users {
		e := absent.Entry{Room: "lobby", Epoch: "e", Seq: 1, ID: chat.MessageID("to-" + u), From: "ann", User: u, Kind: "mention", Time: 1764000000123, Texted: true}
		if _, err := w.client.Do(w.t.Context(), e.AppendFields([]any{"xadd", absent.KeysOf("p").Stream, "*"})...); err != nil {
			w.t.Fatal(err)
		}
	}
}

// config is a worker in a hurry, but for what others have: nobody takes that over,
// however slow the machine.
func (w *world) config() webhook.Config {
	c := webhook.Defaults()
	c.URL, c.Secrets = w.Server.URL, []webhook.Secret{secret}
	c.Tries, c.FirstWait, c.MostWait, c.Poll, c.ClaimAfter = 3, 5*time.Millisecond, 20*time.Millisecond, 5*time.Millisecond, time.Hour
	return c
}

// work runs a worker until stop is called or the test ends.
func (w *world) work(c webhook.Config) (x *webhook.Worker, stop func()) {
	w.t.Helper()
	x, err := webhook.New(c, queue.NewQueue(w.client), slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := x.Run(ctx); err != nil {
			w.t.Errorf("run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.t.Cleanup(stop)
	return x, stop
}

// left waits until so many messages and dead letters are left.
func (w *world) left(stream, dead int64) {
	w.t.Helper()
	await(w.t, fmt.Sprintf("%d messages and %d dead letters are left", stream, dead), func() bool {
		s, d, err := w.q.Waiting(w.t.Context())
		return err == nil && s == stream && d == dead
	})
}

func TestDeliversOnce(t *testing.T) {
	w := newWorld(t)
	var users []chat.UserID
	for i := range 200 {
		users = append(users, chat.UserID(fmt.Sprint("u", i)))
	}
	w.put(users[:100]...)
	c := w.config()
	for range 3 { // several share the work
		w.work(c)
	}
	w.put(users[100:]...)
	w.left(0, 0)
	for _, u := range users {
		if n := w.taken(u); n != 1 {
			t.Errorf("%s: taken %d times", u, n)
		}
	}
}

// TestErasedText: each attempt has the text as it is by then, and a worker that
// cannot find out does not try.
func TestErasedText(t *testing.T) {
	w := newWorld(t)
	keys := absent.KeysOf("p")
	w.store.Do("HSET", keys.Texts, "to-bob", "a secret", "to-cid", "hello")
	w.answers(func(u chat.UserID, n int, rw http.ResponseWriter) {
		if u == "bob" && n == 1 {
			w.store.Do("HDEL", keys.Texts, "to-bob")
			rw.WriteHeader(http.StatusInternalServerError)
		}
		if u == "cid" { // who cannot be told of dan
			w.store.Do("RENAME", keys.Texts, "aside")
			w.store.Do("SET", keys.Texts, "no hash")
		}
	})
	c := w.config()
	c.Concurrency = 1
	x, _ := w.work(c)
	w.put("bob")
	w.left(0, 0)
	w.put("cid", "dan")
	await(t, "it cannot be found out what dan is to be told", func() bool { return x.Stats().Errors > 0 })
	if n := w.tries("dan"); n != 0 {
		t.Errorf("dan was told %d times, nobody knows what", n)
	}
	w.store.Do("DEL", keys.Texts)
	w.left(0, 0)
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := w.texts; !slices.Equal(got["bob"], []string{"a secret", ""}) || got["cid"][0] != "hello" || len(got["dan"]) != 1 {
		t.Errorf("got %q", got)
	}
}

func TestWhatTheEndpointSays(t *testing.T) {
	w := newWorld(t)
	w.answers(func(u chat.UserID, n int, rw http.ResponseWriter) {
		switch {
		case u == "gone":
			rw.WriteHeader(http.StatusGone)
			fmt.Fprint(rw, "no such person")
		case u == "elsewhere":
			rw.Header().Set("location", "/other")
			rw.WriteHeader(http.StatusTemporaryRedirect)
		case u == "never", u == "later" && n < 3:
			rw.WriteHeader(http.StatusInternalServerError)
		case u == "busy" && n < 2:
			rw.Header().Set("retry-after", "1")
			rw.WriteHeader(http.StatusTooManyRequests)
		}
	})
	x, stop := w.work(w.config())
	w.put("fine", "gone", "elsewhere", "never", "later")
	w.left(0, 3)
	began := time.Now()
	w.put("busy")
	w.left(0, 3)
	if d := time.Since(began); d < time.Second {
		t.Errorf("a second's pause was asked for, and it came again after %s", d)
	}
	for u, want := range map[chat.UserID][2]int{"fine": {1, 1}, "gone": {1, 0}, "elsewhere": {1, 0}, "never": {3, 0}, "later": {3, 1}, "busy": {2, 1}} {
		if w.tries(u) != want[0] || w.taken(u) != want[1] {
			t.Errorf("%s: tried %d times and taken %d times, want %v", u, w.tries(u), w.taken(u), want)
		}
	}
	letters, err := w.q.Dead(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	why := map[chat.UserID]string{}
	for _, l := range letters {
		why[l.Entry.User] = fmt.Sprintf("%d %s", l.Tries, l.Reason)
		if time.Since(l.Died) > time.Hour || l.Bad != "" {
			t.Errorf("got %+v", l)
		}
	}
	for u, want := range map[chat.UserID]string{"gone": "1 410 Gone: no such person", "never": "3 500 Internal Server Error",
		"elsewhere": "1 307 Temporary Redirect: redirects are not followed; give the worker the URL that answers"} {
		if why[u] != want {
			t.Errorf("%s: got %q, want %q", u, why[u], want)
		}
	}
	await(t, "all is counted", func() bool { st := x.Stats(); return st.Delivered == 3 && st.Dead == 3 })
	if st := x.Stats(); st.Lost != 0 || st.Unended != 0 {
		t.Errorf("got %+v", st)
	}

	// The operator has mended it.
	w.answers(nil)
	if n, err := w.q.Revive(t.Context(), []string{letters[0].ID, letters[1].ID, "1-1"}); n != 2 || err != nil {
		t.Errorf("revive: got %d, %v", n, err)
	}
	w.left(0, 1)
	rest, err := w.q.Dead(t.Context(), "", 10)
	if err != nil || len(rest) != 1 || rest[0].ID != letters[2].ID {
		t.Errorf("got %+v, %v", rest, err)
	}
	for _, l := range letters[:2] {
		if w.taken(l.Entry.User) != 1 {
			t.Errorf("%s was not delivered after all", l.Entry.User)
		}
	}
	stop()
}

// TestADeadEndpointIsLeftAlone: while it takes nothing few attempts are made, and
// no message becomes a dead letter for that but what was tried.
func TestADeadEndpointIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.answers(func(_ chat.UserID, _ int, rw http.ResponseWriter) { rw.WriteHeader(http.StatusBadGateway) })
	var users []chat.UserID
	for i := range 300 {
		users = append(users, chat.UserID(fmt.Sprint("u", i)))
	}
	w.put(users...)
	c := w.config()
	c.Concurrency, c.Tries = 4, 5
	x, _ := w.work(c)
	await(t, "it is left alone", func() bool { return x.Stats().Open })
	count := func() (n int) {
		for _, u := range users {
			n += w.tries(u)
		}
		return n
	}
	await(t, "it is tried again", func() bool { return count() > 10 })
	if n := count(); n > 40 {
		t.Errorf("a dead endpoint was asked %d times within seconds", n)
	}
	w.answers(nil)
	w.left(0, 0)
	for _, u := range users {
		if w.taken(u) != 1 {
			t.Errorf("%s: taken %d times", u, w.taken(u))
		}
	}
	if x.Stats().Open {
		await(t, "it is not left alone any more", func() bool { return !x.Stats().Open })
	}
}

// TestASlowEndpoint: an answer that does not come in time is a failure, and the
// other deliveries go on meanwhile.
func TestASlowEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	release := make(chan struct{})
	defer close(release)
	w.answers(func(u chat.UserID, n int, _ http.ResponseWriter) {
		if u == "slow" && n == 1 {
			<-release
		}
	})
	c := w.config()
	c.Timeout = 3 * time.Second // the others must answer in that
	w.put("slow", "a", "b", "c")
	x, _ := w.work(c)
	w.left(0, 0)
	if w.tries("slow") != 2 || w.taken("a") != 1 || x.Stats().Retried != 1 {
		t.Errorf("slow: tried %d times; %+v", w.tries("slow"), x.Stats())
	}
}

// TestTriesAreSharedAndOutliveAWorker: what one worker has tried counts for the
// next.
func TestTriesAreSharedAndOutliveAWorker(t *testing.T) {
	w := newWorld(t)
	w.answers(func(_ chat.UserID, _ int, rw http.ResponseWriter) { rw.WriteHeader(http.StatusInternalServerError) })
	c := w.config()
	c.FirstWait, c.MostWait, c.ClaimAfter = time.Hour, time.Hour, 200*time.Millisecond
	w.put("bob")
	x, stop := w.work(c)
	await(t, "it was tried", func() bool { return x.Stats().Retried == 1 })
	stop()
	x, stop = w.work(c) // takes it over, and tries it at once
	await(t, "it was tried", func() bool { return x.Stats().Retried == 1 })
	stop()
	w.work(c)
	w.left(0, 1)
	if n := w.tries("bob"); n != 3 {
		t.Errorf("tried %d times, want 3", n)
	}
}

// TestALivingWorkerKeepsWhatItHas: though it waits for longer than the others
// wait for a sign of life.
func TestALivingWorkerKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.answers(func(_ chat.UserID, n int, rw http.ResponseWriter) {
		if n == 1 {
			rw.WriteHeader(http.StatusInternalServerError)
		}
	})
	c := w.config()
	// It waits 5 to 10 s, and gives a sign of life each second: one may be late.
	c.FirstWait, c.MostWait, c.ClaimAfter = 10*time.Second, 10*time.Second, 4*time.Second
	w.put("bob")
	x, _ := w.work(c)
	await(t, "it was tried", func() bool { return x.Stats().Retried == 1 })
	y, _ := w.work(c)
	w.left(0, 0)
	await(t, "it is counted", func() bool { return x.Stats().Delivered+y.Stats().Delivered == 1 })
	if x.Stats().Delivered != 1 || y.Stats().Delivered != 0 || w.tries("bob") != 2 {
		t.Errorf("got %+v and %+v, tried %d times", x.Stats(), y.Stats(), w.tries("bob"))
	}
}

// TestRedisGoesAndComes: deliveries go on where it comes back with what it had.
func TestRedisGoesAndComes(t *testing.T) {
	w := newWorld(t)
	x, _ := w.work(w.config())
	w.put("a")
	w.left(0, 0)
	w.store.Pause()
	await(t, "the worker notices", func() bool { return x.Stats().Errors > 0 })
	w.store.Resume()
	await(t, "redis is tried again", func() bool { _, err := w.client.Do(t.Context(), "exists", "p"); return err == nil })
	w.put("b")
	w.left(0, 0)
	w.store.Wipe() // the group is gone as well
	w.store.Restart()
	await(t, "redis is tried again", func() bool { _, err := w.client.Do(t.Context(), "exists", "p"); return err == nil })
	w.put("c")
	w.left(0, 0)
	for _, u := range []chat.UserID{"a", "b", "c"} {
		if w.taken(u) != 1 {
			t.Errorf("%s: taken %d times", u, w.taken(u))
		}
	}
}

// TestWhatCannotBeReadIsBuried: it must not be tried for ever.
func TestWhatCannotBeReadIsBuried(t *testing.T) {
	w := newWorld(t)
	w.store.Do("XADD", "p:{absent}:stream", "*", "room", "lobby", "seq", "x")
	w.put("bob")
	w.work(w.config())
	w.left(0, 1)
	letters, err := w.q.Dead(t.Context(), "", 10)
	if err != nil || len(letters) != 1 || letters[0].Bad == "" || !strings.Contains(letters[0].Reason, `seq "x" is no number`) {
		t.Errorf("got %+v, %v", letters, err)
	}
}

func TestTLS(t *testing.T) {
	w := newWorld(t)
	secure := httptest.NewUnstartedServer(w.Config.Handler)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	secure.StartTLS()
	defer secure.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := w.config()
	c.URL, c.ClaimAfter = secure.URL, 200*time.Millisecond
	w.put("bob")
	x, stop := w.work(c)
	await(t, "a stranger's certificate is refused", func() bool { return x.Stats().Retried > 0 })
	stop()
	if w.tries("bob") != 0 {
		t.Error("a message went to a stranger")
	}
	c.CAFile = ca
	w.work(c)
	w.left(0, 0)
	c.CAFile = ca + "x"
	if _, err := webhook.New(c, w.q, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no such file: got no error")
	}
	if err := os.WriteFile(ca, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.CAFile = ca
	if _, err := webhook.New(c, w.q, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no certificate: got no error")
	}
}

func TestConfig(t *testing.T) {
	good := webhook.Defaults()
	good.URL, good.Secrets = "https://x.example", []webhook.Secret{secret}
	for name, change := range map[string]func(*webhook.Config){
		"url": func(c *webhook.Config) { c.URL = "x" }, "secrets": func(c *webhook.Config) { c.Secrets = nil },
		"concurrency": func(c *webhook.Config) { c.Concurrency = 0 }, "tries": func(c *webhook.Config) { c.Tries = 0 },
		"waits": func(c *webhook.Config) { c.MostWait = 0 }, "timeout": func(c *webhook.Config) { c.Timeout = 0 },
		"claim": func(c *webhook.Config) { c.ClaimAfter = 0 },
	} {
		c := good
		change(&c)
		if _, err := webhook.New(c, nil, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
