package senderauth

import (
	"context"
	"strings"
	"testing"

	"sealpost/gateway"
)

func BenchmarkAuthenticate(b *testing.B) {
	_, records := keys()
	a := newTest(zones(map[string][]string{
		"rsa._domainkey.sender.example": {records["rsa"]},
		"sender.example":                {"v=spf1 ip4:192.0.2.10 -all"},
		"_dmarc.sender.example":         {"v=DMARC1; p=reject"},
	}))
	for _, size := range []struct {
		name  string
		bytes int
	}{{"5KiB", 5 << 10}, {"10MiB", 10 << 20}} {
		line := strings.Repeat("x", 76) + "\r\n"
		mail := sign(b, plain("x@sender.example")+strings.Repeat(line, size.bytes/len(line)), "sender.example", "rsa")
		b.Run(size.name, func(b *testing.B) {
			b.SetBytes(int64(len(mail)))
			b.ReportAllocs()
			for b.Loop() {
				got, _, err := a.Authenticate(context.Background(), envelopeFrom("a@sender.example"), strings.NewReader(mail))
				if err != nil || got.DMARC != gateway.AuthPass {
					b.Fatal(got, err)
				}
			}
		})
	}
}
