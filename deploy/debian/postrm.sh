#!/bin/sh
# The user, /etc/sealpost and /var/lib/sealpost stay, even after a purge: they hold mail and the keys to it.
set -e

if [ "$1" = remove ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload
fi
