package smtpd

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSlowLoris: who sends one octet at a time is ended by the deadline of the whole, however alive it seems.
func TestSlowLoris(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Options)
		begin  string
		before string
		octet  string
	}{
		"command": {func(o *Options) { o.Limits.CommandIdle = 150 * time.Millisecond }, "NOOP ", "", "x"},
		"data":    {func(o *Options) { o.Limits.DataTotal = 150 * time.Millisecond }, "DATA\r\n", data354[2:], "x"},
		"chunk":   {func(o *Options) { o.Limits.DataTotal = 150 * time.Millisecond }, "BDAT 100000 LAST\r\n", "", "x"},
		"chunks":  {func(o *Options) { o.Limits.DataTotal = 150 * time.Millisecond }, "BDAT 1\r\nx", "250 2.0.0 continue", "N"},
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, tt.change)
			c := ts.ready(t)
			c.send(tt.begin)
			if tt.before != "" {
				c.expect(tt.before)
			}
			over := make(chan struct{})
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-over:
						return
					case <-tick.C:
						_, _ = c.Write([]byte(tt.octet)) // fails once the server has closed
					}
				}
			}()
			c.expect("421 4.4.2 mx.test timed out waiting for you; closing")
			close(over)
			<-sent
			ts.stop(t)
			if n := len(ts.taken()); n != 0 {
				t.Errorf("%d mails", n)
			}
		})
	}
}

// TestIdleConnections: 2,000 idle connections cost little memory each, mail goes on beside them, and the
// one that is too many is told so.
func TestIdleConnections(t *testing.T) {
	const idle, most = 2000, 64 << 10 // octets for both ends of one, in one process here
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if need := uint64(2*idle + 200); files.Cur < need {
		files.Cur, files.Max = need, max(files.Max, need)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
			t.Fatalf("this test needs %d open files: %v", need, err)
		}
	}
	ts := startServer(t, func(o *Options) { o.Limits.Connections = idle + 1 })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	conns := make([]net.Conn, 0, idle)
	buffer := make([]byte, len(greeting)+2)
	for range idle {
		nc, err := net.Dial("tcp", ts.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		if _, err := nc.Read(buffer); err != nil || !strings.HasPrefix(greeting, string(buffer[:10])) {
			t.Fatalf("greeting %q: %v", buffer, err)
		}
		conns = append(conns, nc)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	heap, stacks := int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(after.StackInuse)-int64(before.StackInuse)
	each := (heap + stacks) / idle
	t.Logf("an idle connection costs %d octets, both ends together", each)
	if each > most {
		t.Errorf("that is more than %d", most)
	}
	c := ts.ready(t)
	c.talk("> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1")
	ts.dial(t, "421 4.7.0 mx.test too many connections; try again later").closed()
	for i, nc := range conns {
		if _, err := fmt.Fprint(nc, "QUIT\r\n"); err != nil {
			t.Fatalf("connection %d was ended: %v", i, err)
		}
	}
	runtime.KeepAlive(conns)
}

// TestRelaysKeepPlaces: strangers cannot take the places of the mail servers in front of us.
func TestRelaysKeepPlaces(t *testing.T) {
	relay := netip.MustParsePrefix("127.0.0.2/32")
	ts := startServer(t, func(o *Options) {
		o.Limits.Connections = 10
		o.TrustedRelays = []netip.Prefix{relay}
	})
	for range 9 {
		ts.dial(t, greeting)
	}
	ts.dial(t, "421 4.7.0 mx.test too many connections; try again later").closed()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: relay.Addr().AsSlice()}}
	nc, err := dialer.Dial("tcp", ts.address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if line, err := bufio.NewReader(nc).ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
		t.Errorf("a trusted relay got %q, %v", line, err)
	}
}
