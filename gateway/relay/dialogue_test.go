package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/sfclient/sftest"
)

const smallMail = "From: a@example.com\r\nSubject: x\r\n\r\n.dots\r\n..\r\n.\r\nend\r\n"

// short returns time-outs that are short for one stage only, so that a slow machine changes no result.
func short(at stage) Timeouts {
	const soon = 50 * time.Millisecond
	switch at {
	case stageGreeting:
		return Timeouts{Greeting: soon}
	case stageHello:
		return Timeouts{Hello: soon}
	case stageMail:
		return Timeouts{Mail: soon}
	case stageRcpt:
		return Timeouts{Rcpt: soon}
	case stageData:
		return Timeouts{Data: soon}
	case stageBody:
		return Timeouts{Block: soon}
	case stageFinal:
		return Timeouts{Final: soon}
	}
	return Timeouts{}
}

// TestEveryFaultAtEveryStage is the promise that nothing is lost: no fault of a next hop ends a delivery
// but a plain 5xx about the mail, and a mail is only sent again where it may not have been taken.
func TestEveryFaultAtEveryStage(t *testing.T) {
	const deferred, rejected = gateway.EventDeferred, gateway.EventRejected
	stages := []stage{stageGreeting, stageHello, stageMail, stageRcpt, stageData, stageBody, stageFinal}
	for _, at := range stages {
		for _, fault := range []fault{replies4, replies5, closes, hangs, drips, floods} {
			if at == stageBody && (fault == drips || fault == floods) {
				continue // nobody reads replies then
			}
			t.Run(string(at)+"/"+strings.Fields(string(fault))[0], func(t *testing.T) {
				hop := &scriptedHop{at: at, fault: fault}
				mail := smallMail
				if at == stageBody {
					mail += strings.Repeat(strings.Repeat("x", 70)+"\r\n", 400_000) // more than sockets hold
				}
				opts := Options{}
				if fault == hangs || fault == drips {
					opts.Timeouts = short(at)
				}
				got := attemptOnce(t, opts, mail, hop.start(t))

				event, code, copies := deferred, 0, 0
				switch fault {
				case replies4:
					code = 450
				case replies5:
					code, event = 550, rejected
					if at == stageGreeting {
						event = deferred
					}
				case closes, hangs:
					if at == stageFinal {
						copies = 1 // taken, but the reply was lost
					}
				}
				if got.Event != event || got.Code != code || len(hop.took()) != copies {
					t.Errorf("got %s, code %d, %d copies taken; want %s, %d, %d (reply %q)",
						got.Event, got.Code, len(hop.took()), event, code, copies, got.Reply.Reveal())
				}
			})
		}
	}
}

