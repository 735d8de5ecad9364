#!/usr/bin/env bash
# Makes sure that what the tests run against is there: installs it where that can be done (root on Debian), else says
# what is missing and fails.
set -euo pipefail

declare -A packages=(
    [swaks]=swaks [smtp-source]=postfix [postfix]=postfix [chromium]=chromium [shellcheck]=shellcheck [curl]=curl
    [clamd]=clamav-daemon [openssl]=openssl [ytnef]=ytnef-tools [uuencode]=sharutils
)
export PATH="$PATH:/usr/sbin:/sbin"

missing=()
for command in "${!packages[@]}"; do
    command -v "$command" >/dev/null || missing+=("${packages[$command]}")
done
# The server's programs are in no PATH.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
if [ "${#missing[@]}" -gt 0 ]; then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing for the tests: ${missing[*]} (on Debian, as root: apt-get install ${missing[*]})" >&2
        exit 1
    fi
    echo "installing for the tests: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! node -e 'process.exit(+process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null; then
    echo 'missing for the tests: Node 20 or newer with npm' >&2
    exit 1
fi

# Haraka, which the tests put behind Sealpost, is installed again whenever its lock file has changed.
haraka="$(dirname "$0")/../../cmd/sealpost/testdata/haraka"
lock="$(sha256sum <"$haraka/package-lock.json")"
if [ "$(cat "$haraka/node_modules/.sealpost-lock" 2>/dev/null)" != "$lock" ]; then
    npm --prefix "$haraka" ci --no-audit --no-fund --omit=optional --loglevel=error
    echo "$lock" >"$haraka/node_modules/.sealpost-lock"
fi
