package policy

import (
	"testing"

	"sealpost/gateway"
)

func TestDefaultVerdicts(t *testing.T) {
	tests := []struct {
		name        string
		typ         string
		disposition string
		filename    string
		encoding    string
		size        int64
		inReport    bool
		fact        func(*gateway.Part)
		want        gateway.Verdict
	}{
		{name: "plain body", typ: "text/plain", want: gateway.Keep},
		{name: "html body", typ: "text/html", disposition: "inline", want: gateway.Keep},
		{name: "enriched body", typ: "text/enriched", want: gateway.Keep},
		{name: "richtext body", typ: "text/richtext", want: gateway.Keep},
		{name: "amp alternative", typ: "text/x-amp-html", want: gateway.Keep},
		{name: "watch alternative", typ: "text/watch-html", want: gateway.Keep},
		{name: "misspelt disposition", typ: "text/plain", disposition: "inlin", want: gateway.Keep},
		{name: "text as attachment", typ: "text/plain", disposition: "attachment", want: gateway.Seal},
		{name: "text with a name", typ: "text/plain", disposition: "inline", filename: "a.txt", want: gateway.Seal},
		{name: "other text", typ: "text/calendar", want: gateway.Seal},
		{name: "pdf", typ: "application/pdf", want: gateway.Seal},
		{name: "inline picture", typ: "image/png", disposition: "inline", want: gateway.Seal},
		{name: "forwarded mail", typ: "message/rfc822", want: gateway.Seal},
		{name: "forwarded mail in a report", typ: "message/rfc822", inReport: true, want: gateway.Seal},
		{name: "status in a report", typ: "message/delivery-status", inReport: true, want: gateway.Keep},
		{name: "named status in a report", typ: "message/delivery-status", inReport: true,
			disposition: "attachment", filename: "details.txt", want: gateway.Keep},
		{name: "status in quoted-printable", typ: "message/global-delivery-status", inReport: true,
			encoding: "quoted-printable", size: 64 << 10, want: gateway.Keep},
		{name: "status in 8bit", typ: "message/global-delivery-status", inReport: true, encoding: "8bit", want: gateway.Keep},
		{name: "status in base64", typ: "message/delivery-status", inReport: true, encoding: "base64", want: gateway.Keep},
		{name: "status called a mail", typ: "message/delivery-status", inReport: true, filename: "a.eml", want: gateway.Seal},
		{name: "status in an unknown encoding", typ: "message/delivery-status", inReport: true, encoding: "x-uue", want: gateway.Seal},
		{name: "large status", typ: "message/delivery-status", inReport: true, size: 64<<10 + 1, want: gateway.Seal},
		{name: "headers called a mail", typ: "text/rfc822-headers", inReport: true, filename: "Lost.EML", want: gateway.Keep},
		{name: "status without an extension", typ: "message/delivery-status", inReport: true, filename: "status", want: gateway.Keep},
		{name: "status called a program", typ: "message/delivery-status", inReport: true, filename: "a.txt.exe", want: gateway.Seal},
		{name: "status called a page", typ: "message/delivery-status", inReport: true, filename: "a.html", want: gateway.Seal},
		{name: "status called a program with a dot", typ: "message/delivery-status", inReport: true, filename: "a.exe.", want: gateway.Seal},
		{name: "status called a folder", typ: "message/delivery-status", inReport: true, filename: "a.exe/b", want: gateway.Seal},
		{name: "receipt in a report", typ: "message/disposition-notification", inReport: true, want: gateway.Keep},
		{name: "headers in a report", typ: "text/rfc822-headers", inReport: true, want: gateway.Keep},
		{name: "abuse report", typ: "message/feedback-report", inReport: true, want: gateway.Keep},
		{name: "status outside a report", typ: "message/delivery-status", want: gateway.Seal},
		{name: "pdf in a report", typ: "application/pdf", inReport: true, want: gateway.Seal},
		{name: "unknown type", typ: "x/y", want: gateway.Seal},
		{name: "walked mail", typ: "message/rfc822", filename: "a.eml",
			fact: func(p *gateway.Part) { p.Walked = true }, want: gateway.Keep},
		{name: "mail called an attachment", typ: "message/rfc822", disposition: "attachment",
			fact: func(p *gateway.Part) { p.Walked = true }, want: gateway.Seal},
		{name: "pdf called a text", typ: "text/plain", fact: func(p *gateway.Part) { p.Content = "application/pdf" }, want: gateway.Seal},
		{name: "pdf called a status", typ: "message/delivery-status", inReport: true,
			fact: func(p *gateway.Part) { p.Content = "application/pdf" }, want: gateway.Seal},
		{name: "half of a Macintosh file", typ: "text/plain", fact: func(p *gateway.Part) { p.InMacFile = true }, want: gateway.Seal},
		{name: "uuencoded", typ: "text/plain", encoding: "x-uuencode", want: gateway.Seal},
		{name: "misspelt encoding", typ: "text/plain", encoding: "8-bit", want: gateway.Keep},
	}
	policy := Default()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			part := gateway.Part{
				Type: test.typ, Disposition: test.disposition,
				Filename: gateway.NewSecret(test.filename), InReport: test.inReport,
				Encoding: test.encoding, Size: test.size,
			}
			if test.fact != nil {
				test.fact(&part)
			}
			got, why := policy.Judge(part)
			if why == "" {
				t.Error("no reason is given")
			}
			if got != test.want {
				t.Errorf("verdict %q, want %q", got, test.want)
			}
		})
	}
}

