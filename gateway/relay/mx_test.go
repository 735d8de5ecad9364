package relay

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/foxcpp/go-mockdns"

	"sealpost/gateway"
)

const mxDomain = "x-1a2b3c.case.salesforce.test."

// unused returns a port of 127.0.0.1 that is taken, and on which nobody listens.
func unused(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return netip.MustParseAddrPort(c.LocalAddr().String()).Port()
}

func TestMXIsOrdered(t *testing.T) {
	zones := map[string]mockdns.Zone{
		"three.test.": {MX: []net.MX{{Host: "c.test.", Pref: 30}, {Host: "a.test.", Pref: 10}, {Host: "b.test.", Pref: 20}}},
		"many.test.": {MX: []net.MX{
			{Host: "1.test.", Pref: 1}, {Host: "2.test.", Pref: 2}, {Host: "3.test.", Pref: 3},
			{Host: "4.test.", Pref: 4}, {Host: "5.test.", Pref: 5}, {Host: "6.test.", Pref: 6},
		}},
		"implicit.test.": {A: []string{"192.0.2.1"}},
		"null.test.":     {MX: []net.MX{{Host: ".", Pref: 0}}},
		"ours.test.":     {MX: []net.MX{{Host: "MX.example.com.", Pref: 10}, {Host: "b.test.", Pref: 20}}},
		"backup.test.":   {MX: []net.MX{{Host: "a.test.", Pref: 5}, {Host: "mx.example.com.", Pref: 10}, {Host: "b.test.", Pref: 10}, {Host: "c.test.", Pref: 20}}},
		"trouble.test.":  {Err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}},
	}
	r := New(Options{Hostname: "mx.example.com", Resolver: &mockdns.Resolver{Zones: zones}}, newQueue(), fakeCopies{})
	for _, c := range []struct {
		domain    string
		returning bool
		hosts     string
		err       error
	}{
		{"three.test", false, "a.test b.test c.test", nil},
		{"many.test", false, "1.test 2.test 3.test 4.test 5.test", nil},
		{"implicit.test", false, "implicit.test", nil},
		{"null.test", false, "", refusal{"5.1.10", "the domain accepts no mail (null MX)"}},
		{"ours.test", false, "", errLoop},
		{"backup.test", false, "a.test", nil},
		{"trouble.test", true, "", errDNS},
		{"gone.test", false, "", errNoMX},
		{"gone.test", true, "", refusal{"5.1.2", errNoMX.Error()}},
		{"[192.0.2.1]", true, "192.0.2.1", nil},
		{"[ipv6:2001:db8::1]", true, "2001:db8::1", nil},
		{"[nonsense]", true, "", refusal{"5.1.3", "the address literal cannot be read"}},
		{"", true, "", errNoMX},
	} {
		hosts, err := r.hosts(t.Context(), destination{domain: c.domain}, c.returning)
		if strings.Join(hosts, " ") != c.hosts || !errors.Is(err, c.err) {
			t.Errorf("%s: got %v, %v", c.domain, hosts, err)
		}
	}
}

// TestEqualMXAreShuffled: each of two equal servers comes first some time.
func TestEqualMXAreShuffled(t *testing.T) {
	r := New(Options{Hostname: "mx.example.com"}, newQueue(), fakeCopies{})
	first := map[string]bool{}
	for range 200 {
		hosts, err := r.exchangers([]*net.MX{{Host: "a.test."}, {Host: "b.test."}})
		if err != nil || len(hosts) != 2 {
			t.Fatal(hosts, err)
		}
		first[hosts[0]] = true
	}
	if len(first) != 2 {
		t.Errorf("first was always %v", first)
	}
}

