package sftest

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

const mailText = "From: a@example.com\r\nSubject: x\r\n\r\n.dot\r\nbody\r\n"

func start(t *testing.T, opts Options) *Org {
	t.Helper()
	o, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func sendMail(t *testing.T, o *Org) error {
	t.Helper()
	c, err := smtp.Dial(o.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return c.SendMail("a@example.com", []string{"b@example.com"}, strings.NewReader(mailText))
}

func codeOf(err error) int {
	var e *smtp.SMTPError
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func TestModesKeepWhatTheySay(t *testing.T) {
	want := sha256.Sum256([]byte(mailText))
	for mode, check := range map[Mode]func(Mail) bool{
		Whole:  func(m Mail) bool { return string(m.Raw) == mailText && m.SHA256 == want },
		Digest: func(m Mail) bool { return m.Raw == nil && m.SHA256 == want },
		Sink:   func(m Mail) bool { return m.Raw == nil && m.SHA256 == [32]byte{} },
	} {
		heard := make(chan Mail, 1)
		o := start(t, Options{Mode: mode, OnMail: func(m Mail) { heard <- m }})
		if err := sendMail(t, o); err != nil {
			t.Fatal(err)
		}
		mails, err := o.Wait(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		m := mails[0]
		if !check(m) || m.Size != int64(len(mailText)) || m.From != "a@example.com" || m.To[0] != "b@example.com" {
			t.Errorf("mode %d: kept %+v", mode, m)
		}
		if got := <-heard; got.Size != m.Size {
			t.Errorf("mode %d: OnMail heard %+v", mode, got)
		}
	}
}

func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		opts     Options
		codes    []int // of one mail after the other; 0 without a reply or with 250
		accepted int
	}{
		"refuse rcpt":    {Options{RefuseRcpt: 452}, []int{452}, 0},
		"unknown":        {Options{Recipients: []string{"c@example.com"}}, []int{550}, 0},
		"known":          {Options{Recipients: []string{"B@example.com"}}, []int{0}, 1},
		"fail first":     {Options{FailFirst: 2, FailCode: 554}, []int{554, 554, 0}, 1},
		"default code":   {Options{FailFirst: 1}, []int{451, 0}, 1},
		"max size":       {Options{MaxSize: 10}, []int{552}, 0},
		"delay":          {Options{Delay: time.Millisecond}, []int{0}, 1},
		"without utf8":   {Options{WithoutSMTPUTF8: true}, []int{0}, 1},
		"without 8 bits": {Options{Without8BITMIME: true}, []int{0}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := start(t, c.opts)
			for i, want := range c.codes {
				if err := sendMail(t, o); codeOf(err) != want || (want == 0) != (err == nil) {
					t.Errorf("mail %d: got %v, want code %d", i, err, want)
				}
			}
			if n := len(o.Mails()); n != c.accepted {
				t.Errorf("%d mails accepted, want %d", n, c.accepted)
			}
		})
	}
}

func TestDropAfterDataAcceptsWithoutReply(t *testing.T) {
	o := start(t, Options{DropAfterData: 1})
	if err := sendMail(t, o); err == nil || codeOf(err) != 0 {
		t.Errorf("the dropped mail was answered: %v", err)
	}
	if err := sendMail(t, o); err != nil {
		t.Error(err)
	}
	if n := len(o.Mails()); n != 2 {
		t.Errorf("%d mails accepted, want 2", n)
	}
}

func TestExtensionsCanBeHidden(t *testing.T) {
	for name, c := range map[string]struct {
		opts           Options
		eightBit, utf8 bool
	}{
		"all":              {Options{}, true, true},
		"without 8BITMIME": {Options{Without8BITMIME: true}, false, true},
		"without SMTPUTF8": {Options{WithoutSMTPUTF8: true}, true, false},
	} {
		client, err := smtp.Dial(start(t, c.opts).Addr())
		if err != nil {
			t.Fatal(err)
		}
		eightBit, _ := client.Extension("8BITMIME")
		utf8, _ := client.Extension("SMTPUTF8")
		if eightBit != c.eightBit || utf8 != c.utf8 {
			t.Errorf("%s: 8BITMIME %v, SMTPUTF8 %v", name, eightBit, utf8)
		}
		_ = client.Close()
	}
}

func TestCloseCutsWhatWaits(t *testing.T) {
	o := start(t, Options{Delay: time.Hour})
	answered := make(chan error, 1)
	c, err := smtp.Dial(o.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("a@example.com", nil); err != nil {
		t.Fatal(err)
	}
	go func() {
		err := c.Rcpt("b@example.com", nil)
		var w interface{ Close() error }
		if err == nil {
			w, err = c.Data()
		}
		if err == nil {
			err = w.Close()
		}
		answered <- err
	}()
	waited := make(chan error, 1)
	go func() { _, err := o.Wait(context.Background(), 1); waited <- err }()
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err == nil {
		t.Error("a mail was accepted while closing")
	}
	if err := <-waited; err == nil {
		t.Error("Wait returned a mail that was never accepted")
	}
}

func TestContextEndsTheOrg(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o, err := Start(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := o.Wait(context.Background(), 1); err == nil {
		t.Error("it still waits for mails")
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

func TestLinks(t *testing.T) {
	const (
		id   = "00112233445566778899aabbccddeeff"
		key  = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA0"
		link = "https://files.example.com/p/" + id + "#" + key
	)
	for name, c := range map[string]struct {
		raw  string
		want int
	}{
		"plain":     {"Subject: x\r\n\r\nsee " + link + ".\r\n", 1},
		"no header": {"\r\n" + link, 1},
		"qp": {"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
			link[:40] + "=\r\n" + link[40:] + "\r\n", 1},
		"html": {"Content-Type: text/html\r\n\r\n<a href=\"" + strings.Replace(link, "#", "&#35;", 1) + "\">" + link + "</a>", 1},
		"alternative": {"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\n" + link +
			"\r\n--b\r\nContent-Type: text/html\r\n\r\n<a href='" + link + "'>files</a>\r\n--b--\r\n", 1},
		"in a file": {"Content-Type: application/octet-stream\r\n\r\n" + link, 0},
		"half":      {"Subject: x\r\n\r\nhttps://files.example.com/p/" + id + "#short\r\n", 0},
		"none":      {"Subject: x\r\n\r\nhello\r\n", 0},
		"no mail":   {"\x00\x01", 0},
	} {
		got := Links(Mail{Raw: []byte(c.raw)})
		if len(got) != c.want || c.want > 0 && got[0] != link {
			t.Errorf("%s: found %q, want %d", name, got, c.want)
		}
	}
}
