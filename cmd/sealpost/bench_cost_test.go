package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"golang.org/x/sync/errgroup"

	"sealpost/gateway/clamd/clamdtest"
	"sealpost/sfclient/sftest"
)

// benchMessageID is the Message-ID that mailWith gives to a mail with the subject "bench".
const benchMessageID = "<62656e6368@customer.example>"

// costRounds: the gateways take turns, so that what disturbs the machine disturbs them alike.
const costRounds = 5

// BenchmarkCost shows what sender authentication and virus scanning each cost: the same signed mails, with SPF,
// DKIM and DMARC records in a real DNS server on loopback and a real clamd, through gateways that differ in
// those settings alone. ratio is mails/s with it over mails/s of the gateway with neither, in this run.
func BenchmarkCost(b *testing.B) {
	binary := buildSealpost(b)
	sign, record := dkimSigner(b)
	server := startDNS(b, "customer.example. TXT \"v=spf1 ip4:127.0.0.1 -all\"",
		"_dmarc.customer.example. TXT \"v=DMARC1; p=reject\"", record)
	scanner := clamdtest.Start(b)
	authentication := "authentication: {enabled: true}\ndns: [\"" + server + "\"]"
	scan := "scan: {clamd: \"" + scanner + "\"}"
	// clamdtest takes up to 1 MiB.
	for _, c := range []struct {
		name  string
		size  int
		count int // mails of a round
	}{{"5KiB", 5 << 10, 400}, {"900KiB", 900 << 10, 80}} {
		mail := append(sign(mailOf(c.size)), ".\r\n"...)
		nodes := []*costNode{
			startCost(b, binary, "neither", "authentication: {enabled: false}"),
			startCost(b, binary, "authentication", authentication),
			startCost(b, binary, "scan", "authentication: {enabled: false}\n"+scan),
			startCost(b, binary, "both", authentication+"\n"+scan),
		}
		for range costRounds {
			for _, n := range nodes {
				n.round(b, mail, c.count)
			}
		}
		for _, n := range nodes {
			n.judged(b)
			b.Run(fmt.Sprintf("size=%s/with=%s", c.name, n.name), func(b *testing.B) {
				n.report(b, nodes[0])
			})
		}
	}
}

// costNode is one of the gateways that are compared.
type costNode struct {
	*node
	name  string
	org   *sftest.Org
	mails int
	took  time.Duration
}

func startCost(b *testing.B, binary, name, settings string) *costNode {
	b.Helper()
	c := &costNode{name: name, org: startOrg(b, sftest.Options{Mode: sftest.Sink})}
	c.node = installWith(b, filepath.Join(b.TempDir(), "sealpost"), c.org.Addr(), settings+"\nnotices: {enabled: false}\nalerts: {mail: false}")
	c.start(b, binary)
	return c
}

func (c *costNode) round(b *testing.B, mail []byte, count int) {
	b.Helper()
	const connections = 10
	var sent atomic.Int64
	next := func() bool { return sent.Add(1) <= int64(count) }
	began := time.Now()
	var group errgroup.Group
	for range connections {
		group.Go(func() error { return sendRaw(c.smtp, mail, next) })
	}
	if err := group.Wait(); err != nil {
		b.Fatalf("send with %s: %v\n%s", c.name, err, lastLines(c.logs.String()))
	}
	c.took += time.Since(began)
	c.mails += count
	waitDelivered(b, c.node, c.org, c.mails)
}

// judged fails where a gateway did not do what its time is taken for.
func (c *costNode) judged(b *testing.B) {
	b.Helper()
	told := c.must(b, "trace", benchMessageID, "--config", c.config())
	if want := c.name == "authentication" || c.name == "both"; strings.Contains(told, "SPF pass, DKIM pass, DMARC pass") != want {
		b.Fatalf("with %s: a signature was judged: %t, want %t\n%s", c.name, !want, want, lastLines(told))
	}
	if want := c.name == "scan" || c.name == "both"; strings.Contains(told, "the virus scanner found nothing") != want {
		b.Fatalf("with %s: scanned: %t, want %t\n%s", c.name, !want, want, lastLines(told))
	}
}

func (c *costNode) rate() float64 { return float64(c.mails) / c.took.Seconds() }

func (c *costNode) report(b *testing.B, neither *costNode) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(c.rate(), "mails/s")
	b.ReportMetric(c.rate()/neither.rate(), "ratio")
}

// dkimSigner returns what signs for customer.example, and the DNS record of its key.
func dkimSigner(b *testing.B) (sign func(mail []byte) []byte, record string) {
	b.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	sign = func(mail []byte) []byte {
		var signed bytes.Buffer
		if err := dkim.Sign(&signed, bytes.NewReader(mail), &dkim.SignOptions{Domain: "customer.example", Selector: "s", Signer: private}); err != nil {
			b.Fatal(err)
		}
		return signed.Bytes()
	}
	return sign, "s._domainkey.customer.example. TXT \"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public) + "\""
}
