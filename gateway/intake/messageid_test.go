package intake_test

import (
	"net/mail"
	"strings"
	"testing"
)

func TestFirstLineOfTheMailCannotContinueOurFields(t *testing.T) {
	f := newFixture(t)
	for _, in := range []string{
		" <evil@customer.example>\r\nSubject: x\r\n\r\ntext\r\n",
		"\t; Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: <1@customer.example>\r\n\r\ntext\r\n",
	} {
		m := f.accept(t, envelope(), in)
		message, err := mail.ReadMessage(strings.NewReader(m.copy))
		if err != nil {
			t.Fatal(err)
		}
		if got := message.Header.Get("Message-Id"); got != m.MessageID.Reveal() {
			t.Errorf("the mail says %q, the database %q", got, m.MessageID.Reveal())
		}
		if got := message.Header.Get("Received"); !strings.HasSuffix(got, "; Tue, 24 Nov 2026 12:30:14 +0000") {
			t.Errorf("our Received was continued by the sender: %q", got)
		}
	}
}

func TestMessageIDOfTheDatabaseIsTheOnlyOneInTheMail(t *testing.T) {
	f := newFixture(t)
	references := "References: " + strings.Repeat("<a@x>\r\n ", 1400) + "<b@x>\r\n"
	for name, in := range map[string]string{
		"whole, references first": references + references[:12+8*1000] + "<b@x>\r\nIn-Reply-To: <" + strings.Repeat("i", 1000) + "@x>\r\nMessage-ID: <" + strings.Repeat("m", 900) + "@x>\r\nContent-Type: multipart/mixed\r\n\r\ntext\r\n",
		"empty":                   "Message-ID:\r\n\r\ntext\r\n",
	} {
		m := f.accept(t, envelope(), in)
		message, err := mail.ReadMessage(strings.NewReader(m.copy))
		if err != nil {
			t.Fatal(err)
		}
		ids := message.Header["Message-Id"]
		if len(ids) != 1 || ids[0] != m.MessageID.Reveal() {
			t.Errorf("%s: %d Message-ID fields, want the one of the database", name, len(ids))
		}
	}
}
