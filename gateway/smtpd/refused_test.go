package smtpd

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"sealpost/gateway"
)

// memory is what Options.Refused was given.
type memory struct {
	mu       sync.Mutex
	refusals []gateway.Refusal
	err      error
}

func (m *memory) refused(_ context.Context, refusal gateway.Refusal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refusals = append(m.refusals, refusal)
	return m.err
}

func (m *memory) all() []gateway.Refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]gateway.Refusal(nil), m.refusals...)
}

// twoRecipients begins a mail to two recipients.
func twoRecipients(c *client) {
	c.talk("> MAIL FROM:<alice@sender.test>", "< 250 2.1.0 sender ok", "> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok",
		"> RCPT TO:<Sales@example.com>", "< 250 2.1.5 recipient ok")
}

// TestRefusedTextIsRemembered: a mail that is refused for its text can be traced by its Message-ID, with what the
// client was told, from whom to whom; one that is accepted, or refused by the Handler, is not ours to remember.
func TestRefusedTextIsRemembered(t *testing.T) {
	const id = "Message-ID: <marker-1@sender.test>\r\n"
	const malformed = "in line 1 of the message, nothing was accepted; lines must end with CRLF"
	for name, c := range map[string]struct {
		text, reply string
		code        gateway.Code // of what is remembered; empty: nothing is
		temporary   bool
	}{
		"bare LF everywhere": {"Subject: x\n" + strings.ReplaceAll(id, "\r", "") + "\nbody\n\r\n", "554 5.6.0 bare LF " + malformed, gateway.CodeInvalid, false},
		"NUL before it":      {"Subject: \x00\r\n" + id + "\r\n", "554 5.6.0 NUL octet " + malformed, gateway.CodeInvalid, false},
		"bare CR before it":  {"Subject: x\r\r\n" + id + "\r\n", "554 5.6.0 bare CR " + malformed, gateway.CodeInvalid, false},
		"too large":          {id + "\r\n" + strings.Repeat("x\r\n", 1000), "552 5.3.4 message is larger than 1000 octets", gateway.CodeTooLarge, false},
		"a loop":             {strings.Repeat("Received: x\r\n", 11) + id + "\r\n", "554 5.4.6 mail loop: more than 10 Received fields", gateway.CodeLoop, false},
		"folded":             {"message-id :\r\n\t<marker-1@sender.test> \r\nSubject: \x00\r\n\r\n", "554 5.6.0 NUL octet in line 3 of the message, nothing was accepted; lines must end with CRLF", gateway.CodeInvalid, false},
		"the first counts":   {id + "Message-ID: <other@sender.test>\r\n\r\n\x00\r\n", "554 5.6.0 NUL octet in line 4 of the message, nothing was accepted; lines must end with CRLF", gateway.CodeInvalid, false},
		"none":               {"Subject: \x00\r\n\r\n" + id, "554 5.6.0 NUL octet " + malformed, "", false},
		"no brackets":        {"Message-ID: marker-1@sender.test\r\nX: \x00\r\n\r\n", "554 5.6.0 NUL octet in line 2 of the message, nothing was accepted; lines must end with CRLF", "", false},
		"no room":            {"X-Spool: full\r\n" + id + "\r\n", "452 4.3.1 no room to store the mail; try again later", gateway.CodeStorageFull, true},
		"accepted":           {id + "\r\nbody\r\n", "250 2.0.0 accepted as ID1", "", false},
		"the Handler's":      {"Subject: refuse me\r\n" + id + "\r\n", "550 5.7.1 refused by policy", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			ts := startServer(t, func(o *Options) {
				o.MaxMessageSize, o.Limits.ReceivedFields, o.Refused = 1000, 10, m.refused
				if strings.HasPrefix(c.text, "X-Spool: full") {
					o.NewSpooled = func() (gateway.Spooled, error) { return nil, gateway.Errorf(gateway.CodeStorageFull, nil, "") }
				}
			})
			ts.accept = func(context.Context, gateway.Envelope, gateway.Spooled) (string, error) {
				if strings.HasPrefix(c.text, "Subject: refuse me") {
					return "", gateway.Errorf(gateway.CodeRejected, nil, "")
				}
				return "", nil
			}
			client := ts.hello(t)
			twoRecipients(client)
			client.talk("> DATA", data354)
			client.send(c.text + ".\r\n")
			client.expect(c.reply)
			checkRemembered(t, m.all(), c.code, c.reply, c.temporary)
			if strings.Contains(ts.log.String(), "marker") {
				t.Errorf("the log holds the Message-ID:\n%s", ts.log.String())
			}
		})
	}
}

