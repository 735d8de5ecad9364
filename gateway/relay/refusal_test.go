package relay

import (
	"bufio"
	"encoding/base64"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sealpost/gateway"
)

// answers is a hop whose reply to each line f gives, by the number of the connection (from 1) and the verb; "" hangs
// up. The text of a mail is taken with 250.
func answers(t *testing.T, f func(conn int, verb, line string) string) gateway.NextHop {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		open  []net.Conn
	)
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			n := len(open)
			mu.Unlock()
			group.Go(func() {
				defer func() { _ = c.Close() }()
				answer(c, func(verb, line string) string { return f(n, verb, line) })
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return hopOf(l.Addr().String())
}

func answer(c net.Conn, f func(verb, line string) string) {
	r := bufio.NewReader(c)
	for reply := "220 hop.test"; reply != "" && say(c, reply); {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
		reply = f(verb, strings.TrimSpace(line))
		if !strings.HasPrefix(reply, "354") {
			continue
		}
		if !say(c, reply) {
			return
		}
		for line != ".\r\n" {
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
		reply = "250 2.0.0 taken"
	}
}

// usual is what a hop answers that has nothing against us.
func usual(verb string) string {
	switch verb {
	case "DATA":
		return "354 go on"
	case "QUIT":
		return "221 bye"
	}
	return "250 ok"
}

// TestTLSBlipKillsNoMail: a hop that insists on TLS, and whose TLS fails once, is asked again later. What it then says
// in plaintext judges us; RCPT judges the mail again.
func TestTLSBlipKillsNoMail(t *testing.T) {
	for name, c := range map[string]struct {
		starttls, at, reply string
		event               gateway.DeliveryEvent
		code                int
	}{
		"MAIL 530 after a reset":          {"", "MAIL", "530 5.7.0 Must issue a STARTTLS command first", gateway.EventDeferred, 0},
		"MAIL 554 after a reset":          {"", "MAIL", "554 5.7.1 plaintext is not for us", gateway.EventDeferred, 0},
		"HELO 550 after a reset":          {"", "EHLO", "550 5.7.1 plaintext is not for us", gateway.EventDeferred, 0},
		"MAIL 550 after 454":              {"454 4.7.0 TLS not available", "MAIL", "550 5.7.1 use TLS", gateway.EventDeferred, 454},
		"RCPT 550 after a reset":          {"", "RCPT", "550 5.1.1 no such mailbox", gateway.EventRejected, 550},
		"RCPT 530 after a reset":          {"", "RCPT", "530 5.7.0 Must issue a STARTTLS command first", gateway.EventDeferred, 530},
		"MAIL accepted after a reset":     {"", "NONE", "", gateway.EventAccepted, 250},
		"MAIL 530 where none is offered":  {"none", "MAIL", "530 5.7.0 Must issue a STARTTLS command first", gateway.EventDeferred, 530},
		"MAIL 534 where none is offered":  {"none", "MAIL", "534 5.7.9 too weak", gateway.EventDeferred, 534},
		"MAIL 538 where none is offered":  {"none", "MAIL", "538 5.7.11 encryption required", gateway.EventDeferred, 538},
		"MAIL 550 where none is offered":  {"none", "MAIL", "550 5.7.1 sender refused", gateway.EventRejected, 550},
		"final 530 where none is offered": {"none", "DATA", "530 5.7.57 client was not authenticated", gateway.EventDeferred, 530},
	} {
		t.Run(name, func(t *testing.T) {
			hop := answers(t, func(conn int, verb, _ string) string {
				switch {
				case verb == "STARTTLS":
					return c.starttls
				case (verb == c.at || verb == "HELO" && c.at == "EHLO") && (conn > 1 || c.starttls != ""):
					return c.reply
				case verb == "EHLO" && c.starttls != "none":
					return "250-hop.test\r\n250 STARTTLS"
				}
				return usual(verb)
			})
			got := attemptOnce(t, Options{}, smallMail, hop)
			reply := got.Reply.Reveal()
			if got.Event != c.event || got.Code != c.code {
				t.Errorf("got %v, %q", got.Attempt, reply)
			}
			if c.event == gateway.EventDeferred && c.code == 0 && !strings.Contains(reply, "TLS failed") {
				t.Errorf("the reason is %q", reply)
			}
		})
	}
}

// TestSessionWithoutItsTLSIsNotKept: the next mail tries TLS anew.
func TestSessionWithoutItsTLSIsNotKept(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	hop := answers(t, func(_ int, verb, _ string) string {
		switch verb {
		case "EHLO":
			return "250-hop.test\r\n250 STARTTLS"
		case "STARTTLS":
			mu.Lock()
			defer mu.Unlock()
			asked++
			return "454 4.7.0 TLS not available"
		}
		return usual(verb)
	})
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, public, 2)
	r := run(t, Options{Workers: 1}, q, copies, hop)
	for range 2 {
		if got := r.result(t); got.Event != gateway.EventAccepted {
			t.Errorf("got %v", got.Attempt)
		}
	}
	r.end(t)
	if asked != 2 {
		t.Errorf("STARTTLS was said %d times", asked)
	}
}

// TestStaleSessionKillsNoMail: a session that was used before and now refuses every command is replaced; the mail's first
// words on a new one count.
func TestStaleSessionKillsNoMail(t *testing.T) {
	for name, c := range map[string]struct{ first, verb, reply string }{
		"RSET 554":    {"450 4.2.1 busy", "RSET", "554 5.5.1 too many errors"},
		"RSET 421":    {"450 4.2.1 busy", "RSET", "421 4.7.0 too many errors"},
		"RSET 450":    {"450 4.2.1 busy", "RSET", "450 4.7.0 not now"},
		"MAIL 554":    {"250 ok", "MAIL", "554 5.7.0 too many mails"},
		"MAIL 421":    {"250 ok", "MAIL", "421 4.7.0 too many mails"},
		"MAIL hangup": {"250 ok", "MAIL", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			mails := map[int]int{}
			hop := answers(t, func(conn int, verb, _ string) string {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case verb == "MAIL":
					if mails[conn]++; conn == 1 && c.verb == "MAIL" && mails[conn] == 2 {
						return c.reply
					}
				case conn == 1 && verb == "RCPT":
					return c.first
				case verb == c.verb && conn == 1:
					return c.reply
				}
				return usual(verb)
			})
			q, copies := newQueue(), fakeCopies{}
			many(q, copies, public, 2)
			r := run(t, Options{Workers: 1}, q, copies, hop)
			r.result(t)
			if got := r.result(t); got.Event != gateway.EventAccepted {
				t.Errorf("the second mail: %v, %q", got.Attempt, got.Reply.Reveal())
			}
		})
	}
}

