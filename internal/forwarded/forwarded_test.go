package forwarded_test

import (
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/parley-chat/parley/internal/forwarded"
)

var proxies = forwarded.Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

func TestClient(t *testing.T) {
	for name, c := range map[string]struct {
		remote string
		header []string
		want   string
	}{
		"no proxy":                         {"192.0.2.1:1234", nil, "192.0.2.1"},
		"IPv6":                             {"[2001:db8::1]:1234", nil, "2001:db8::1"},
		"IPv4 in IPv6":                     {"[::ffff:192.0.2.1]:1234", nil, "192.0.2.1"},
		"a stranger's word":                {"192.0.2.1:1234", []string{"198.51.100.7"}, "192.0.2.1"},
		"a proxy's word":                   {"10.1.2.3:1", []string{"198.51.100.7"}, "198.51.100.7"},
		"a proxy that says nothing":        {"10.1.2.3:1", nil, "10.1.2.3"},
		"what the client claims first":     {"10.1.2.3:1", []string{"127.0.0.1, 198.51.100.7"}, "198.51.100.7"},
		"two proxies":                      {"10.1.2.3:1", []string{"127.0.0.1, 198.51.100.7, 10.9.9.9"}, "198.51.100.7"},
		"two lines":                        {"10.1.2.3:1", []string{"127.0.0.1", "198.51.100.7"}, "198.51.100.7"},
		"with a port":                      {"10.1.2.3:1", []string{"198.51.100.7:5555"}, "198.51.100.7"},
		"IPv6, in brackets, with a port":   {"[fd00::1]:1", []string{"[2001:db8::7]:5555"}, "2001:db8::7"},
		"nonsense at the end":              {"10.1.2.3:1", []string{"198.51.100.7, unknown"}, "10.1.2.3"},
		"nonsense before":                  {"10.1.2.3:1", []string{"unknown, 198.51.100.7"}, "198.51.100.7"},
		"all of them proxies":              {"10.1.2.3:1", []string{"10.7.7.7, 10.8.8.8"}, "10.7.7.7"},
		"a mapped address is the same one": {"[::ffff:10.1.2.3]:1", []string{"198.51.100.7"}, "198.51.100.7"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr, r.Header["X-Forwarded-For"] = c.remote, c.header
		if got := proxies.Client(r); got != netip.MustParseAddr(c.want) {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "@" // a socket of the file system
	if got := proxies.Client(r); got.IsValid() {
		t.Errorf("who has no address has got %s", got)
	}
}

func TestNetworkIsASubscriber(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "64:ff9b::192.0.2.1": "64:ff9b::c000:201/128", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:db8:1:2::ffff": "2001:db8:1:2::/64",
	} {
		if got := forwarded.Network(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
	if got := forwarded.Network(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("the zero address: got %s", got)
	}
}
