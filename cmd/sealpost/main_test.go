package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts the test binary on PATH under the names of commands, so that scripts and tests run real
// processes: sealpost itself, and those that kill themselves at a point of a mail's way, or of a move's.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sealpost": main, "sealpost-crash": crashMain, "sealpost-move-crash": moveCrashMain})
}
