package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts the test binary on PATH under the names of commands, so that scripts and tests run real
// processes: sealpost itself, and one that kills itself at a point of a mail's way.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sealpost": main, "sealpost-crash": crashMain})
}