func TestMailArrivesUnchanged(t *testing.T) {
	for name, mail := range map[string]string{
		"dots":     smallMail,
		"eight":    "Subject: \xff\r\n\r\n\xc3\xa4\r\n",
		"one line": "x\r\n",
		"long":     "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("y", 998)+"\r\n.\r\n", 2000),
	} {
		t.Run(name, func(t *testing.T) {
			org, err := sftest.Start(t.Context(), sftest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got := attemptOnce(t, Options{}, mail, hopOf(org.Addr()))
			mails := org.Mails()
			if got.Event != gateway.EventAccepted || got.Code != 250 || got.state != gateway.Sent || len(mails) != 1 {
				t.Fatalf("got %+v, %d mails", got.Attempt, len(mails))
			}
			m := mails[0]
			if string(m.Raw) != mail {
				t.Error("the mail was changed on its way")
			}
			if m.From != sender || !slices.Equal(m.To, []string{forwardTo}) || m.Hello != "mx.example.com" || m.TLS {
				t.Errorf("envelope: %q -> %q, hello %q, TLS %v", m.From, m.To, m.Hello, m.TLS)
			}
			if err := org.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAlteredCopyIsNeverFinished is the promise that a cut or altered copy never becomes a shorter mail.
func TestAlteredCopyIsNeverFinished(t *testing.T) {
	broken := errors.New("authentication failed")
	big := strings.Repeat("line\r\n", 50_000)
	for name, c := range map[string]struct {
		open func() (io.ReadCloser, error)
		size int
	}{
		"altered at once":  {failing("", broken), 100},
		"altered in midst": {failing(big, broken), len(big) + 100},
		"altered at end":   {failing(smallMail, broken), len(smallMail)},
		"too short":        {text(smallMail), len(smallMail) + 1},
		"too long":         {text(smallMail), len(smallMail) - 1},
		"not there":        {func() (io.ReadCloser, error) { return nil, broken }, 100},
	} {
		t.Run(name, func(t *testing.T) {
			hop := &scriptedHop{}
			d := newDelivery(1, c.size)
			r := run(t, Options{}, newQueue(d), fakeCopies{d.Mail: c.open}, hop.start(t))
			got := r.result(t)
			r.end(t)
			if got.Event != gateway.EventDeferred || len(hop.took()) != 0 {
				t.Errorf("got %s, and %d mails were taken", got.Event, len(hop.took()))
			}
			if slices.Contains(hop.heard(), "QUIT") {
				t.Error("QUIT was sent into the mail")
			}
			if !strings.Contains(r.log.String(), "level=ERROR") {
				t.Error("no error was logged")
			}
		})
	}
}

func failing(text string, err error) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(text), failingReader{err})), nil
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func TestNextHopThatCannotTakeTheMail(t *testing.T) {
	eight := func(m *gateway.QueuedMail) { m.EightBit = true }
	utf8 := func(m *gateway.QueuedMail) { m.UTF8 = true }
	for name, c := range map[string]struct {
		org   sftest.Options
		mail  func(*gateway.QueuedMail)
		reply string // of a rejection
		sent  func(sftest.Mail) bool
	}{
		"no 8BITMIME, needed": {sftest.Options{Without8BITMIME: true}, eight, "5.6.3 next hop lacks 8BITMIME", nil},
		"no 8BITMIME, not needed": {sftest.Options{Without8BITMIME: true}, func(*gateway.QueuedMail) {}, "",
			func(m sftest.Mail) bool { return !m.EightBit }},
		"8BITMIME": {sftest.Options{}, eight, "", func(m sftest.Mail) bool { return m.EightBit && !m.UTF8 }},
		"no SMTPUTF8, needed": {sftest.Options{WithoutSMTPUTF8: true}, utf8,
			"5.6.7 next hop lacks SMTPUTF8", nil},
		"no SMTPUTF8, needed by the sender": {sftest.Options{WithoutSMTPUTF8: true},
			func(m *gateway.QueuedMail) { m.MailFrom = gateway.NewSecret("kündin@example.com") },
			"5.6.7 next hop lacks SMTPUTF8", nil},
		"SMTPUTF8": {sftest.Options{}, utf8, "", func(m sftest.Mail) bool { return m.UTF8 }},
		"SIZE too small": {sftest.Options{MaxSize: 10}, func(*gateway.QueuedMail) {},
			"5.3.4 next hop takes at most 10 bytes, the mail has 54", nil},
		"sender with a line break": {sftest.Options{},
			func(m *gateway.QueuedMail) { m.MailFrom = gateway.NewSecret("a@b.c>\r\nRSET") },
			"5.1.3 an address of the envelope cannot be written in SMTP", nil},
		"null sender": {sftest.Options{},
			func(m *gateway.QueuedMail) { m.MailFrom = gateway.NewSecret("") }, "",
			func(m sftest.Mail) bool { return m.From == "" }},
	} {
		t.Run(name, func(t *testing.T) {
			org, err := sftest.Start(t.Context(), c.org)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = org.Close() }()
			d := newDelivery(1, len(smallMail))
			c.mail(&d.Copy)
			got := run(t, Options{}, newQueue(d), fakeCopies{d.Mail: text(smallMail)}, hopOf(org.Addr())).result(t)
			mails := org.Mails()
			switch {
			case c.reply != "":
				if got.state != gateway.Dead || got.Reply.Reveal() != c.reply || len(mails) != 0 {
					t.Errorf("got %s with %q, %d mails", got.state, got.Reply.Reveal(), len(mails))
				}
			case got.state != gateway.Sent || len(mails) != 1 || !c.sent(mails[0]):
				t.Errorf("got %s with %q, %d mails", got.state, got.Reply.Reveal(), len(mails))
			}
		})
	}
}

func TestSTARTTLS(t *testing.T) {
	cert, pool := certificate(t)
	good := &tls.Config{Certificates: []tls.Certificate{cert}}
	const opportunistic, required, verified = gateway.TLSOpportunistic, gateway.TLSRequire, gateway.TLSVerify
	for name, c := range map[string]struct {
		hop      func(*testing.T) (gateway.NextHop, func() int)
		roots    bool
		mode     gateway.TLSMode
		accepted bool
		tls      bool
	}{
		"offered":                     {orgHop(good), false, opportunistic, true, true},
		"offered, required":           {orgHop(good), false, required, true, true},
		"offered, verified":           {orgHop(good), true, verified, true, true},
		"verified, not trusted":       {orgHop(good), false, verified, false, false},
		"required, not offered":       {orgHop(nil), true, required, false, false},
		"verified, not offered":       {orgHop(nil), true, verified, false, false},
		"not offered":                 {orgHop(nil), false, opportunistic, true, false},
		"broken":                      {brokenTLS(works), false, opportunistic, true, false},
		"broken, required":            {brokenTLS(works), false, required, false, false},
		"broken, verified":            {brokenTLS(works), false, verified, false, false},
		"refused for now":             {brokenTLS(replies4), false, opportunistic, true, false},
		"refused for good":            {brokenTLS(replies5), false, opportunistic, true, false},
		"refused for good, required":  {brokenTLS(replies5), true, required, false, false},
		"connection closed":           {brokenTLS(closes), false, opportunistic, true, false},
		"connection closed, required": {brokenTLS(closes), true, required, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			hop, taken := c.hop(t)
			hop.TLS = c.mode
			opts := Options{TLS: &tls.Config{MinVersion: tls.VersionTLS12}}
			if c.roots {
				opts.TLS.RootCAs = pool
			}
			got := attemptOnce(t, opts, smallMail, hop)
			want, copies := gateway.EventDeferred, 0
			if c.accepted {
				want, copies = gateway.EventAccepted, 1
			}
			if got.Event != want || taken() != copies || strings.HasPrefix(got.TLS, "TLS1.3 TLS_") != c.tls {
				t.Errorf("got %s over %q, %d mails, reply %q", got.Event, got.TLS, taken(), got.Reply.Reveal())
			}
		})
	}
}

func orgHop(config *tls.Config) func(*testing.T) (gateway.NextHop, func() int) {
	return func(t *testing.T) (gateway.NextHop, func() int) {
		org, err := sftest.Start(t.Context(), sftest.Options{TLS: config})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = org.Close() })
		return hopOf(org.Addr()), func() int {
			n := 0
			for _, m := range org.Mails() {
				if m.TLS == (config != nil) {
					n++
				}
			}
			return n
		}
	}
}

