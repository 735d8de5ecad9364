#!/bin/sh
# Stops the gateway before its program goes. An upgrade restarts it afterwards instead.
set -e

if [ "$1" = remove ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
	deb-systemd-invoke stop sealpost.service
	systemctl --no-reload disable sealpost.service
fi
