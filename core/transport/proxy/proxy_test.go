package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
)

func TestClientIsTheRightmostUntrusted(t *testing.T) {
	n, err := Parse([]string{"10.0.0.0/8", "127.0.0.1", "fd00::/8", "192.0.2.77/24", "::ffff:198.51.100.0/120", "::ffff:198.18.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"nobody trusted asks", "203.0.113.9", []string{"1.2.3.4"}, "203.0.113.9"},
		{"no header", "10.1.1.1", nil, "10.1.1.1"},
		{"one hop", "10.1.1.1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"made up by the client", "10.1.1.1", []string{"10.9.9.9, 1.1.1.1, 203.0.113.9"}, "203.0.113.9"},
		{"two proxies", "127.0.0.1", []string{"1.1.1.1,203.0.113.9 , 10.2.2.2"}, "203.0.113.9"},
		{"two headers", "127.0.0.1", []string{"1.1.1.1", "203.0.113.9", "10.2.2.2"}, "203.0.113.9"},
		{"proxies all the way", "127.0.0.1", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		{"masked by the prefix", "192.0.2.1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"mapped", "::ffff:10.1.1.1", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"mapped network", "198.51.100.7", []string{"203.0.113.9"}, "203.0.113.9"},
		{"mapped address", "198.18.0.1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"IPv6", "fd00::1", []string{"2001:db8::9"}, "2001:db8::9"},
		{"with ports", "fd00::1", []string{"[2001:db8::9]:1234, 10.0.0.1:80"}, "2001:db8::9"},
		{"in brackets", "fd00::1", []string{"[2001:db8::9]"}, "2001:db8::9"},
		{"unreadable", "10.1.1.1", []string{"203.0.113.9, unknown"}, "10.1.1.1"},
		{"empty", "10.1.1.1", []string{""}, "10.1.1.1"},
		{"endless", "10.1.1.1", []string{"203.0.113.9" + strings.Repeat(",10.0.0.1", 5000)}, "10.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := n.Client(netip.MustParseAddr(tt.peer), tt.forwarded); got != netip.MustParseAddr(tt.want) {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func TestParseRefusesWhatIsNoNetwork(t *testing.T) {
	for _, bad := range []string{"", "10.0.0.0/33", "localhost", "10.0.0"} {
		if n, err := Parse([]string{bad}); err == nil {
			t.Errorf("%q: got %v", bad, n)
		}
	}
}

// v2 makes a header of version 2.
func v2(command, family byte, addresses, extensions []byte) string {
	b := append([]byte(signature), 0x20|command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)+len(extensions)))
	return string(append(append(b, addresses...), extensions...))
}

var (
	four = []byte{203, 0, 113, 9, 127, 0, 0, 1, 0x1f, 0x90, 0, 80}
	six  = append(append(netip.MustParseAddr("2001:db8::9").AsSlice(), netip.IPv6Loopback().AsSlice()...), 0x1f, 0x90, 0, 80)
)

func headers() map[string]string {
	return map[string]string{ // header -> client's address, "" for none
		"PROXY TCP4 203.0.113.9 127.0.0.1 8080 80\r\n":                              "203.0.113.9:8080",
		"PROXY TCP6 2001:db8::9 ::1 8080 80\r\n":                                    "[2001:db8::9]:8080",
		"PROXY TCP6 ::ffff:203.0.113.9 ::1 8080 80\r\n":                             "203.0.113.9:8080",
		"PROXY UNKNOWN\r\n":                                                         "",
		"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n":             "",
		v2(1, tcp4, four, nil):                                                      "203.0.113.9:8080",
		v2(1, tcp4, four, bytes.Repeat([]byte{4, 0, 5, 1, 2, 3, 4, 5}, 100)):        "203.0.113.9:8080",
		v2(1, tcp6, six, nil):                                                       "[2001:db8::9]:8080",
		v2(0, tcp4, four, nil):                                                      "",
		v2(0, 0, nil, nil):                                                          "",
		v2(1, 0x31, bytes.Repeat([]byte("/sock"), 40), bytes.Repeat([]byte{0}, 16)): "",
	}
}

func TestReadHeader(t *testing.T) {
	for header, want := range headers() {
		r := strings.NewReader(header + "GET / HTTP/1.1\r\n")
		got, err := ReadHeader(r)
		if err != nil {
			t.Errorf("%q: %v", header, err)
			continue
		}
		if rest, _ := io.ReadAll(r); string(rest) != "GET / HTTP/1.1\r\n" {
			t.Errorf("%q: left %q", header, rest)
		}
		if (want == "") != !got.IsValid() || got.IsValid() && got.String() != want {
			t.Errorf("%q: got %v, want %s", header, got, want)
		}
	}
}

func TestReadHeaderRefuses(t *testing.T) {
	for name, bad := range map[string]string{
		"HTTP":               "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"TLS":                "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("r", 32),
		"JSON":               `{"type":"hello","guest":"ann"}` + "\n",
		"cut short":          "PROXY TCP4 203.0.1",
		"nothing":            "",
		"endless line":       "PROXY TCP4 " + strings.Repeat("1", 200),
		"another family":     "PROXY UDP4 203.0.113.9 127.0.0.1 8080 80\r\n",
		"family and address": "PROXY TCP4 2001:db8::9 ::1 8080 80\r\n",
		"a zone":             "PROXY TCP6 fe80::1%eth0 ::1 8080 80\r\n",
		"no port":            "PROXY TCP4 203.0.113.9 127.0.0.1 80 \r\n"[:37] + "x 80\r\n",
		"port above":         "PROXY TCP4 203.0.113.9 127.0.0.1 65536 80\r\n",
		"bare LF":            "PROXY TCP4 203.0.113.9 127.0.0.1 8080 80\n" + strings.Repeat("x", 100),
		"version 3":          signature + "\x31\x11\x00\x0c" + string(four),
		"command 2":          signature + "\x22\x11\x00\x0c" + string(four),
		"too long":           signature + "\x21\x11\xff\xff" + strings.Repeat("x", 1<<16),
		"short addresses":    v2(1, tcp4, four[:11], nil),
		"cut in addresses":   v2(1, tcp6, six, nil)[:20],
		"cut in the head":    signature + "\x21\x11\x00",
	} {
		if got, err := ReadHeader(strings.NewReader(bad)); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
	if _, err := ReadHeader(strings.NewReader("GET / HTTP/1.1\r\n")); !errors.Is(err, ErrNoHeader) {
		t.Errorf("got %v, want %v", err, ErrNoHeader)
	}
}

// FuzzReadHeader holds the reader to its bounds: it ends, takes no more than
// they allow, and gives an address or none.
func FuzzReadHeader(f *testing.F) {
	for header := range headers() {
		f.Add([]byte(header + "tail"))
	}
	f.Add([]byte("PROXY TCP4 " + strings.Repeat("1", 200)))
	f.Add([]byte(signature + "\x21\x11\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		addr, err := ReadHeader(r)
		if took := len(b) - r.Len(); took > len(signature)+4+maxExtension {
			t.Errorf("took %d bytes", took)
		}
		if err == nil && addr.IsValid() && addr.Addr().Is4In6() {
			t.Errorf("got %v, want it unmapped", addr)
		}
	})
}
