#!/bin/sh
# Makes the user and the two directories, and restarts a gateway that runs. What the directories hold is left alone.
set -e

if [ "$1" = configure ]; then
	systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} sealpost.conf
	systemd-tmpfiles ${DPKG_ROOT:+--root="$DPKG_ROOT"} --create sealpost.conf
	if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload
		if systemctl --quiet is-active sealpost.service; then
			deb-systemd-invoke restart sealpost.service ||
				echo 'sealpost.service was not restarted: see journalctl -u sealpost' >&2
		fi
	fi
fi
