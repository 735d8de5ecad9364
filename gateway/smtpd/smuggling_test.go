package smtpd

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestNothingIsSmuggled: no false end of DATA ends it, the mail that holds one is refused with its reason,
// and what stands behind the false end is never executed.
func TestNothingIsSmuggled(t *testing.T) {
	const smuggled = "MAIL FROM:<evil@sender.test>\r\nRCPT TO:<support@example.com>\r\nDATA\r\nevil\r\n"
	for _, tt := range []struct{ end, what string }{
		{"\n.\n", "bare LF"}, {"\n.\r\n", "bare LF"}, {"\r\n.\n", "bare LF"}, {"\r.\r", "bare CR"}, {"\r.\r\n", "bare CR"},
		{"\r.\n", "bare CR"}, {"\n.\r", "bare LF"}, {"\r\n.\r", "bare CR"}, {"\r\n.\rX", "bare CR"}, {"\r\n.\r\r\n", "bare CR"},
		{"\r\r\n.\r\r\n", "bare CR"}, {"\r\n\x00.\r\n", "NUL octet"}, {"\r\n.\x00\r\n", "NUL octet"}, {"\n\n.\n\n", "bare LF"},
		{"\r\r.\r\r", "bare CR"}, {"\r\n.\r\x00\n", "bare CR"}, {"\x00", "NUL octet"}, {"\r\n.\n\r\n", "bare LF"},
	} {
		for _, secured := range []bool{false, true} {
			t.Run(fmt.Sprintf("%q/%v", tt.end, secured), func(t *testing.T) {
				ts := startServer(t, withTLS)
				c := ts.hello(t)
				if secured {
					c = c.startTLS()
				}
				c.talk("> MAIL FROM:<alice@sender.test>", "< 250 2.1.0 sender ok",
					"> RCPT TO:<support@example.com>", "< 250 2.1.5 recipient ok", "> DATA", data354)
				c.send("text" + tt.end + smuggled + ".\r\nNOOP\r\n")
				got := c.line()
				if !strings.HasPrefix(got, "554 5.6.0 "+tt.what+" in line ") || !strings.Contains(got, "nothing was accepted") {
					t.Errorf("reply %q, want 554 5.6.0 %s", got, tt.what)
				}
				c.talk("< 250 2.0.0 ok", "> QUIT", "< 221 2.0.0 Bye", "closed")
				if n := len(ts.taken()); n != 0 {
					t.Errorf("%d mails were accepted: %q", n, texts(ts.taken()))
				}
			})
		}
	}
}

// TestTextEndsAtItsTrueEnd: what stands before CRLF "." CRLF does not hide it, wherever packets are cut.
func TestTextEndsAtItsTrueEnd(t *testing.T) {
	for text, want := range map[string]string{
		"x\r\r\n.\r\n":     "554 5.6.0 bare CR in line 1 of the message, nothing was accepted; lines must end with CRLF",
		".\r\r\n.\r\n":     "554 5.6.0 bare CR in line 1 of the message, nothing was accepted; lines must end with CRLF",
		"\r\n\r\n.\r\n":    "250 2.0.0 accepted as ID1",
		"..\r\n.\r\n":      "250 2.0.0 accepted as ID1",
		"a\r\n.b\r\n.\r\n": "250 2.0.0 accepted as ID1",
	} {
		for cut := range len(text) {
			ts := startServer(t, nil)
			c := ts.ready(t)
			c.talk("> DATA", data354)
			c.send(text[:cut])
			c.send(text[cut:])
			c.expect(want)
			c.talk("> NOOP", "< 250 2.0.0 ok")
			ts.stop(t)
		}
	}
}

func TestSlowClient(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.ready(t)
	c.talk("> DATA", data354)
	for _, b := range []byte("Subject: x\r\n\r\n..\r\nbody\r\n.\r\n") {
		c.send(string(b))
	}
	c.expect("250 2.0.0 accepted as ID1")
	if got := ts.taken()[0].text; got != "Subject: x\r\n\r\n.\r\nbody\r\n" {
		t.Errorf("text %q", got)
	}
}

