package mongotest

import (
	"net"
	"net/url"
	"strings"

	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"
)

const defaultPort = "27017"

// upstream is the database that proxies stand before.
type upstream struct {
	uri  string
	addr string        // host:port; empty: no proxy can stand before it
	url  *url.URL      // the uri, where there is an addr
	turn chan struct{} // holds one element while a command runs; nil: commands may run at the same time
}

// parseUpstream reads a connection string. A proxy needs a single host, and to see what is said.
func parseUpstream(uri string) (upstream, error) {
	up := upstream{uri: uri}
	if strings.HasPrefix(uri, connstring.SchemeMongoDBSRV+"://") {
		return up, nil // to read more of it would be to ask the DNS
	}
	parsed, err := connstring.ParseAndValidate(uri)
	if err != nil {
		return upstream{}, err
	}
	if len(parsed.Hosts) != 1 || parsed.SSL || parsed.LoadBalanced || strings.HasSuffix(parsed.Hosts[0], ".sock") {
		return up, nil
	}
	up.addr = parsed.Hosts[0]
	if _, _, err := net.SplitHostPort(up.addr); err != nil {
		up.addr = net.JoinHostPort(strings.Trim(up.addr, "[]"), defaultPort)
	}
	up.url, err = url.Parse(uri)
	return up, err
}

// uriAt is the upstream's URI with another address, to which a client connects without asking what else is there. What
// it sends is not compressed, so that the proxy can read it.
func (u upstream) uriAt(addr string) string {
	there := *u.url
	there.Host = addr
	if there.Path == "" {
		there.Path = "/"
	}
	query := there.Query()
	for name := range query {
		if strings.EqualFold(name, "directConnection") || strings.EqualFold(name, "compressors") {
			query.Del(name)
		}
	}
	query.Set("directConnection", "true")
	there.RawQuery = query.Encode()
	return there.String()
}
