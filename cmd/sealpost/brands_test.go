package main

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"

	"sealpost/sfclient/sftest"
)

// TestTwoBrands: routes with portals of their own put their own links into their mails, and a mail to both is split by its
// sender, whom 452 4.5.3 tells so.
func TestTwoBrands(t *testing.T) {
	const brand = "help@brand.example"
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	_, port, err := net.SplitHostPort(n.portal)
	if err != nil {
		t.Fatal(err)
	}
	other := "http://localhost:" + port // the same listener by another name
	replaceInConfig(t, n, "routes:\n", "routes:\n  - address: "+brand+"\n    forward_to: help@x-9z8y7x6w5v.case.salesforce.com\n    next_hop: smtp://"+
		org.Addr()+"\n    portal_url: "+other+"\n")
	n.start(t, "sealpost")
	content := []byte("a file for two brands")
	d := dial(t, n.smtp)
	d.say("EHLO customer.example", "250")
	d.say("MAIL FROM:<jane@customer.example>", "250")
	d.say("RCPT TO:<"+testRoute+">", "250")
	d.say("RCPT TO:<"+brand+">", "452 4.5.3")
	d.say("DATA", "354")
	if _, err := d.conn.Write(mailWith("brands", "text", content)); err != nil {
		t.Fatal(err)
	}
	d.say(".", "250")
	d.give("jane@customer.example", brand, mailWith("brands", "text", content), "250")
	mails := waitMails(t, org, 2)
	links := map[string]string{} // by the start of the recipient
	for _, mail := range mails {
		if len(mail.To) != 1 {
			t.Errorf("one mail is for %q", mail.To)
		}
		links[strings.SplitN(mail.To[0], "@", 2)[0]] = theLink(t, mail)
	}
	for mailbox, portal := range map[string]string{"support": "http://" + n.portal + "/p/", "help": other + "/p/"} {
		link := links[mailbox]
		if !strings.HasPrefix(link, portal) {
			t.Errorf("the link for %s is at %.40q, want %s", mailbox, link, portal)
			continue
		}
		if got := n.open(t, link)["file.bin"]; !bytes.Equal(got, content) {
			t.Errorf("the link for %s opens to %q", mailbox, got)
		}
	}
}

// dialFrom connects from one of the loopback addresses and sends something before the greeting.
func dialFrom(t *testing.T, from, address, first string) *dialogue {
	t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, first); err != nil {
		t.Fatal(err)
	}
	return &dialogue{t, conn, textproto.NewConn(conn)}
}

// proxyHeader is what a balancer sends first of a client (PROXY protocol, version 2).
func proxyHeader(t *testing.T, client string) string {
	t.Helper()
	header := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.1:25")))
	text, err := header.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestBalancerNamesTheClient: behind a named balancer the client is whom its PROXY header names, in Received and in the trace; a header
// from elsewhere is no header, and a balancer without one gets no word.
func TestBalancerNamesTheClient(t *testing.T) {
	const balancer = "127.0.0.2"
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	replaceInConfig(t, n, "smtp:\n", "smtp:\n  proxy_from: ["+balancer+"/32]\n")
	n.start(t, "sealpost")

	d := dialFrom(t, balancer, n.smtp, proxyHeader(t, "192.0.2.7:40000"))
	d.want("220")
	d.give("jane@customer.example", testRoute, mailWith("balanced", "text", []byte("file")), "250")
	received := string(waitMails(t, org, 1)[0].Raw)
	if !strings.Contains(received, "[192.0.2.7]") || strings.Contains(received, balancer) {
		t.Errorf("Received does not name the client:\n%s", received)
	}
	out := n.must(t, "trace", "<62616c616e636564@customer.example>", "--config", n.config())
	if !strings.Contains(out, "a mail came from 192.0.2.7,") || strings.Contains(out, balancer) {
		t.Errorf("the trace does not name the client:\n%s", out)
	}

	forged := dialFrom(t, "127.0.0.1", n.smtp, proxyHeader(t, "192.0.2.8:40000")+"\r\nEHLO customer.example\r\n")
	for said := forged.want("220"); ; {
		line, err := forged.text.ReadLine()
		if err != nil {
			break
		}
		if !strings.HasPrefix(line, "5") && !strings.HasPrefix(line, "221") && !strings.HasPrefix(line, "4") {
			t.Errorf("a forged header is followed by %q, after %q", line, said)
			break
		}
	}
	silent := dialFrom(t, balancer, n.smtp, "EHLO customer.example\r\n")
	if line, err := silent.text.ReadLine(); err == nil {
		t.Errorf("a balancer without a header is told %q", line)
	}
	plain := dial(t, n.smtp)
	plain.give("jane@customer.example", testRoute, mailWith("straight", "text", []byte("file")), "250")
	if out := n.must(t, "trace", "<7374726169676874@customer.example>", "--config", n.config()); !strings.Contains(out, "a mail came from 127.0.0.1,") {
		t.Errorf("the trace of a client that comes straight:\n%s", out)
	}
}
