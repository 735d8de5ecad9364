#!/bin/sh
# Builds the portal's pages into web/dist, from where the Go package embeds them.
set -eu
cd "$(dirname "$0")"

# Prints the checksum of what node_modules was installed from.
lock() { sha256sum package-lock.json; }

if [ "$(cat node_modules/.sealpost-lock 2>/dev/null)" != "$(lock)" ]; then
	npm ci --no-audit --no-fund
	# Some npm packages hold Go files: a module of its own keeps them out of go's ./...
	echo 'module ignored' >node_modules/go.mod
	lock >node_modules/.sealpost-lock
fi

rm -rf web/dist
mkdir -p web/dist
# The names hold a hash of the content; meta.json tells the server which output is which.
go tool esbuild src/link.ts src/portal.ts src/portal.css src/icon.svg \
	--bundle --minify --charset=utf8 --format=iife --target=es2022 --loader:.svg=copy --platform=browser \
	--legal-comments=linked --entry-names='[name]-[hash]' --outdir=web/dist \
	--metafile=web/dist/meta.json --log-level=warning