func TestChunks(t *testing.T) {
	const (
		mail = `>> MAIL FROM:<alice@sender.test>\r\nRCPT TO:<support@example.com>\r\n`
		fok  = "< 250 2.1.0 sender ok"
		rok  = "< 250 2.1.5 recipient ok"
		more = "< 250 2.0.0 continue"
	)
	long := strings.Repeat("y", 100<<10)
	for name, tt := range map[string]struct {
		dialogue []string
		texts    []string
	}{
		"one chunk":       {[]string{mail, fok, rok, `>> BDAT 6 LAST\r\nab\r\nc\n`, "< 554 5.6.0 bare LF in line 2 of the message, nothing was accepted; lines must end with CRLF"}, nil},
		"in pieces":       {[]string{mail, fok, rok, `>> BDAT 1\r\naBDAT 2\r\n\r\nBDAT 3 LAST\r\nb\r\n`, more, more, "< 250 2.0.0 accepted as ID1"}, []string{"a\r\nb\r\n"}},
		"empty last":      {[]string{mail, fok, rok, `>> BDAT 3\r\na\r\n`, more, "> BDAT 0 LAST", "< 250 2.0.0 accepted as ID1"}, []string{"a\r\n"}},
		"only empty last": {[]string{mail, fok, rok, "> BDAT 0 LAST", "< 250 2.0.0 accepted as ID1"}, []string{""}},
		"dots stay":       {[]string{mail, fok, rok, `>> BDAT 8 LAST\r\n..\r\n.\r\nZ`, "< 250 2.0.0 accepted as ID1"}, []string{"..\r\n.\r\nZ"}},
		"commands in it":  {[]string{mail, fok, rok, `>> BDAT 18 LAST\r\nRSET\r\nDATA\r\nQUIT\r\nNOOP\r\n`, "< 250 2.0.0 accepted as ID1", "< 250 2.0.0 ok"}, []string{"RSET\r\nDATA\r\nQUIT\r\n"}},
		"postmaster in it": {[]string{mail, fok, rok, `>> BDAT 24 LAST\r\nRCPT TO:<postmaster>\r\n\r\nNOOP\r\n`,
			"< 250 2.0.0 accepted as ID1", "< 250 2.0.0 ok"}, []string{"RCPT TO:<postmaster>\r\n\r\n"}},
		"rset in the middle": {[]string{mail, fok, rok, `>> BDAT 3\r\na\r\n`, more, "> RSET", "< 250 2.0.0 Session reset", "> BDAT 0 LAST",
			"< 503 5.5.1 Missing RCPT TO command.", mail, fok, rok, "> BDAT 0 LAST", "< 250 2.0.0 accepted as ID1"}, []string{""}},
		"rset after an empty chunk": {[]string{mail, fok, rok, `>> BDAT 0\r\nRSET\r\n`, more, "< 250 2.0.0 Session reset",
			mail, fok, rok, `>> BDAT 1 LAST\r\nx`, "< 250 2.0.0 accepted as ID1"}, []string{"x"}},
		"data in the middle": {[]string{mail, fok, rok, `>> BDAT 1\r\na`, more, "> DATA", "< 503 5.5.1 DATA not allowed between chunks", "> NOOP", "< 250 2.0.0 ok",
			"> BDAT 0 LAST", "< 250 2.0.0 accepted as ID1"}, []string{"a"}},
		"after data": {[]string{mail, fok, rok, "> DATA", data354, "> .", "< 250 2.0.0 accepted as ID1",
			mail, fok, rok, `>> BDAT 1 LAST\r\nx`, "< 250 2.0.0 accepted as ID2"}, []string{"", "x"}},
		"without recipient": {[]string{`>> BDAT 6 LAST\r\nNOOP\r\n`, "< 503 5.5.1 Missing RCPT TO command.", "> NOOP", "< 250 2.0.0 ok"}, nil},
		"refused chunk with a long line": {[]string{fmt.Sprintf(`>> BDAT %d LAST\r\n`, 20000) + long[:20000],
			"< 503 5.5.1 Missing RCPT TO command.", "> NOOP", "< 250 2.0.0 ok"}, nil},
		"long line": {[]string{mail, fok, rok, fmt.Sprintf(`>> BDAT %d\r\n`, len(long)) + long, more,
			fmt.Sprintf(`>> BDAT %d LAST\r\n`, len(long)) + long, "< 250 2.0.0 accepted as ID1"}, []string{long + long}},
		"bare CR at the end": {[]string{mail, fok, rok, `>> BDAT 2 LAST\r\nx\r`,
			"< 554 5.6.0 bare CR in line 1 of the message, nothing was accepted; lines must end with CRLF"}, nil},
		"CRLF cut in two": {[]string{mail, fok, rok, `>> BDAT 2\r\nx\r`, more, `>> BDAT 1 LAST\r\n\n`, "< 250 2.0.0 accepted as ID1"}, []string{"x\r\n"}},
		"NUL": {[]string{mail, fok, rok, `>> BDAT 1 LAST\r\n\x00`,
			"< 554 5.6.0 NUL octet in line 1 of the message, nothing was accepted; lines must end with CRLF", "> NOOP", "< 250 2.0.0 ok"}, nil},
		"too large":         {[]string{mail, fok, rok, `>> BDAT 3\r\na\r\n`, more, "> BDAT 4194302", ">> " + strings.Repeat(long[:1024], 4096)[:4194302], "< 552 5.3.4 message is larger than 4194304 octets", "> NOOP", "< 250 2.0.0 ok"}, nil},
		"malformed size":    {[]string{mail, fok, rok, `>> BDAT 99999999999999999999 LAST\r\nNOOP\r\n`, "< 501 5.5.4 mx.test malformed BDAT command; closing", "closed"}, nil},
		"negative size":     {[]string{mail, fok, rok, `>> BDAT -1 LAST\r\nNOOP\r\n`, "< 501 5.5.4 mx.test malformed BDAT command; closing", "closed"}, nil},
		"malformed keyword": {[]string{mail, fok, rok, `>> BDAT 6 LOST\r\nNOOP\r\n`, "< 501 5.5.4 mx.test malformed BDAT command; closing", "closed"}, nil},
		"no number":         {[]string{mail, fok, rok, `>> BDAT six LAST\r\nNOOP\r\n`, "< 501 5.5.4 mx.test malformed BDAT command; closing", "closed"}, nil},
		"no size":           {[]string{mail, fok, rok, `>> BDAT LAST\r\nNOOP\r\n`, "< 501 5.5.4 mx.test malformed BDAT command; closing", "closed"}, nil},
		"size behind":       {[]string{mail, fok, rok, `>> BDAT LAST 0\r\nNOOP\r\n`, "< 501 5.5.4 mx.test malformed BDAT command; closing", "closed"}, nil},
		"nothing":           {[]string{mail, fok, rok, `>> BDAT\r\nNOOP\r\n`, "< 501 5.5.4 mx.test malformed BDAT command; closing", "closed"}, nil},
		"after a mail": {[]string{mail, fok, rok, `>> BDAT 1 LAST\r\nx`, "< 250 2.0.0 accepted as ID1", `>> BDAT 6 LAST\r\nNOOP\r\n`,
			"< 503 5.5.1 Missing RCPT TO command.", "> NOOP", "< 250 2.0.0 ok"}, []string{"x"}},
		"without a recipient that was accepted": {[]string{`>> MAIL FROM:<>\r\nRCPT TO:<x@example.com>\r\nBDAT 6 LAST\r\nNOOP\r\n`, fok,
			"< 550 5.1.1 no such mailbox here", "< 503 5.5.1 Missing RCPT TO command.", "> NOOP", "< 250 2.0.0 ok"}, nil},
		"tab for a space": {[]string{mail, fok, rok, `>> BDAT\t6 LAST\r\nNOOP\r\n`, "< 501 5.5.4 mx.test malformed BDAT command; closing", "closed"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, nil)
			c := ts.hello(t)
			c.talk(tt.dialogue...)
			if got := texts(ts.taken()); !slices.Equal(got, tt.texts) && len(got)+len(tt.texts) > 0 {
				t.Errorf("texts %.60q, want %.60q", got, tt.texts)
			}
		})
	}
}

