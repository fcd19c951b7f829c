package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/parley-chat/parley/config"
)

// healthTimeout bounds a question whether the server is ready.
const healthTimeout = 3 * time.Second

// checkHealth asks the running server whether it is ready, and says what is not. A health check has no secrets, and
// needs none: of the configuration, which may lack them, it takes the operations address. loaded is what loading it
// came to.
func checkHealth(ctx context.Context, cfg config.Config, loaded error) error {
	for _, p := range config.Problems(loaded) {
		if p.Key == config.FileFlag || p.Key == "server" || p.Key == operationsAddr {
			return errors.New(p.Error()) // no problem of the configuration any more, but a server that cannot be asked
		}
	}
	addr, err := loopback(cfg.Server.OperationsAddr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	return askReady(ctx, "http://"+addr+"/readyz")
}

const operationsAddr = "server.operations_addr"

// loopback gives the address at which a listener of this machine can be asked.
func loopback(addr string) (string, error) {
	if addr == "" {
		return "", errors.New(operationsAddr + ` is "": the server has no operations listener that could be asked`)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%s: %w", operationsAddr, err)
	}
	if port == "0" {
		return "", errors.New(operationsAddr + " has port 0: which one the server listens on is not known")
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1" // a listener on all addresses of IPv6 takes those of IPv4, too
	}
	return net.JoinHostPort(host, port), nil
}

func askReady(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy, whatever the environment says
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("the server cannot be asked: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", notReady(response.Status, body))
	}
	return nil
}

// notReady gives what an answer of /readyz says is wrong.
func notReady(status string, body []byte) string {
	var parts map[string]any
	if err := json.Unmarshal(body, &parts); err != nil {
		return status
	}
	var wrong []string
	for part, state := range parts {
		if part != "status" && state != "ok" && state != "no" {
			wrong = append(wrong, fmt.Sprintf("%s: %v", part, state))
		}
	}
	if len(wrong) == 0 {
		return status
	}
	slices.Sort(wrong)
	return strings.Join(wrong, ", ")
}
