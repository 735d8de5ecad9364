package senderauth

import (
	"strings"
	"testing"
)

func TestIsOurs(t *testing.T) {
	for _, forged := range []string{
		"mx.gate.example; spf=pass",
		"MX.Gate.EXAMPLE; spf=pass",
		"mx.gate.example.; spf=pass",
		"mx.gate.example",
		"  mx.gate.example ; none",
		"\r\n\tmx.gate.example;\r\n\tspf=pass",
		"mx.gate.example 1; spf=pass",
		"mx.gate.example/1; spf=pass",
		"mx.gate.example. 1 ; spf=pass",
		"mx.gate.example(comment)1; spf=pass",
		"(a comment) mx.gate.example; spf=pass",
		"(nested (comment; with) semicolon) mx.gate.example (more); spf=pass",
		`"mx.gate.example"; spf=pass`,
		`"mx.gate\.example"; spf=pass`,
		`"mx".gate.example; spf=pass`,
		`" mx.gate.example "; spf=pass`,
		"mx.gate. example; spf=pass",
		"mx.(c)gate.example; spf=pass",
		"mx.gate.example spf=pass",
		"mx.gate.example= ; spf=pass",
		"(open mx.gate.example; spf=pass",
		`"mx.gate.example; spf=pass`,
		"; mx.gate.example; spf=pass",
		"ｍｘ.gate.example; spf=pass",
		"mx.gate.example\x00; spf=pass",
		"mx.gate.example:25; spf=pass",
	} {
		if !IsOurs(forged, "mx.gate.example") {
			t.Errorf("not recognised: %q", forged)
		}
	}
	for _, kept := range []string{
		"", ";", m365Pass, gmailPass, rspamd,
		"mx.other.example; spf=pass",
		"mx.gate.example.other.example; spf=pass",
		"amx.gate.example; spf=pass",
		"mx.other.example (for mx.gate.example); spf=pass smtp.helo=mx.gate.example",
		"gate.example; spf=pass",
	} {
		if IsOurs(kept, "mx.gate.example") {
			t.Errorf("taken for ours: %q", kept)
		}
	}
	if IsOurs("; spf=pass", "") {
		t.Error("ours without an authserv-id")
	}
	if !IsOurs("bücher.example; spf=pass", "xn--bcher-kva.example") || !IsOurs("xn--bcher-kva.example; none", "bücher.example") {
		t.Error("U-labels and A-labels are not taken for the same")
	}
}

func FuzzIsOurs(f *testing.F) {
	for _, seed := range []string{"", "(", `"`, "(c)", " ", "\t(a (b) c)", `("\`, "1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		IsOurs(text, "mx.gate.example")
		// Whatever well-formed comment stands before it, our id is recognised.
		comment := "(" + strings.NewReplacer("(", "", ")", "", `\`, "").Replace(text) + ")"
		if !IsOurs(comment+" mx.gate.example; spf=pass", "mx.gate.example") {
			t.Errorf("not recognised behind %q", comment)
		}
		if !IsOurs("mx.gate.example; "+text, "mx.gate.example") && !strings.ContainsAny(text, `("`) {
			t.Errorf("not recognised before %q", text)
		}
	})
}
