package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"sealpost/sfclient/sftest"
)

const (
	mebibyte     = 1 << 20
	deliverLimit = 10 * time.Minute
)

// buildSealpost builds the binary as `make build` does, since the test binary is larger.
func buildSealpost(b *testing.B) string {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "sealpost")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", binary, ".").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// benchNode starts the binary as a process of its own, with the default configuration but for the largest mail.
func benchNode(b *testing.B, binary string, org *sftest.Org) *node {
	b.Helper()
	n := install(b, filepath.Join(b.TempDir(), "sealpost"), org.Addr())
	text, err := os.ReadFile(n.config())
	if err != nil {
		b.Fatal(err)
	}
	larger := bytes.Replace(text, []byte("#max_message_size: 150MB"), []byte("max_message_size: 300MB"), 1)
	if bytes.Equal(text, larger) {
		b.Fatal("the configuration has no line for max_message_size")
	}
	if err := os.WriteFile(n.config(), larger, 0o600); err != nil {
		b.Fatal(err)
	}
	n.start(b, binary)
	return n
}

// mailAround makes a mail with an attachment of random bytes. It has no line that begins with a dot, so it
// can be sent as it is.
func mailAround(attachment int) []byte {
	return mailWith("bench", "See the file.", randomBytes(attachment))
}

// mailOf makes a mail of about size bytes.
func mailOf(size int) []byte {
	const overhead = 500 // header, text and boundaries
	return mailAround((size - overhead) / 78 * 57)
}

// sendRaw sends the mail again and again over one connection, while next says so. It writes the prepared
// bytes in one piece, so that the client costs next to nothing.
func sendRaw(address string, mail []byte, next func() bool) error {
	conn, err := textproto.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, _, err := conn.ReadResponse(220); err != nil {
		return err
	}
	say := func(want int, text []byte) error {
		if _, err := conn.W.Write(text); err != nil {
			return err
		}
		if err := conn.W.Flush(); err != nil {
			return err
		}
		_, _, err := conn.ReadResponse(want)
		return err
	}
	if err := say(250, []byte("EHLO client.example\r\n")); err != nil {
		return err
	}
	for next() {
		for _, step := range []struct {
			want int
			text []byte
		}{
			{250, []byte("MAIL FROM:<jane@customer.example>\r\n")}, {250, []byte("RCPT TO:<" + testRoute + ">\r\n")},
			{354, []byte("DATA\r\n")}, {250, mail},
		} {
			if err := say(step.want, step.text); err != nil {
				return err
			}
		}
	}
	return say(221, []byte("QUIT\r\n"))
}

// memoryOf reads a line of the process's status in MiB: VmHWM is the highest resident memory so far.
func memoryOf(b *testing.B, n *node, key string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			kibibytes, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			if err != nil {
				b.Fatal(err)
			}
			return float64(kibibytes) / 1024
		}
	}
	b.Fatalf("no %s in the process's status", key)
	return 0
}

// waitDelivered waits until the org has so many mails and the gateway knows it.
func waitDelivered(b *testing.B, n *node, org *sftest.Org, count int) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), deliverLimit)
	defer cancel()
	if mails, err := org.Wait(ctx, count); err != nil {
		b.Fatalf("%d of %d mails were delivered: %v\n%s", len(mails), count, err, lastLines(n.logs.String()))
	}
}

func lastLines(text string) string {
	return text[max(0, len(text)-4000):]
}

// BenchmarkThroughput sends mails of one size over several connections at once through the real binary, with
// everything durable as in production, to an org that only counts. mails/s and MB/s (10^6 bytes of mail) are up
// to the last 250; s-delivered is the time until the org had all.
func BenchmarkThroughput(b *testing.B) {
	binary := buildSealpost(b)
	for _, c := range []struct {
		name  string
		size  int
		count map[int]int // by connections
	}{
		{"5KiB", 5 << 10, map[int]int{1: 2000, 10: 2000, 50: 2000}},
		{"100KiB", 100 << 10, map[int]int{1: 500, 10: 1000, 50: 1000}},
		{"10MiB", 10 * mebibyte, map[int]int{1: 20, 10: 50, 50: 100}},
		{"100MiB", 100 * mebibyte, map[int]int{1: 3, 10: 10, 50: 50}},
	} {
		mail := append(mailOf(c.size), ".\r\n"...)
		for _, connections := range []int{1, 10, 50} {
			b.Run(fmt.Sprintf("size=%s/connections=%d", c.name, connections), func(b *testing.B) {
				benchmarkThroughput(b, binary, mail, connections, c.count[connections])
			})
		}
	}
}

func benchmarkThroughput(b *testing.B, binary string, mail []byte, connections, count int) {
	needRoom(b, 3*int64(len(mail))*int64(count))
	org := startOrg(b, sftest.Options{Mode: sftest.Sink})
	n := benchNode(b, binary, org)
	var sent atomic.Int64
	next := func() bool { return sent.Add(1) <= int64(count) }

	began := time.Now()
	var group errgroup.Group
	for range connections {
		group.Go(func() error { return sendRaw(n.smtp, mail, next) })
	}
	if err := group.Wait(); err != nil {
		b.Fatalf("send: %v\n%s", err, lastLines(n.logs.String()))
	}
	accepted := time.Since(began).Seconds()
	waitDelivered(b, n, org, count)
	delivered := time.Since(began).Seconds()

	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(count), "mails")
	b.ReportMetric(float64(count)/accepted, "mails/s")
	b.ReportMetric(float64(count)*float64(len(mail))/accepted/1e6, "MB/s")
	b.ReportMetric(accepted, "s-accepted")
	b.ReportMetric(delivered, "s-delivered")
	b.ReportMetric(memoryOf(b, n, "VmHWM"), "MiB-peak")
}

// needRoom leaves a case out, and says so, where the disk is too small for it.
func needRoom(b *testing.B, need int64) {
	b.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(os.TempDir(), &fs); err != nil {
		b.Fatal(err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < need {
		b.Skipf("left out: it needs %d MiB in %s, and %d MiB are free", need/mebibyte, os.TempDir(), free/mebibyte)
	}
}

// BenchmarkPeakMemory sends one mail with an attachment of the given size to a fresh process, and waits
// until it is delivered. MiB-peak is the process's VmHWM after that, MiB-idle before. The goal: at most 96 MiB
// with 100 MiB, and no growth from 10 to 150 MiB.
func BenchmarkPeakMemory(b *testing.B) {
	binary := buildSealpost(b)
	for _, size := range []int{10, 100, 150} {
		b.Run(fmt.Sprintf("size=%dMiB", size), func(b *testing.B) {
			mail := append(mailAround(size*mebibyte), ".\r\n"...)
			org := startOrg(b, sftest.Options{Mode: sftest.Sink})
			n := benchNode(b, binary, org)
			idle := memoryOf(b, n, "VmHWM")
			once := true
			if err := sendRaw(n.smtp, mail, func() bool { defer func() { once = false }(); return once }); err != nil {
				b.Fatal(errors.Join(err, errors.New(lastLines(n.logs.String()))))
			}
			waitDelivered(b, n, org, 1)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(idle, "MiB-idle")
			b.ReportMetric(memoryOf(b, n, "VmHWM"), "MiB-peak")
		})
	}
}
