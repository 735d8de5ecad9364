#!/bin/sh
# Checks the portal's TypeScript once it is built: types, lint, and the tests that need no browser.
set -eu
cd "$(dirname "$0")"

npx --no-install tsc --noEmit
npx --no-install eslint .
rm -rf test
go tool esbuild src/*.test.ts \
	--bundle --format=esm --target=node20 --platform=node --outdir=test --out-extension:.js=.mjs --log-level=warning
node --test test
