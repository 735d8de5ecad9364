package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script: what a user types, and what they see.
func TestScripts(t *testing.T) {
	for _, needed := range []string{"swaks", "curl"} {
		if _, err := exec.LookPath(needed); err != nil {
			t.Fatalf("%v; apt-get install %s", err, needed)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("SMTP", freeAddress(t))
			env.Setenv("PORTAL", freeAddress(t))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv(recoveryVariable, "recovery-passphrase")
			env.Setenv("PATH", env.Getenv("PATH")+":"+os.Getenv("PATH"))
			return nil
		},
	})
}
