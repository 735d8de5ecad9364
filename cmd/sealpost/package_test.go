package main

import (
	"os"
	"regexp"
	"testing"
	"time"

	"sealpost/gateway/config"
)

// TestServiceManagersWaitForTheDrain holds that neither systemd nor a container engine kills a gateway that is still
// finishing transactions and attempts, and then closing its stores.
func TestServiceManagersWaitForTheDrain(t *testing.T) {
	for file, setting := range map[string]string{
		"../../deploy/systemd/sealpost.service": `(?m)^TimeoutStopSec=(\S+)$`,
		"../../deploy/container/compose.yaml":   `(?m)^  stop_grace_period: (\S+)$`,
	} {
		text, err := os.ReadFile(file) // #nosec G304 -- a file of the source
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(setting).FindAllSubmatch(text, -1)
		if len(found) != 1 {
			t.Errorf("%s: %d times %s", file, len(found), setting)
			continue
		}
		wait, err := time.ParseDuration(string(found[0][1]))
		if err != nil || wait < 2*stopGrace {
			t.Errorf("%s: waits %s (%v), and a stop may take %s and a little", file, found[0][1], err, stopGrace)
		}
	}
}

// TestContainerConfigurationIsOneOfOurs holds that the configuration of the composed nodes is one that `serve` takes,
// and that it shares everything but the spool.
func TestContainerConfigurationIsOneOfOurs(t *testing.T) {
	cfg, err := config.Load("../../deploy/container/nodes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Database == config.DatabaseSQLite || cfg.Blobs == config.BlobsDir {
		t.Errorf("database %s, blobs %s: a node would keep them to itself", cfg.Database, cfg.Blobs)
	}
}
