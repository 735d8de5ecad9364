package relay

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"sealpost/gateway"
)

// commandsOf attempts d once at hop, and returns what the hop heard.
func commandsOf(t *testing.T, opts Options, d gateway.LeasedDelivery, hop *scriptedHop) (finished, []string) {
	t.Helper()
	r := run(t, opts, newQueue(d), fakeCopies{d.Mail: text(smallMail)}, hop.start(t))
	got := r.result(t)
	r.end(t)
	return got, hop.heard()
}

func forward(string) (string, error) { return "SRS0=x@srs.example.com", nil }

// TestDSNIsCarriedOn: what the sender asked for reaches a hop that knows DSN; SUCCESS only with our own return path.
func TestDSNIsCarriedOn(t *testing.T) {
	for name, c := range map[string]struct {
		back       func(string) (string, error)
		offer      string
		notify     string
		orcpt      string
		mail, rcpt string
		notice     bool
	}{
		"with SRS": {forward, "DSN", "SUCCESS,FAILURE", "rfc822;a+b@example.com",
			"MAIL FROM:<SRS0=x@srs.example.com> RET=HDRS ENVID=a+20b", "RCPT TO:<" + forwardTo + "> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@example.com", false},
		"without SRS": {nil, "DSN", "SUCCESS,FAILURE", "",
			"MAIL FROM:<" + sender + "> RET=HDRS ENVID=a+20b", "RCPT TO:<" + forwardTo + "> NOTIFY=FAILURE ORCPT=rfc822;" + public, true},
		"without SRS, SUCCESS alone": {nil, "DSN", "SUCCESS", "",
			"MAIL FROM:<" + sender + "> RET=HDRS ENVID=a+20b", "RCPT TO:<" + forwardTo + "> NOTIFY=NEVER ORCPT=rfc822;" + public, true},
		"not offered": {forward, "X", "SUCCESS", "", "MAIL FROM:<SRS0=x@srs.example.com>", "RCPT TO:<" + forwardTo + ">", true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDelivery(1, len(smallMail))
			d.DSN = gateway.DSNRequest{Notify: c.notify, OriginalRecipient: gateway.NewSecret(c.orcpt)}
			d.Return, d.EnvelopeID = "HDRS", gateway.NewSecret("a b")
			opts := Options{ReturnPath: c.back, Reporter: fakeReporter{}}
			got, heard := commandsOf(t, opts, d, &scriptedHop{offers: []string{c.offer}})
			if !slices.Contains(heard, c.mail) || !slices.Contains(heard, c.rcpt) || (got.notice != nil) != c.notice {
				t.Errorf("said %q, notice %v", heard, got.notice)
			}
		})
	}
}

// TestSenderThatCannotBeRewrittenGoesOut: a mail is not held up by what SRS cannot do. A report of success, which would
// then go straight to an outsider, is not passed on.
func TestSenderThatCannotBeRewrittenGoesOut(t *testing.T) {
	d := newDelivery(1, len(smallMail))
	d.DSN.Notify = "SUCCESS,FAILURE"
	opts := Options{ReturnPath: func(from string) (string, error) { return "", errors.New("too long: " + from) }}
	hop := &scriptedHop{offers: []string{"DSN"}}
	r := run(t, opts, newQueue(d), fakeCopies{d.Mail: text(smallMail)}, hop.start(t))
	got := r.result(t)
	r.end(t)
	if got.Event != gateway.EventAccepted || !slices.Contains(hop.heard(), "MAIL FROM:<"+sender+">") ||
		!slices.Contains(hop.heard(), "RCPT TO:<"+forwardTo+"> NOTIFY=FAILURE ORCPT=rfc822;"+public) {
		t.Errorf("got %v, %q after %q", got.Attempt, got.Reply.Reveal(), hop.heard())
	}
	if n := strings.Count(r.log.String(), "cannot be rewritten"); n != 1 || !strings.Contains(r.log.String(), "level=WARN") {
		t.Errorf("warned %d times:\n%s", n, r.log.String())
	}
}

