package config_test

import (
	"strings"
	"testing"

	"sealpost/gateway/config"
)

// TestRelayRootsAreRelativeToTheFile: as all paths are.
func TestRelayRootsAreRelativeToTheFile(t *testing.T) {
	text := strings.Replace(written(t), "#relay:\n", "relay:\n  roots: ca.pem\n", 1)
	c, err := config.Parse("/etc/sealpost/sealpost.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if c.Relay.Roots != "/etc/sealpost/ca.pem" || c.Relay.Workers != 100 {
		t.Errorf("got %+v", c.Relay)
	}
}
