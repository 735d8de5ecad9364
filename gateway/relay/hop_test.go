package relay

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sealpost/gateway"
)

// fault is what a scripted hop does at its stage.
type fault string

const (
	works    fault = ""
	replies4 fault = "450 4.2.0 remote words for <CaseInbox@x-1a2b3c.case.salesforce.test>"
	replies5 fault = "550-5.1.1 remote words: no such address caseinbox@x-1a2b\r\n550 5.1.1 3c.case.salesforce.test"
	closes   fault = "close"
	hangs    fault = "hang"
	drips    fault = "drip"
	floods   fault = "flood"
)

// scriptedHop is a mail server that fails at one stage of the dialogue.
type scriptedHop struct {
	at       stage
	fault    fault
	offers   []string // besides 8BITMIME
	noEHLO   bool
	listen   string          // 127.0.0.1:0
	hold     <-chan struct{} // the final reply waits for it
	hangUp   bool            // after each mail, without a word
	tls      *tls.Config     // from the beginning of the connection
	sevenBit bool            // 8BITMIME is not offered
	login    string          // reply to AUTH, after one challenge when it is AUTH LOGIN
	release  chan struct{}   // closed at the end of the test

	mu       sync.Mutex
	mails    []string // those whose final dot came
	commands []string
	conns    []net.Conn
	group    sync.WaitGroup
}

func (h *scriptedHop) start(t *testing.T) gateway.NextHop {
	t.Helper()
	l, err := net.Listen("tcp", cmp.Or(h.listen, "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	h.release = make(chan struct{})
	h.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns = append(h.conns, c)
			h.mu.Unlock()
			if h.tls != nil {
				c = tls.Server(c, h.tls)
			}
			h.group.Go(func() {
				defer func() { _ = c.Close() }()
				h.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		close(h.release)
		h.mu.Lock()
		for _, c := range h.conns {
			_ = c.Close()
		}
		h.mu.Unlock()
		h.group.Wait()
	})
	return hopOf(l.Addr().String())
}

func hopOf(address string) gateway.NextHop {
	a := netip.MustParseAddrPort(address)
	return gateway.NextHop{Host: a.Addr().String(), Port: a.Port()}
}

func (h *scriptedHop) serve(c net.Conn) {
	r := bufio.NewReader(c)
	if !h.step(c, r, stageGreeting, "220 hop.test") {
		return
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		h.note(strings.TrimSpace(line))
		ok := true
		switch verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " "); verb {
		case "EHLO":
			if h.noEHLO {
				ok = say(c, "502 5.5.1 what?")
				break
			}
			offers := append([]string{"hop.test", "8bitmime"}, h.offers...)
			if h.sevenBit {
				offers = slices.Delete(offers, 1, 2)
			}
			last := len(offers) - 1
			greeting := ""
			for _, o := range offers[:last] {
				greeting += "250-" + o + "\r\n"
			}
			ok = h.step(c, r, stageHello, greeting+"250 "+offers[last])
		case "HELO":
			ok = h.step(c, r, stageHello, "250 hop.test")
		case "STARTTLS":
			ok = h.step(c, r, stageTLS, "220 go on")
			if ok && h.at == stageTLS && h.fault == works {
				_, _ = c.Write([]byte("this is no TLS\r\n"))
				return
			}
		case "MAIL":
			ok = h.step(c, r, stageMail, "250 ok")
		case "RCPT":
			ok = h.step(c, r, stageRcpt, "250 ok")
		case "DATA":
			if ok = h.step(c, r, stageData, "354 go on"); ok && (h.at != stageData || h.fault == works) {
				ok = h.data(c, r)
			}
		case "RSET":
			ok = say(c, "250 ok")
		case "AUTH":
			if strings.HasPrefix(strings.ToUpper(line), "AUTH LOGIN") && say(c, "334 UGFzc3dvcmQ6") {
				answer, _ := r.ReadString('\n')
				h.note(strings.TrimSpace(answer))
			}
			ok = say(c, h.login)
		case "QUIT":
			say(c, "221 bye")
			return
		}
		if !ok {
			return
		}
	}
}

// data reads a mail and answers it.
func (h *scriptedHop) data(c net.Conn, r *bufio.Reader) bool {
	if h.at == stageBody {
		_, _ = r.ReadString('\n')
		if h.fault == replies4 || h.fault == replies5 {
			say(c, string(h.fault))
			return false
		}
		return h.step(c, r, stageBody, "")
	}
	var mail bytes.Buffer
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		mail.WriteString(strings.TrimPrefix(line, "."))
	}
	if h.at != stageFinal || h.fault == closes || h.fault == hangs {
		h.mu.Lock()
		h.mails = append(h.mails, mail.String())
		h.mu.Unlock()
	}
	if h.hold != nil {
		<-h.hold
	}
	return h.step(c, r, stageFinal, "250 2.0.0 taken") && !h.hangUp
}

// step answers a command, or commits the fault of its stage; false ends the connection.
func (h *scriptedHop) step(c net.Conn, r *bufio.Reader, at stage, answer string) bool {
	if h.at != at || h.fault == works {
		return say(c, answer)
	}
	switch h.fault {
	case closes:
		return false
	case hangs:
		if at != stageBody { // reading on would take the mail
			_, _ = r.ReadString(0)
		} else {
			<-h.release
		}
		return false
	case drips:
		for say1(c, "2") == nil && say1(c, "5") == nil && say1(c, "0-x\r\n") == nil {
			time.Sleep(time.Millisecond) // the pace of the tarpit
		}
		return false
	case floods:
		for say1(c, strings.Repeat("250-more\r\n", 1000)) == nil {
			continue
		}
		return false
	}
	return say(c, string(h.fault))
}

func say(c net.Conn, line string) bool { return say1(c, line+"\r\n") == nil }

func say1(c net.Conn, s string) error {
	_, err := c.Write([]byte(s))
	return err
}

func (h *scriptedHop) note(command string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commands = append(h.commands, command)
}

// dialed returns the number of connections.
func (h *scriptedHop) dialed() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

// took returns the mails whose final dot came.
func (h *scriptedHop) took() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.mails)
}

func (h *scriptedHop) heard() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.commands)
}

// checkNoGoroutine fails if one that a relay started still runs.
func checkNoGoroutine(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for g := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(g, "relay.(*Relay)") || strings.Contains(g, "relay.(*pool)") || strings.Contains(g, "relay.(*session)") {
			t.Errorf("a goroutine is left:\n%s", g)
		}
	}
}

// certificate makes a self-signed certificate for 127.0.0.1 and a pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
