# `make help` lists the targets. Go 1.26 and Node 20 are needed; `make test` also installs Debian's test servers.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
UI := gateway/portal/ui
FUZZTIME := 30s

.PHONY: help build ui demo test needs unit lint lint-go lint-shell lint-ui fuzz bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ui ## build bin/sealpost, the portal's pages included
	@mkdir -p bin
	go build -trimpath -o bin/sealpost ./cmd/sealpost

ui: ## build the portal's pages
	@$(UI)/build.sh

demo: build ## start everything on loopback, with a sample mail sent through it; Ctrl-C ends it
	@bin/sealpost demo

test: needs ui unit lint ## everything that must hold

needs: ## install or name what the tests need
	@testdata/scripts/needs.sh

unit: ## the Go tests
	go test -timeout 15m ./...

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
	go test -run '^$$' -bench . -benchtime 1x -timeout 60m ./cmd/sealpost

clean: ## remove what was built
	rm -rf bin $(UI)/web/dist $(UI)/node_modules
