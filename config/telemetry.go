package config

import (
	"errors"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

func (t Telemetry) check(ps *problems) {
	if t.OTLPEndpoint != "" {
		t.checkEndpoint(ps)
	}
	within(ps, "telemetry.sample_ratio", t.SampleRatio, 0, 1)
	required(ps, "telemetry.service_name", t.ServiceName, "name the service as traces are to show it, such as parley")
	if _, err := ParseHeaders(t.OTLPHeaders); err != nil {
		ps.add("telemetry.otlp_headers", err.Error(), "write it like authorization=Bearer TOKEN, with commas between several; "+
			"%2C is a comma in a value, %25 a percent sign")
	}
}

func (t Telemetry) checkEndpoint(ps *problems) {
	const key, form = "telemetry.otlp_endpoint", "write the collector's base URL like http://127.0.0.1:4318"
	u, err := url.Parse(t.OTLPEndpoint)
	switch {
	case err != nil || !isWebURL(t.OTLPEndpoint):
		ps.add(key, "is not an http or https URL", form)
	case u.User != nil:
		ps.add(key, "holds credentials, which are not sent", "give them as telemetry.otlp_headers")
	case u.RawQuery != "" || u.Fragment != "":
		ps.add(key, "has a query or a fragment, which are not sent", form)
	}
}

// ParseHeaders reads HTTP headers from text: name=value, with commas between several, and values percent-encoded where
// they have to be, as OTEL_EXPORTER_OTLP_HEADERS has it. The error quotes nothing of the text.
func ParseHeaders(text string) (map[string]string, error) {
	headers := make(map[string]string)
	if strings.TrimSpace(text) == "" {
		return headers, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		name, encoded, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		if !ok || !httpguts.ValidHeaderFieldName(name) {
			return nil, errors.New("holds what is not name=value")
		}
		value, err := url.PathUnescape(strings.TrimSpace(encoded))
		if err != nil || value == "" || !httpguts.ValidHeaderFieldValue(value) {
			return nil, errors.New("holds a value that is not one of a header")
		}
		headers[name] = value
	}
	return headers, nil
}
