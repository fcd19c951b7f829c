package main

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunServesUntilItsInputEnds(t *testing.T) {
	stdin, closeStdin := io.Pipe()
	stdout, printed := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run([]string{"-addr", ":0"}, stdin, printed, io.Discard) }()

	baseURL, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	baseURL = strings.TrimSpace(baseURL)
	if !strings.HasPrefix(baseURL, "http://127.0.0.1:") {
		t.Errorf("printed %q", baseURL)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	body := strings.NewReader(`{"model":"words-3","messages":[]}`)
	response, err := client.Post(baseURL+"/chat/completions", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if answer, err := io.ReadAll(response.Body); err != nil || !strings.HasSuffix(string(answer), "[DONE]\n\n") {
		t.Errorf("got %q, %v", answer, err)
	}

	closeStdin.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := client.Get(baseURL); err == nil {
		t.Error("it still serves")
	}
}

func TestRunRefusesABadAddress(t *testing.T) {
	for _, args := range [][]string{{"-addr", "nowhere"}, {"-port", "1"}} {
		if err := run(args, strings.NewReader(""), io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
