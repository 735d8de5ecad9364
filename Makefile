# `make help` lists the targets. Go 1.26 and Node 20 are needed; `make test` also installs Debian's test servers.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
NFPM := go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
UI := gateway/portal/ui
FUZZTIME := 30s
FAULTS_FOR := 10m
FLAGS :=

.PHONY: help build ui demo test needs unit test-faults lint lint-go lint-shell lint-ui fuzz bench bench-peers bench-growth package package-test clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

build: ui ## build bin/sealpost, the portal's pages included
	@mkdir -p bin
	go build -trimpath -o bin/sealpost ./cmd/sealpost

ui: ## build the portal's pages
	@$(UI)/build.sh

demo: build ## start everything on loopback, with a sample mail sent through it; Ctrl-C ends it
	@bin/sealpost demo

test: needs ui unit lint package-test ## everything that must hold

needs: ## install or name what the tests need
	@testdata/scripts/needs.sh

unit: ## the Go tests
	go test -timeout 15m ./...

test-faults: ui ## each fault of database, bucket and next hop for 50 s, and nodes killed for FAULTS_FOR (10m); as root on Debian
	@testdata/scripts/needs.sh
	go test -run '^Test((Database|Bucket|Hop)Faults|FullDiskOfTheDatabase|Nodes)$$' -v -parallel 5 -timeout 2h ./cmd/sealpost -faults.for $(FAULTS_FOR)

lint: lint-go lint-shell lint-ui ## format, vet, staticcheck, linters, tidy, shellcheck, eslint, tsc

lint-go:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'not formatted:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go mod tidy -diff
	$(GOLANGCI_LINT) run ./...

lint-shell:
	shellcheck .ci/run $$(git ls-files '*.sh')

lint-ui: ui
	npm --prefix $(UI) run --silent lint

fuzz: ## every fuzz target for FUZZTIME (30s)
	@for package in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do
		for target in $$(grep -ho '^func Fuzz[A-Za-z]*' $$package/*_test.go | cut -d' ' -f2); do
			echo "$$package $$target"
			go test $$package -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME)
		done
	done

bench: build ## memory and speed of one gateway, as a table
	go test -run '^$$' -bench . -skip '^Benchmark(Peers|Growth)$$' -benchtime 1x -timeout 60m ./cmd/sealpost

bench-peers: build ## Sealpost beside Postfix and MIMEDefang, one table; as root on Debian; FLAGS='-peers.connections 1,10,50' and others
	@testdata/scripts/needs-peers.sh
	go test -run '^$$' -bench '^BenchmarkPeers$$' -benchtime 1x -timeout 4h ./cmd/sealpost $(FLAGS)

bench-growth: build ## how cost grows with packages in the database, with nodes, with the size of a file; FLAGS likewise
	go test -run '^$$' -bench '^BenchmarkGrowth$$' -benchtime 1x -timeout 4h ./cmd/sealpost $(FLAGS)

package: ui ## build the Debian package, dist/sealpost_VERSION_ARCH.deb
	@rm -rf dist && mkdir dist
	CGO_ENABLED=0 go build -trimpath -buildvcs=auto -ldflags '-s -w' -o dist/sealpost ./cmd/sealpost
	# v1.2.3 is 1.2.3; what lies before it, as Go counts (v1.2.3-0.DATE-COMMIT), sorts before it: 1.2.3~0.DATE.COMMIT.
	version="$$(go version -m dist/sealpost | awk '$$1 == "mod" { print $$3 }' | sed 's/^v//; s/^(devel)$$/0.0.0-devel/; s/-/~/; s/-/./g')"
	VERSION="$$version" ARCH="$$(go env GOARCH)" $(NFPM) package --config deploy/nfpm.yaml --packager deb --target dist/

package-test: package ## look into the package, install it under a directory and set up a gateway with it; as root on Debian
	deploy/package-test.sh dist/*.deb

clean: ## remove what was built
	rm -rf bin dist $(UI)/web/dist $(UI)/node_modules
