#!/usr/bin/env bash
# Makes sure that the mail servers which `make bench-peers` compares Sealpost with are there, beside what needs.sh brings:
# installs them where that can be done (root on Debian), else says what is missing and fails. The bench starts instances
# of its own, so that nothing of the system's configuration counts; neither does it matter whether a service runs.
set -euo pipefail

declare -A packages=(
    [postfix]=postfix [mimedefang]=mimedefang [mimedefang-multiplexor]=mimedefang
)
export PATH="$PATH:/usr/sbin:/sbin"

missing=()
for command in "${!packages[@]}"; do
    command -v "$command" >/dev/null || missing+=("${packages[$command]}")
done
if [ "${#missing[@]}" -eq 0 ]; then
    exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing for the comparison: ${missing[*]} (on Debian, as root: apt-get install ${missing[*]})" >&2
    exit 1
fi
echo "installing for the comparison: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
