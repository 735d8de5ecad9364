package main

import (
	"net"
	"net/textproto"
	"strings"
	"testing"
)

// dialogue speaks SMTP line by line.
type dialogue struct {
	t    testing.TB
	conn net.Conn
	text *textproto.Conn
}

func dial(t testing.TB, address string) *dialogue {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	d := &dialogue{t, conn, textproto.NewConn(conn)}
	t.Cleanup(func() { _ = conn.Close() })
	d.want("220")
	return d
}

func (d *dialogue) want(code string) string {
	d.t.Helper()
	for {
		line, err := d.text.ReadLine()
		if err != nil {
			d.t.Fatalf("want %s: %v", code, err)
		}
		if strings.HasPrefix(line, code+"-") {
			continue
		}
		if !strings.HasPrefix(line, code) {
			d.t.Fatalf("want %s, got %s", code, line)
		}
		return line
	}
}

func (d *dialogue) say(line, code string) string {
	d.t.Helper()
	if err := d.text.PrintfLine("%s", line); err != nil {
		d.t.Fatal(err)
	}
	return d.want(code)
}

// give sends a mail, whose reply must begin with code.
func (d *dialogue) give(from, to string, mail []byte, code string) string {
	d.t.Helper()
	d.say("EHLO customer.example", "250")
	d.say("MAIL FROM:<"+from+">", "250")
	d.say("RCPT TO:<"+to+">", "250")
	d.say("DATA", "354")
	if _, err := d.conn.Write(mail); err != nil {
		d.t.Fatal(err)
	}
	return d.say(".", code)
}
