// Package clamdtest starts a real clamd with a signature of its own, for the tests of several packages.
package clamdtest

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Signature is the name under which the daemon finds Virus.
const Signature = "Sealpost.Test"

// StreamMax is the daemon's StreamMaxLength in bytes.
const StreamMax = 1 << 20

// ScanMax is how many bytes the daemon looks at, archives unpacked; beyond that it says so.
const ScanMax = 4 << 20

// Virus returns the harmless text that the daemon takes for a virus.
func Virus() []byte { return []byte("SEALPOST-HARMLESS-TEST-SIGNATURE-7f3a91c2d4") }

// Daemon is a running clamd.
type Daemon struct {
	// Address is in the form that clamd.Options takes.
	Address string
	cmd     *exec.Cmd
	done    chan struct{}
}

// Start runs a clamd until the test ends and returns its address.
func Start(t testing.TB) string {
	t.Helper()
	return StartDaemon(t).Address
}

// StartDaemon is Start for a test that wants to kill the daemon.
func StartDaemon(t testing.TB) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "clamd") // t.TempDir may be too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	socket := filepath.Join(dir, "s")
	config := fmt.Sprintf("LocalSocket %s\nDatabaseDirectory %s\nForeground true\nUser root\nStreamMaxLength %d\nMaxFileSize %d\nMaxScanSize %d\nAlertExceedsMax yes\nLogTime no\nSelfCheck 0\n", socket, dir, StreamMax, ScanMax, ScanMax)
	write(t, filepath.Join(dir, "test.ndb"), Signature+":0:*:"+hex.EncodeToString(Virus())+"\n")
	write(t, filepath.Join(dir, "clamd.conf"), config)
	return run(t, filepath.Join(dir, "clamd.conf"), socket)
}

func run(t testing.TB, config, socket string) *Daemon {
	t.Helper()
	path, err := exec.LookPath("clamd")
	if err != nil {
		path = "/usr/sbin/clamd"
	}
	cmd := exec.CommandContext(context.Background(), path, "--config-file="+config) // #nosec G204 -- a program of the test's own
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatalf("start clamd (Debian: apt-get install clamav-daemon): %v", err)
	}
	d := &Daemon{Address: "unix:" + socket, cmd: cmd, done: make(chan struct{})}
	ready := make(chan string, 1)
	go func() {
		defer close(d.done)
		var said strings.Builder
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "Self checking") || strings.Contains(lines.Text(), "Listening daemon") {
				select {
				case ready <- "":
				default:
				}
			}
		}
		_ = cmd.Wait() // it was killed
		select {
		case ready <- said.String():
		default:
		}
	}()
	t.Cleanup(d.Kill)
	if said := <-ready; said != "" {
		t.Fatalf("clamd ended: %s", said)
	}
	return d
}

// Kill ends the daemon at once and waits for its end.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill() // it may have ended
	<-d.done
}

func write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
