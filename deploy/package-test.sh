#!/usr/bin/env bash
# Looks into the Debian package named as the argument, installs it under a directory of its own, and sets up a gateway
# with what was installed. Nothing of this machine changes. Needs Debian, as root.
set -euo pipefail

package="$(realpath "$1")"
cd "$(dirname "$0")"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
root="$scratch/root"
# Only this way in: an environment of the caller's would change what `init` asks for.
export SEALPOST_RECOVERY_PASSPHRASE=recovery-passphrase

say() { printf 'package-test: %s\n' "$*"; }
fail() {
    say "FAILED: $*" >&2
    exit 1
}

# The fields and files that users rely on.
dpkg-deb -I "$package" >"$scratch/info"
dpkg-deb -c "$package" >"$scratch/files"
for field in 'Package: sealpost' 'Version: [0-9]' 'Architecture: [a-z]' 'Maintainer: .*@'; do
    grep -q "^ $field" "$scratch/info" || fail "no field '$field'"
done
for file in usr/bin/sealpost usr/lib/systemd/system/sealpost.service usr/lib/sysusers.d/sealpost.conf \
    usr/lib/tmpfiles.d/sealpost.conf usr/share/doc/sealpost/{README.md,CHANGELOG.md,deploy/README.md,deploy/guides/postfix.md}; do
    grep -qE "^-rw(xr-xr-x|-r--r--) root/root .* \./$file\$" "$scratch/files" || fail "no $file, or not as it should be"
done
if grep -qE '\./(etc|var)/.' "$scratch/files"; then
    fail 'the package owns files in /etc or /var, which its removal would take away'
fi
say 'fields and files: ok'

if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error,warning "$package" || fail 'lintian'
    say 'lintian: ok'
fi

# dpkg itself installs it, scripts included, into a root that holds just its database and the system's users.
mkdir -p "$root"/{etc,var/lib/dpkg/{info,updates}}
touch "$root/var/lib/dpkg/status"
printf 'root:x:0:0::/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
run_dpkg() { dpkg --root="$root" --force-depends --force-script-chrootless --log="$scratch/log" "$@" &>"$scratch/said" || fail "dpkg $1: $(cat "$scratch/said")"; }
run_dpkg --install "$package"
grep -q '^sealpost:' "$root/etc/passwd" || fail 'the user was not made'
user="$(awk -F: '$1 == "sealpost" { print $3 }' "$root/etc/passwd")"
group="$(awk -F: '$1 == "sealpost" { print $3 }' "$root/etc/group")"
state() { stat -c '%a %u %g' "$root$1"; }
[ "$(state /var/lib/sealpost)" = "700 $user $group" ] || fail "/var/lib/sealpost: $(state /var/lib/sealpost)"
[ "$(state /etc/sealpost)" = "770 0 $group" ] || fail "/etc/sealpost: $(state /etc/sealpost)"
[ "$(readlink "$root/etc/sealpost/data")" = /var/lib/sealpost ] || fail '/etc/sealpost/data does not lead to /var/lib/sealpost'
say 'install: ok'

# What was installed runs, and `init` makes a configuration that its own `serve` and `check` would take.
version="$(awk '$1 == "Version:" { print $2 }' "$scratch/info")"
said="$("$root/usr/bin/sealpost" version)"
say "version: package $version, program says: $said"
case "$said" in
"sealpost "*) ;;
*) fail 'sealpost version' ;;
esac
ln -sfn "$root/var/lib/sealpost" "$root/etc/sealpost/data" # the link as seen from outside the root
"$root/usr/bin/sealpost" init "$root/etc/sealpost" --recovery-out "$scratch/recovery.asc" \
    --route support@example.com=support@x-1a2b3c.case.salesforce.com --hostname mx.example.com >/dev/null
[ -s "$root/var/lib/sealpost/recovery-state.json" ] || fail 'the data are not in /var/lib/sealpost'
SEALPOST_PASSWORD='a long pass phrase' "$root/usr/bin/sealpost" agent add agent@example.com --config "$root/etc/sealpost/sealpost.yaml" >/dev/null
"$root/usr/bin/sealpost" agent list --config "$root/etc/sealpost/sealpost.yaml" | grep -q agent@example.com || fail 'agent list'
say 'init, agent: ok'

# The unit that was installed.
unit="$root/usr/lib/systemd/system/sealpost.service"
if command -v systemd-analyze >/dev/null; then
    sed "s,ExecStart=/usr/bin,ExecStart=$root/usr/bin," "$unit" >"$scratch/sealpost.service"
    complaints="$(systemd-analyze verify "$scratch/sealpost.service" 2>&1)" || fail "systemd-analyze verify: $complaints"
    [ -z "$complaints" ] || fail "systemd-analyze verify: $complaints"
    systemd-analyze security --offline=true --threshold=20 --no-pager "$scratch/sealpost.service" | tail -1 || fail 'the unit is exposed more than it was'
    say 'unit: ok'
fi

# Another version, and then removal, even by a purge, leave what was set up.
before="$(find "$root/etc/sealpost" "$root/var/lib/sealpost" -type f -exec sha256sum {} + | sort)"
run_dpkg --install "$package"
run_dpkg --purge sealpost
[ ! -e "$root/usr/bin/sealpost" ] || fail 'purge left the program'
[ "$before" = "$(find "$root/etc/sealpost" "$root/var/lib/sealpost" -type f -exec sha256sum {} + | sort)" ] || fail 'data or keys were touched'
say 'upgrade and purge leave data and keys: ok'