func checkRemembered(t *testing.T, all []gateway.Refusal, code gateway.Code, reply string, temporary bool) {
	t.Helper()
	if code == "" || len(all) != 1 {
		if code != "" || len(all) != 0 {
			t.Errorf("remembered %v, want code %q", all, code)
		}
		return
	}
	r := all[0]
	to := r.Envelope.Recipients
	if r.MessageID.Reveal() != "<marker-1@sender.test>" || r.Code != code || r.Temporary != temporary || r.Envelope.MailFrom != "alice@sender.test" ||
		!r.Envelope.Client.IsLoopback() || r.At.IsZero() || !strings.HasSuffix(reply, " "+r.Reason) || r.Reason == "" {
		t.Errorf("remembered %+v of %q", r, r.MessageID.Reveal())
	}
	if len(to) != 2 || to[0].Address != "support@example.com" || to[1].Address != "Sales@example.com" || to[1].Route.Address != "sales@example.com" {
		t.Errorf("to %+v", to)
	}
}

// TestRefusedChunksAreRemembered: a mail that comes by BDAT as well, up to the chunk that makes it fail.
func TestRefusedChunksAreRemembered(t *testing.T) {
	m := &memory{}
	c := startServer(t, func(o *Options) { o.Refused = m.refused }).hello(t)
	twoRecipients(c)
	c.send("BDAT 20\r\nMessage-ID: <marker-")
	c.expect("250 2.0.0 continue")
	c.send("BDAT 22 LAST\r\n1@sender.test>\r\nX: \x00\r\n\r\n")
	const reply = "554 5.6.0 NUL octet in line 2 of the message, nothing was accepted; lines must end with CRLF"
	c.expect(reply)
	checkRemembered(t, m.all(), gateway.CodeInvalid, reply, false)
}

// TestRefusalThatCannotBeRememberedIsOne: what fails there changes no reply.
func TestRefusalThatCannotBeRememberedIsOne(t *testing.T) {
	m := &memory{err: errors.New("the database is away")}
	ts := startServer(t, func(o *Options) { o.Refused = m.refused })
	c := ts.ready(t)
	c.talk("> DATA", data354)
	c.send("Message-ID: <marker-1@sender.test>\r\n\r\n\x00\r\n.\r\n")
	c.expect("554 5.6.0 NUL octet in line 3 of the message, nothing was accepted; lines must end with CRLF")
	c.talk("> NOOP", "< 250 2.0.0 ok")
	if !strings.Contains(ts.log.String(), "a refused mail cannot be remembered") || len(m.all()) != 1 {
		t.Errorf("the log:\n%s", ts.log.String())
	}
}

// TestBrokenOffIsNotRemembered: who broke off was told nothing.
func TestBrokenOffIsNotRemembered(t *testing.T) {
	m := &memory{}
	ts := startServer(t, func(o *Options) { o.Refused = m.refused })
	c := ts.ready(t)
	c.talk("> DATA", data354)
	c.send("Message-ID: <marker-1@sender.test>\r\n\r\n\x00\r\n")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	ts.stop(t) // which waits for the dialogue
	if all := m.all(); len(all) != 0 {
		t.Errorf("remembered %v", all)
	}
}

// TestMessageIDIsFoundInPieces: however the text is cut, and with a bounded memory.
func TestMessageIDIsFoundInPieces(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, c := range []struct{ text, want string }{
		{"Subject: x\nMessage-ID: <a@b>\n\n", "<a@b>"},
		{"Message-ID:\n <a\n @b>\nSubject: x\n", "<a @b>"},
		{"Subject: " + long + "\nMessage-ID: <a@b>\n", "<a@b>"},
		{"Message-ID: <" + long + "@b>\n", ""},
		{"Subject: x\n Message-ID: <a@b>\n", ""},
		{"\nMessage-ID: <a@b>\n", ""},
		{strings.Repeat("X: "+long+"\n", 300) + "Message-ID: <a@b>\n", ""},
	} {
		for _, step := range []int{1, 7, len(c.text)} {
			var f idFinder
			for rest := c.text; rest != ""; {
				n := min(step, len(rest))
				f.scan([]byte(rest[:n]))
				rest = rest[n:]
			}
			if f.value() != c.want || cap(f.line)+cap(f.field) > 4*maxIDLine {
				t.Errorf("in steps of %d: %q, want %q; %d octets are held", step, f.value(), c.want, cap(f.line)+cap(f.field))
			}
		}
	}
}
