package senderauth

import (
	"net"
	"regexp"
	"strings"

	"blitiri.com.ar/go/spf"

	"sealpost/gateway"
)

var plainLocal = regexp.MustCompile(`^[A-Za-z0-9.+_=-]{1,64}$`)

// checkSPF evaluates SPF (RFC 7208) for the MAIL FROM domain. The HELO name takes its place for the null
// sender (section 2.4), and where the domain publishes nothing and the HELO name does.
func (m *judgement) checkSPF(envelope gateway.Envelope) finding {
	if !envelope.Client.IsValid() {
		return finding{result: gateway.AuthNone}
	}
	ip := net.IP(envelope.Client.Unmap().AsSlice())
	hello := domainOf(envelope.Hello)
	if envelope.MailFrom == "" {
		f := m.checkHost(ip, hello, "postmaster", hello)
		f.helo, f.dmarc = true, true
		return f
	}
	at := strings.LastIndexByte(envelope.MailFrom, '@')
	local := envelope.MailFrom[:max(at, 0)]
	if !plainLocal.MatchString(local) {
		local = "postmaster" // it counts only in macros, where it could not be looked up either
	}
	from := m.checkHost(ip, hello, local, domainOf(envelope.MailFrom[at+1:]))
	from.dmarc = true
	if from.result == gateway.AuthNone && hello != "" {
		if f := m.checkHost(ip, hello, "postmaster", hello); f.result != gateway.AuthNone {
			f.helo = true
			return f
		}
	}
	return from
}

func (m *judgement) checkHost(ip net.IP, hello, local, domain string) finding {
	if domain == "" {
		return finding{result: gateway.AuthNone} // RFC 7208 section 4.3
	}
	// The error only explains the result, in words that a sender can choose.
	result, _ := spf.CheckHostWithSender(ip, hello, local+"@"+domain,
		spf.WithContext(m.lookups), spf.WithResolver(m.a.dns))
	return finding{result: gateway.AuthResult(result), domain: domain}
}