func TestReturnPathLeavesTheNullSender(t *testing.T) {
	d := newDelivery(1, len(smallMail))
	d.Copy.MailFrom = gateway.NewSecret("")
	_, heard := commandsOf(t, Options{ReturnPath: forward}, d, &scriptedHop{})
	if !slices.Contains(heard, "MAIL FROM:<>") {
		t.Errorf("said %q", heard)
	}
}

func TestAuth(t *testing.T) {
	plain := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00user\x00pass"))
	for name, c := range map[string]struct {
		offers, reply string
		said          []string
		event         gateway.DeliveryEvent
	}{
		"PLAIN":   {"AUTH LOGIN PLAIN", "235 2.7.0 ok", []string{plain}, gateway.EventAccepted},
		"LOGIN":   {"AUTH LOGIN", "235 2.7.0 ok", []string{"AUTH LOGIN dXNlcg==", "cGFzcw=="}, gateway.EventAccepted},
		"refused": {"AUTH PLAIN", "535 5.7.8 no", []string{plain}, gateway.EventDeferred},
		"neither": {"AUTH CRAM-MD5", "", nil, gateway.EventDeferred},
	} {
		t.Run(name, func(t *testing.T) {
			hop := &scriptedHop{offers: []string{c.offers}, login: c.reply}
			next := hop.start(t)
			next.User, next.Password = "user", gateway.NewSecret("pass")
			got := attemptOnce(t, Options{}, smallMail, next)
			if got.Event != c.event {
				t.Errorf("got %v, %q", got.Attempt, got.Reply.Reveal())
			}
			for _, line := range c.said {
				if !slices.Contains(hop.heard(), line) {
					t.Errorf("%q was not said, but %q", line, hop.heard())
				}
			}
		})
	}
}

// TestPasswordIsNotSentInPlaintext: only loopback hears it without TLS.
func TestPasswordIsNotSentInPlaintext(t *testing.T) {
	ours, theirs := net.Pipe() // its address is no loopback
	defer func() { _ = errors.Join(ours.Close(), theirs.Close()) }()
	s := &session{conn: ours, ext: map[string]string{"AUTH": "PLAIN"}}
	if err := s.authenticate(gateway.NextHop{User: "user"}); !errors.Is(err, errAuthPlain) {
		t.Errorf("got %v", err)
	}
}