func TestKeptTypes(t *testing.T) {
	policy, err := New(Options{KeepTypes: []string{"text/calendar", " Text/CSV"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		part gateway.Part
		want gateway.Verdict
	}{
		{"calendar", gateway.Part{Type: "text/calendar"}, gateway.Keep},
		{"named calendar", gateway.Part{Type: "text/calendar", Filename: gateway.NewSecret("Invite.ICS")}, gateway.Keep},
		{"attached calendar", gateway.Part{Type: "text/calendar", Disposition: "attachment", Filename: gateway.NewSecret("invite")}, gateway.Keep},
		{"table", gateway.Part{Type: "text/csv", Filename: gateway.NewSecret("orders.csv")}, gateway.Keep},
		{"calendar called a program", gateway.Part{Type: "text/calendar", Filename: gateway.NewSecret("a.ics.exe")}, gateway.Seal},
		{"calendar that may have a name", gateway.Part{Type: "text/calendar", Disposition: "attachment", Unclear: true}, gateway.Seal},
		{"calendar that is a PDF", gateway.Part{Type: "text/calendar", Content: "application/pdf"}, gateway.Seal},
		{"another text", gateway.Part{Type: "text/xml"}, gateway.Seal},
		{"text as attachment", gateway.Part{Type: "text/plain", Disposition: "attachment"}, gateway.Seal},
	} {
		if got, why := policy.Judge(test.part); got != test.want {
			t.Errorf("%s: %s, since %s", test.name, got, why)
		}
	}
	for _, typ := range []string{"application/pdf", "text/*", "text/", "text", "text/a;b", "text/plain", "TEXT/HTML", ""} {
		if _, err := New(Options{KeepTypes: []string{typ}}); err == nil {
			t.Errorf("%q is taken", typ)
		}
	}
}

// TestForwarded is what an admin can say of forwarded messages: of one by itself, and of one called an attachment.
func TestForwarded(t *testing.T) {
	for forwarded, want := range map[Forwarded][2]gateway.Verdict{
		"":               {gateway.Keep, gateway.Seal},
		ForwardedWalk:    {gateway.Keep, gateway.Seal},
		ForwardedWalkAll: {gateway.Keep, gateway.Keep},
		ForwardedSeal:    {gateway.Seal, gateway.Seal},
	} {
		policy, err := New(Options{Forwarded: forwarded})
		if err != nil {
			t.Fatal(err)
		}
		for i, disposition := range []string{"inline", "attachment"} {
			if got, why := policy.Judge(gateway.Part{Type: "message/rfc822", Walked: true, Disposition: disposition}); got != want[i] {
				t.Errorf("%q, %s: %s, since it is %s", forwarded, disposition, got, why)
			}
		}
	}
	if _, err := New(Options{Forwarded: "open"}); err == nil {
		t.Error("another word is taken")
	}
}