// TestMailPutOffOpensNoConnection: a 4xx to MAIL on a session in use is about the mail, or about how often we come.
func TestMailPutOffOpensNoConnection(t *testing.T) {
	var mu sync.Mutex
	mails, conns := 0, 0
	hop := answers(t, func(conn int, verb, _ string) string {
		mu.Lock()
		defer mu.Unlock()
		conns = max(conns, conn)
		if verb == "MAIL" {
			if mails++; mails > 1 {
				return "450 4.2.0 greylisted"
			}
		}
		return usual(verb)
	})
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, public, 2)
	r := run(t, Options{Workers: 1}, q, copies, hop)
	r.result(t)
	if got := r.result(t); got.Event != gateway.EventDeferred || got.Code != 450 {
		t.Errorf("got %v", got.Attempt)
	}
	r.end(t)
	if conns != 1 {
		t.Errorf("%d connections", conns)
	}
}

// TestFreshRefusalCounts: on a new session a 5xx to MAIL is about the mail.
func TestFreshRefusalCounts(t *testing.T) {
	hop := answers(t, func(_ int, verb, _ string) string {
		if verb == "MAIL" {
			return "550 5.7.1 sender refused"
		}
		return usual(verb)
	})
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, public, 2)
	r := run(t, Options{Workers: 1}, q, copies, hop)
	for range 2 {
		if got := r.result(t); got.Event != gateway.EventRejected {
			t.Errorf("got %v", got.Attempt)
		}
	}
}