func TestImplicitTLS(t *testing.T) {
	cert, pool := certificate(t)
	hop := &scriptedHop{tls: &tls.Config{Certificates: []tls.Certificate{cert}}}
	next := hop.start(t)
	next.ImplicitTLS = true
	if got := attemptOnce(t, Options{}, smallMail, next); got.Event != gateway.EventAccepted || got.TLS == "" {
		t.Errorf("any certificate: got %v, %q", got.Attempt, got.Reply.Reveal())
	}
	next.TLS = gateway.TLSVerify
	if got := attemptOnce(t, Options{}, smallMail, next); got.Event != gateway.EventDeferred {
		t.Errorf("verified, not trusted: got %v", got.Attempt)
	}
	trusting := Options{TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	if got := attemptOnce(t, trusting, smallMail, next); got.Event != gateway.EventAccepted {
		t.Errorf("verified: got %v, %q", got.Attempt, got.Reply.Reveal())
	}
}

func refuseToConvert(func() (io.ReadCloser, error), bool, bool) (func(io.Writer) error, error) {
	return nil, errors.New("not exact")
}

// closeFails is a copy whose Close fails, once it was read or not.
type closeFails struct{ io.Reader }

func (closeFails) Close() error { return errors.New("closed badly") }

// TestDowngrade: a mail is converted for a hop that lacks an extension, announced without a size, and rejected where that
// is not exact; a fault of the copy is none of the mail. The copy is opened twice: to look, and to write.
func TestDowngrade(t *testing.T) {
	read := func(w io.Writer, open func() (io.ReadCloser, error)) error {
		body, err := open()
		if err != nil {
			return err
		}
		_, err = io.Copy(w, body)
		return errors.Join(err, body.Close())
	}
	convert := func(open func() (io.ReadCloser, error), eightBit, utf8 bool) (func(io.Writer) error, error) {
		if !eightBit || utf8 {
			return nil, errors.New("wrong")
		}
		return func(w io.Writer) error {
			if _, err := io.WriteString(w, "converted: yes\r\n"); err != nil {
				return err
			}
			return read(w, open)
		}, read(io.Discard, open)
	}
	for name, c := range map[string]struct {
		downgrade Downgrade
		copy      func() (io.ReadCloser, error)
		size      int
		event     gateway.DeliveryEvent
	}{
		"exact":      {convert, text(smallMail), len(smallMail), gateway.EventAccepted},
		"not exact":  {refuseToConvert, text(smallMail), len(smallMail), gateway.EventRejected},
		"cut copy":   {convert, text(smallMail), len(smallMail) + 1, gateway.EventDeferred},
		"bad Close":  {convert, func() (io.ReadCloser, error) { return closeFails{strings.NewReader(smallMail)}, nil }, len(smallMail), gateway.EventDeferred},
		"unreadable": {convert, failing(smallMail, errors.New("altered")), len(smallMail), gateway.EventDeferred},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDelivery(1, c.size)
			d.Copy.EightBit = true
			opened := 0
			open := func() (io.ReadCloser, error) {
				opened++
				return c.copy()
			}
			hop := &scriptedHop{offers: []string{"SIZE"}, sevenBit: true}
			r := run(t, Options{Downgrade: c.downgrade}, newQueue(d), fakeCopies{d.Mail: open}, hop.start(t))
			got := r.result(t)
			r.end(t)
			taken := hop.took()
			if got.Event != c.event || (len(taken) == 1) != (c.event == gateway.EventAccepted) || opened > 2 {
				t.Fatalf("got %v, %q, %d mails, opened %d times", got.Attempt, got.Reply.Reveal(), len(taken), opened)
			}
			if len(taken) == 1 && (taken[0] != "converted: yes\r\n"+smallMail || !slices.Contains(hop.heard(), "MAIL FROM:<"+sender+">")) {
				t.Errorf("%q arrived after %q", taken[0], hop.heard())
			}
		})
	}
}

// TestWhatCannotBeConvertedSaysWhy: 5.6.7 for what needs SMTPUTF8 (RFC 6531 section 3.5), 5.6.3 for 8-bit text alone
// (RFC 3463 section 3.7), to the sender as well.
func TestWhatCannotBeConvertedSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		eight, utf8 bool
		sender      string
		status      string
	}{
		"8-bit text":              {true, false, sender, "5.6.3"},
		"UTF-8 header":            {false, true, sender, "5.6.7"},
		"UTF-8 header and text":   {true, true, sender, "5.6.7"},
		"UTF-8 in the local part": {false, false, "kündin@marker.example", "5.6.7"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDelivery(1, len(smallMail))
			d.Copy.EightBit, d.Copy.UTF8, d.Copy.MailFrom = c.eight, c.utf8, gateway.NewSecret(c.sender)
			got, _ := commandsOf(t, Options{Downgrade: refuseToConvert, Reporter: fakeReporter{}}, d, &scriptedHop{sevenBit: true})
			if got.Event != gateway.EventRejected || !strings.HasPrefix(got.Reply.Reveal(), c.status+" ") {
				t.Errorf("got %v, %q", got.Attempt, got.Reply.Reveal())
			}
			if got.notice == nil || !strings.Contains(string(got.notice.Mail.Copy.Inline), " status="+c.status+" ") {
				t.Errorf("the notice is %v", got.notice)
			}
		})
	}
}

func TestAddressIsDowngraded(t *testing.T) {
	d := newDelivery(1, len(smallMail))
	d.Copy.MailFrom = gateway.NewSecret("a@bücher.example")
	opts := Options{DowngradeAddress: func(a string) (string, bool) { return "a@xn--bcher-kva.example", a == "a@bücher.example" }}
	got, heard := commandsOf(t, opts, d, &scriptedHop{})
	if got.Event != gateway.EventAccepted || !slices.Contains(heard, "MAIL FROM:<a@xn--bcher-kva.example>") {
		t.Errorf("got %v after %q", got.Attempt, heard)
	}
}