func brokenTLS(f fault) func(*testing.T) (gateway.NextHop, func() int) {
	return func(t *testing.T) (gateway.NextHop, func() int) {
		hop := &scriptedHop{at: stageTLS, fault: f, offers: []string{"STARTTLS"}}
		return hop.start(t), func() int { return len(hop.took()) }
	}
}

func TestFallsBackToHELO(t *testing.T) {
	hop := &scriptedHop{noEHLO: true}
	got := attemptOnce(t, Options{}, smallMail, hop.start(t))
	if got.Event != gateway.EventAccepted || !slices.Contains(hop.heard(), "HELO mx.example.com") {
		t.Errorf("got %s after %q", got.Event, hop.heard())
	}
}

func TestParametersAreOnlyThoseThatAreNeeded(t *testing.T) {
	hop := &scriptedHop{offers: []string{"Size 1000", "SMTPUTF8"}}
	r := run(t, Options{}, newQueue(newDelivery(1, len(smallMail))), fakeCopies{{1}: text(smallMail)}, hop.start(t))
	r.result(t)
	r.end(t)
	want := []string{"EHLO mx.example.com", "MAIL FROM:<" + sender + "> SIZE=54", "RCPT TO:<" + forwardTo + ">", "DATA", "QUIT"}
	if got := hop.heard(); !slices.Equal(got, want) {
		t.Errorf("said %q, want %q", got, want)
	}
}

func TestUnreachableHopAndMissingRoute(t *testing.T) {
	// The port of an open connection is taken, and nobody listens on it.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	refusing := hopOf(c.LocalAddr().String())
	if got := attemptOnce(t, Options{}, smallMail, refusing); got.Event != gateway.EventDeferred || got.Hop != c.LocalAddr().String() {
		t.Errorf("refused connection: got %v", got.Attempt)
	}
	gone := Options{Route: func(string) (gateway.Route, bool) { return gateway.Route{}, false }}
	got := attemptOnce(t, gone, smallMail, refusing)
	if got.Event != gateway.EventDeferred || got.Reply.Reveal() != "route is no longer configured" {
		t.Errorf("missing route: got %s, %q", got.Event, got.Reply.Reveal())
	}
	if got := attemptOnce(t, Options{}, smallMail, gateway.NextHop{}); got.Event != gateway.EventDeferred {
		t.Errorf("route without a hop: got %s", got.Event)
	}
}

func TestPath(t *testing.T) {
	for address, want := range map[string]string{
		"":                     "<>",
		"a.b@example.com":      "<a.b@example.com>",
		"a b@example.com":      `<"a b"@example.com>`,
		`"a b"@example.com`:    `<"a b"@example.com>`,
		`a"b\@example.com`:     `<"a\"b\\"@example.com>`,
		"a@b@example.com":      `<"a@b"@example.com>`,
		"a@[192.0.2.1]":        "<a@[192.0.2.1]>",
		"kündin@example.com":   "<kündin@example.com>",
		"postmaster":           "<postmaster>",
		"a@b> SIZE=1":          "",
		"a\r\nDATA@x":          "",
		"\xff@example.com":     "",
		`"a" <x>"@example.com`: `<"\"a\" <x>\""@example.com>`,
	} {
		got, ok := path(address)
		if got != want || ok != (want != "") {
			t.Errorf("path(%q) = %q, %v, want %q", address, got, ok, want)
		}
	}
}
