# The commands of everyday work. CI calls .ci/run, which does all of this and more.
.PHONY: run test check fmt lint race

run: ## the main job: a chat page with nothing configured
	go run ./cmd/parley dev

test:
	go test ./...

check: fmt vet lint race

fmt:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these"; exit 1; }

.PHONY: vet
vet:
	go vet ./...

# Built from source at a pinned version: no binary to trust, the same everywhere.
GOLANGCI_LINT = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

lint:
	$(GOLANGCI_LINT) run ./...

race:
	go test -race ./...

.PHONY: soak
soak: ## the server is killed a thousand times; some minutes
	PARLEY_TEST_KILLS=1000 go test -v -timeout 60m -run TestKillLosesNothing ./acceptance

.PHONY: live
live: ## asks the real endpoints whose keys are in the environment; see docs/PROVIDERS.md
	PARLEY_TEST_LIVE=1 go test -count=1 -v ./internal/llm/live