// TestChunksCutAnywhere sends one mail in every split into two chunks, each in every split into two packets.
func TestChunksCutAnywhere(t *testing.T) {
	const text = "Subject: x\r\n\r\n.\r\nQUIT\r\n"
	ts := startServer(t, nil)
	c := ts.hello(t)
	n := 0
	for cut := range len(text) + 1 {
		all := fmt.Sprintf("MAIL FROM:<>\r\nRCPT TO:<support@example.com>\r\nBDAT %d\r\n%sBDAT %d LAST\r\n%s",
			cut, text[:cut], len(text)-cut, text[cut:])
		for packet := range len(all) {
			c.send(all[:packet])
			c.send(all[packet:])
			n++
			c.talk("< 250 2.1.0 sender ok", "< 250 2.1.5 recipient ok", "< 250 2.0.0 continue", fmt.Sprintf("< 250 2.0.0 accepted as ID%d", n))
		}
	}
	for i, got := range texts(ts.taken()) {
		if got != text {
			t.Fatalf("mail %d became %q", i, got)
		}
	}
}

// TestCutChunkIsNoMail: a connection that ends inside a chunk, or inside DATA, leaves no mail.
func TestCutChunkIsNoMail(t *testing.T) {
	for _, send := range []string{
		"BDAT 100 LAST\r\nSubject: x\r\n\r\nhalf", "BDAT 4\r\nhalf", "BDAT 0\r\n", "BDAT 10 LAST\r\n",
		"DATA\r\nhalf\r\n", "DATA\r\nhalf\r\n.", "DATA\r\nhalf\r\n.\r", "DATA\r\n",
	} {
		ts := startServer(t, nil)
		c := ts.ready(t)
		c.send(send)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		ts.stop(t)
		if n := len(ts.taken()); n != 0 {
			t.Errorf("%q left a mail: %q", send, texts(ts.taken()))
		}
	}
}
