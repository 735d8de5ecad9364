#!/bin/sh
# Makes what compose.yaml wants beside it: passwords in secrets/, and recovery/, where `init` leaves the private recovery
# key. Nothing is ever overwritten. As root, since the gateway's user (65532) must be able to write into recovery/.
set -eu
cd "$(dirname "$0")"

if [ -e secrets ]; then
	echo 'secrets/ exists already, and nothing is overwritten' >&2
	exit 1
fi
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# The files must be readable by the users in the containers; the directory keeps everybody else out.
install -d -m 0700 secrets
install -d -m 0700 -o 65532 -g 65532 recovery
password="$(random)" access="$(random)" secret="$(random)"
printf '%s\n' "$password" >secrets/postgres-password
printf '*:*:*:sealpost:%s\n' "$password" >secrets/pgpass
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$access" "$secret" >secrets/s3-credentials
printf 'ROOT_ACCESS_KEY_ID=%s\nROOT_SECRET_ACCESS_KEY=%s\n' "$access" "$secret" >secrets/s3-server.env
chmod 0644 secrets/postgres-password secrets/pgpass secrets/s3-credentials
chmod 0600 secrets/s3-server.env