// TestCredentialsAreNotRecorded: a hop that repeats what logs us in puts it neither into the record nor into a notice,
// and senders are not told at all what it says of us.
func TestCredentialsAreNotRecorded(t *testing.T) {
	const user, password = "relayuser", "s3cret-word"
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	plain := b64("\x00" + user + "\x00" + password)
	for name, c := range map[string]struct{ offers, at, reply string }{
		"PLAIN echoed":         {"AUTH PLAIN", "AUTH", `501 5.5.2 cannot decode "AUTH PLAIN ` + plain + `"`},
		"PLAIN cut":            {"AUTH PLAIN", "AUTH", "501 5.5.2 cannot decode " + plain[:20]},
		"PLAIN over two lines": {"AUTH PLAIN", "AUTH", "501-5.5.2 cannot decode " + plain[:21] + "\r\n501 5.5.2 " + plain[21:]},
		"no padding":           {"AUTH PLAIN", "AUTH", "501 5.5.2 cannot decode " + strings.TrimRight(plain, "=")},
		"LOGIN echoed":         {"AUTH LOGIN", "AUTH", "535 5.7.8 not " + b64(user) + " with " + b64(password)},
		"in words":             {"AUTH PLAIN", "AUTH", "535 5.7.8 wrong password " + password + " for " + strings.ToUpper(user)},
		"after MAIL":           {"AUTH PLAIN", "RCPT", "550 5.7.1 <" + user + "> may not send with " + password + " and " + plain},
		"after DATA":           {"AUTH PLAIN", "DATA", "250 2.0.0 ok " + user + " " + b64(password)},
	} {
		t.Run(name, func(t *testing.T) {
			hop := answers(t, func(_ int, verb, _ string) string {
				switch verb {
				case "EHLO":
					return "250-hop.test\r\n250 " + c.offers
				case c.at:
					return c.reply
				case "AUTH":
					return "235 2.7.0 ok"
				}
				return usual(verb)
			})
			hop.User, hop.Password = user, gateway.NewSecret(password)
			q := newQueue()
			d := newDelivery(1, len(smallMail))
			d.Received, d.Since = q.clock.Add(-5*time.Hour), q.clock.Add(-5*time.Hour)
			q.waiting = append(q.waiting, d)
			r := run(t, Options{Reporter: fakeReporter{}, DelayAfter: 4 * time.Hour}, q, fakeCopies{d.Mail: text(smallMail)}, hop)
			got := r.result(t)
			r.end(t)
			told := ""
			if got.notice != nil {
				told = string(got.notice.Mail.Copy.Inline)
			}
			for _, secret := range []string{user, password, plain[:20], plain[21:], b64(user)[:8], b64(password)[:8]} {
				for where, text := range map[string]string{"record": got.Reply.Reveal(), "notice": told, "log": r.log.String()} {
					if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
						t.Errorf("the %s holds %q: %s", where, secret, text)
					}
				}
			}
			if c.at == "AUTH" && (!strings.Contains(told, "remote=false code=0") || !strings.Contains(told, "could not be spoken to")) {
				t.Errorf("the sender is told %q", told)
			}
		})
	}
}

// TestSenderIsNotToldWhatHopsSayOfUs: neither of the greeting, of EHLO nor of STARTTLS.
func TestSenderIsNotToldWhatHopsSayOfUs(t *testing.T) {
	for _, at := range []stage{stageGreeting, stageHello, stageTLS} {
		d := newDelivery(1, len(smallMail))
		d.Since = newQueue().clock.Add(-6 * 24 * time.Hour)
		hop := &scriptedHop{at: at, fault: replies5, offers: []string{"STARTTLS"}}
		next := hop.start(t)
		next.TLS = gateway.TLSRequire
		r := run(t, Options{Reporter: fakeReporter{}}, newQueue(d), fakeCopies{d.Mail: text(smallMail)}, next)
		got := r.result(t)
		r.end(t)
		if got.notice == nil {
			t.Fatalf("%s: no notice of %v", at, got.Attempt)
		}
		told := string(got.notice.Mail.Copy.Inline)
		if strings.Contains(told, "remote words") || !strings.Contains(told, "remote=false code=0") || got.Code != 550 {
			t.Errorf("%s: recorded %v, told %q", at, got.Attempt, told)
		}
	}
}

// TestCorrectedForwardToCounts: a mail that waits goes to where its route leads by now, and neither address shows.
func TestCorrectedForwardToCounts(t *testing.T) {
	const corrected = "rightbox@x-9z8y7x.case.salesforce.test"
	hop := &scriptedHop{at: stageRcpt, fault: fault("450 4.2.0 not " + corrected + " and not " + forwardTo)}
	next := hop.start(t)
	d := newDelivery(1, len(smallMail))
	route := func(string) (gateway.Route, bool) {
		return gateway.Route{Address: public, ForwardTo: corrected, NextHop: next}, true
	}
	r := run(t, Options{Route: route}, newQueue(d), fakeCopies{d.Mail: text(smallMail)}, next)
	got := r.result(t)
	r.end(t)
	if !slices.Contains(hop.heard(), "RCPT TO:<"+corrected+">") {
		t.Errorf("said %q", hop.heard())
	}
	if want := "4.2.0 not " + public + " and not " + public; got.Reply.Reveal() != want {
		t.Errorf("recorded %q, want %q", got.Reply.Reveal(), want)
	}
}