// TestNextMXIsTried: what fails for now goes on to the next server within the attempt; what is rejected does not,
// nor what may have been taken.
func TestNextMXIsTried(t *testing.T) {
	for name, c := range map[string]struct {
		at    stage
		fault fault
		event gateway.DeliveryEvent
		taken int // by the second
	}{
		"greeting 4xx":   {stageGreeting, replies4, gateway.EventAccepted, 1},
		"connection cut": {stageMail, closes, gateway.EventAccepted, 1},
		"RCPT 4xx":       {stageRcpt, replies4, gateway.EventAccepted, 1},
		"final 4xx":      {stageFinal, replies4, gateway.EventAccepted, 1},
		"RCPT 5xx":       {stageRcpt, replies5, gateway.EventRejected, 0},
		"final cut":      {stageFinal, closes, gateway.EventDeferred, 0},
	} {
		t.Run(name, func(t *testing.T) {
			first := &scriptedHop{at: c.at, fault: c.fault}
			port := first.start(t).Port
			second := &scriptedHop{listen: net.JoinHostPort("127.0.0.2", strconv.Itoa(int(port)))}
			second.start(t)
			resolver := &mockdns.Resolver{Zones: map[string]mockdns.Zone{
				mxDomain:  {MX: []net.MX{{Host: "b.test.", Pref: 20}, {Host: "a.test.", Pref: 10}}},
				"a.test.": {A: []string{"127.0.0.1"}},
				"b.test.": {A: []string{"127.0.0.2"}},
			}}
			got := attemptOnce(t, Options{Resolver: resolver}, smallMail, gateway.NextHop{Port: port})
			host := map[bool]string{true: "b.test", false: "a.test"}[c.taken == 1]
			if got.Event != c.event || len(second.took()) != c.taken || got.Hop != net.JoinHostPort(host, strconv.Itoa(int(port))) {
				t.Errorf("got %v, %q, %d mails at the second", got.Attempt, got.Reply.Reveal(), len(second.took()))
			}
		})
	}
}

// TestIPv6 sends to an IPv6 address of a server whose IPv4 address is dead.
func TestIPv6(t *testing.T) {
	hop := &scriptedHop{}
	probe, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Log("no IPv6 on this machine: not tested")
		return
	}
	_ = probe.Close()
	hop.listen = "[::1]:0"
	port := hop.start(t).Port
	resolver := &mockdns.Resolver{Zones: map[string]mockdns.Zone{mxDomain: {A: []string{"127.0.0.3"}, AAAA: []string{"::1"}}}}
	if got := attemptOnce(t, Options{Resolver: resolver}, smallMail, gateway.NextHop{Port: port}); got.Event != gateway.EventAccepted {
		t.Errorf("got %v, %q", got.Attempt, got.Reply.Reveal())
	}
}

// TestReturnToManyDomains: mails back to senders go to the MX of each, and nothing of them is logged.
func TestReturnToManyDomains(t *testing.T) {
	hop := &scriptedHop{}
	port := hop.start(t).Port
	zones := map[string]mockdns.Zone{}
	q, copies := newQueue(), fakeCopies{}
	many(q, copies, gateway.ReturnRoute, 10)
	for i := range q.waiting {
		domain := "domain" + strconv.Itoa(i) + ".marker.example"
		q.waiting[i].ForwardTo = "customer@" + domain
		zones[domain+"."] = mockdns.Zone{A: []string{"127.0.0.1"}}
	}
	delete(zones, "domain0.marker.example.")
	opts := Options{Resolver: &mockdns.Resolver{Zones: zones}, ReturnHop: gateway.NextHop{Port: port}, AllowPrivateReturns: true}
	r := run(t, opts, q, copies, gateway.NextHop{})
	var events []gateway.DeliveryEvent
	for range 10 {
		got := r.result(t)
		events = append(events, got.Event)
		if got.Event == gateway.EventAccepted && got.Hop != sendersServer {
			t.Errorf("the hop %q is recorded", got.Hop)
		}
		if got.Event == gateway.EventRejected && got.untold != nullSender {
			t.Errorf("untold %q", got.untold)
		}
	}
	r.end(t)
	slices.Sort(events)
	if events[8] != gateway.EventAccepted || events[9] != gateway.EventRejected || len(hop.took()) != 9 {
		t.Errorf("got %v, %d mails", events, len(hop.took()))
	}
	if strings.Contains(r.log.String(), "marker") {
		t.Errorf("the log names a correspondent:\n%s", r.log.String())
	}
}

// TestImplicitMXIsNotLogged: the server of a domain without MX records is the domain of forward_to.
func TestImplicitMXIsNotLogged(t *testing.T) {
	hop := &scriptedHop{}
	port := hop.start(t).Port
	opts := Options{Resolver: &mockdns.Resolver{Zones: map[string]mockdns.Zone{mxDomain: {A: []string{"127.0.0.1"}}}}}
	d := newDelivery(1, len(smallMail))
	r := run(t, opts, newQueue(d), fakeCopies{d.Mail: text(smallMail)}, gateway.NextHop{Port: port})
	got := r.result(t)
	r.end(t)
	if got.Event != gateway.EventAccepted || got.Hop != net.JoinHostPort(strings.TrimSuffix(mxDomain, "."), strconv.Itoa(int(port))) {
		t.Errorf("got %v", got.Attempt)
	}
	if strings.Contains(r.log.String(), "salesforce") {
		t.Errorf("the log names it:\n%s", r.log.String())
	}
}
