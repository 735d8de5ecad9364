package clamd

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/clamd/clamdtest"
)

func client(t *testing.T, address string) *Client {
	t.Helper()
	c, err := New(Options{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mailWith(file []byte) string {
	return "From: a@example.com\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: application/octet-stream\r\n" +
		"Content-Disposition: attachment; filename=f.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		base64.StdEncoding.EncodeToString(file) + "\r\n--b--\r\n"
}

func TestRealDaemon(t *testing.T) {
	d := clamdtest.StartDaemon(t)
	c := client(t, d.Address)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, mail string
		want       gateway.ScanVerdict
	}{
		{"clean", mailWith([]byte("nothing to see")), gateway.ScanClean},
		{"infected", mailWith(clamdtest.Virus()), gateway.ScanInfected},
		{"beyond the limits inside", mailWith(bomb(t)), gateway.ScanUnscanned},
		{"too large", strings.Repeat("x", 8*clamdtest.StreamMax), gateway.ScanUnscanned},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := c.Scan(t.Context(), strings.NewReader(tc.mail), int64(len(tc.mail)))
			if err != nil || got.Verdict != tc.want {
				t.Fatalf("got %+v, %v; want %s", got, err, tc.want)
			}
			if got.Verdict == gateway.ScanInfected && !strings.HasPrefix(got.Signature, clamdtest.Signature) {
				t.Errorf("signature %q", got.Signature)
			}
		})
	}
	d.Kill()
	if got, err := c.Scan(t.Context(), strings.NewReader("x"), 1); err == nil {
		t.Errorf("a killed scanner said %+v", got)
	}
	if err := c.Ping(t.Context()); err == nil {
		t.Error("a killed scanner answers")
	}
}

// listen accepts connections and hands each to f.
func listen(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "tcp:" + l.Addr().String()
}

func TestUnknownReplyIsNeverClean(t *testing.T) {
	for _, reply := range []string{"", "\x00", "OK\x00", "stream: OK", "stream: \x00", "FOUND\x00", "stream: OK FINE\x00",
		"stream: x ERROR\x00", "INSTREAM: OK\x00", strings.Repeat("x", 1<<16) + "\x00"} {
		address := listen(t, func(conn net.Conn) {
			_, _ = io.CopyN(io.Discard, conn, int64(len("zINSTREAM\x00")+4+4+4))
			_, _ = io.WriteString(conn, reply)
		})
		if got, err := client(t, address).Scan(t.Context(), strings.NewReader("mail"), 4); err == nil {
			t.Errorf("reply %.20q: %+v", reply, got)
		}
	}
}

func TestSilentScannerEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address := listen(t, func(conn net.Conn) {
		_, _ = io.CopyN(io.Discard, conn, 10)
		cancel()
		_, _ = io.Copy(io.Discard, conn)
	})
	if _, err := client(t, address).Scan(ctx, strings.NewReader("mail"), 4); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSilentScannerTimesOut(t *testing.T) {
	address := listen(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	c := client(t, address)
	c.timeout = 50 * time.Millisecond
	if err := c.Ping(t.Context()); !errors.Is(err, errTooSlow) {
		t.Errorf("got %v", err)
	}
	if got, err := c.Scan(t.Context(), strings.NewReader("mail"), 4); !errors.Is(err, errTooSlow) {
		t.Errorf("a scanner that answers nobody said %+v, %v", got, err)
	}
}

// TestSlowMailIsUnscanned: one mail that takes the scanner too long is not taken for the scanner's absence.
func TestSlowMailIsUnscanned(t *testing.T) {
	address := listen(t, func(conn net.Conn) {
		command := make([]byte, len("zPING\x00"))
		if _, err := io.ReadFull(conn, command); err == nil && string(command) == "zPING\x00" {
			_, _ = io.WriteString(conn, "PONG\x00")
			return
		}
		_, _ = io.Copy(io.Discard, conn)
	})
	c := client(t, address)
	c.timeout = 50 * time.Millisecond
	if got, err := c.Scan(t.Context(), strings.NewReader("mail"), 4); err != nil || got.Verdict != gateway.ScanUnscanned {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	c, err := New(Options{Address: "tcp:127.0.0.1:1", MaxConnections: 1, Timeout: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	c.slots <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Scan(ctx, strings.NewReader("mail"), 4); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "wait") {
		t.Errorf("a second connection: %v", err)
	}
	c.wait = time.Millisecond
	if _, err := c.Scan(t.Context(), strings.NewReader("mail"), 4); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("a second connection, later: %v", err)
	}
}

// bomb is an archive that is small, and larger than the scanner's limits inside; the virus comes last.
func bomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	archive := zip.NewWriter(&b)
	files := [][]byte{make([]byte, clamdtest.ScanMax/2), make([]byte, clamdtest.ScanMax/2+1), make([]byte, clamdtest.ScanMax/2+2), clamdtest.Virus()}
	for i, content := range files {
		w, err := archive.Create(strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCutMailIsNoVerdict(t *testing.T) {
	var sent bytes.Buffer
	if got := stream(&sent, strings.NewReader("abc"), 4); got.source == nil {
		t.Error("a mail that is shorter than it should be was sent as whole")
	}
}

func TestSignatureIsPrintableAndBounded(t *testing.T) {
	got, err := verdict("stream: a\r\nb" + strings.Repeat("é", 300) + " FOUND")
	if err != nil || got.Verdict != gateway.ScanInfected || len(got.Signature) != maxSignature || strings.ContainsAny(got.Signature, "\r\n") {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAddress(t *testing.T) {
	for _, a := range []string{"", "unix:", "udp:127.0.0.1:1", "/run/clamd"} {
		if _, err := New(Options{Address: a}); err == nil {
			t.Errorf("%q accepted", a)
		}
	}
}
