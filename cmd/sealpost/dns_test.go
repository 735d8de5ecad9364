package main

import (
	"net"
	"testing"

	"github.com/miekg/dns"
)

// startDNS answers from a zone file's lines, on loopback, and says that all other names do not exist.
func startDNS(t testing.TB, lines ...string) string {
	t.Helper()
	zone := map[string][]dns.RR{}
	for _, line := range lines {
		record, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		zone[record.Header().Name] = append(zone[record.Header().Name], record)
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{PacketConn: packets, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(q)
		answer.RecursionAvailable = true // else an answer without records would send the asker to another server
		records, known := zone[dns.CanonicalName(q.Question[0].Name)]
		if !known {
			answer.Rcode = dns.RcodeNameError
		}
		for _, record := range records {
			if record.Header().Rrtype == q.Question[0].Qtype {
				answer.Answer = append(answer.Answer, record)
			}
		}
		if err := w.WriteMsg(answer); err != nil {
			t.Errorf("answer a question: %v", err)
		}
	})}
	served := make(chan error, 1)
	go func() { served <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return packets.LocalAddr().String()
}
