package main

import (
	"bytes"
	"context"
	"net"
	"net/smtp"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/gateway/rewrite"
	"sealpost/gateway/smtpd"
	"sealpost/gateway/spool"
)

// BenchmarkScanOfText shows what scan and plan of a text mail cost, with the default policy and so its detectors, beside
// the SMTP session that brings the mail and does nothing with it. scan/session is the ratio of the times in this run.
func BenchmarkScanOfText(b *testing.B) {
	mail := []byte("From: a@customer.example\r\nTo: support@example.com\r\nSubject: Order 4711\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat("I have not received my order of 24 November, number 12345678.\r\n", 50))
	rules, err := newRules(config.Policy{
		InlineImages: 16 << 10, Forwarded: config.ForwardedWalk, Signed: config.SignedText,
		Text: config.Text{Card: config.ActionCount, IBAN: config.ActionCount, SSN: config.ActionCount},
	})
	if err != nil {
		b.Fatal(err)
	}
	send := startDiscard(b)
	var session, scan time.Duration
	for b.Loop() {
		begin := time.Now()
		send(mail)
		session += time.Since(begin)
		begin = time.Now()
		msg, err := rewrite.Scan(bytes.NewReader(mail), rewrite.DefaultLimits())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := rewrite.NewPlan(msg, rules); err != nil {
			b.Fatal(err)
		}
		scan += time.Since(begin)
	}
	b.ReportMetric(scan.Seconds()/session.Seconds(), "scan/session")
}

// startDiscard starts a server that forgets each mail, and returns what sends it one, in a session of its own.
func startDiscard(b *testing.B) (send func(mail []byte)) {
	b.Helper()
	mails, err := spool.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	server, err := smtpd.New(smtpd.Options{
		Hostname: "mx.example.com", MaxMessageSize: 1 << 20, Limits: smtpd.DefaultLimits(), Router: discard{}, Handler: discard{},
		NewSpooled: func() (gateway.Spooled, error) { return mails.New(), nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	b.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			b.Error(err)
		}
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	return func(mail []byte) {
		if err := smtp.SendMail(listener.Addr().String(), nil, "a@customer.example", []string{"support@example.com"}, mail); err != nil {
			b.Fatal(err)
		}
	}
}

// discard takes every mail for every address, and keeps none.
type discard struct{}

func (discard) Route(_, address string) (gateway.Route, error) {
	return gateway.Route{Address: address}, nil
}

func (discard) Accept(context.Context, gateway.Envelope, gateway.Spooled) (string, error) {
	return "1", nil
}

func (discard) Settle(string, bool) {}
