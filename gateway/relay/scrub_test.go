package relay

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestScrubHidesForwardTo(t *testing.T) {
	const address = "caseinbox@x-1a2b3c.case.salesforce.test"
	for name, c := range map[string]struct{ reply, want string }{
		"nothing":        {"2.0.0 Ok: queued as 4F1", "2.0.0 Ok: queued as 4F1"},
		"address":        {"5.1.1 <" + address + ">: unknown", "5.1.1 <support@example.com>: unknown"},
		"case":           {"<" + strings.ToUpper(address) + ">", "<support@example.com>"},
		"twice":          {address + " " + address, "support@example.com support@example.com"},
		"over two lines": {"5.1.1 no caseinbox@x-1a2b\n5.1.1 3c.case.salesforce.test here", "5.1.1 no support@example.com here"},
		"over many":      {strings.Join(strings.Split(address, ""), "\r\n"), "support@example.com"},
		"with controls":  {strings.Join(strings.Split(address, ""), "\x00\x1b"), "support@example.com"},
		"with a joiner":  {strings.ReplaceAll(address, "-", "-\u200d"), "support@example.com"},
		"local part":     {"no user CaseInbox here", "no user [hidden] here"},
		"domain":         {"relay denied for x-1a2b3c.case.salesforce.TEST", "relay denied for [hidden]"},
		"encoded":        {"caseinbox%40x-1a2b3c.case.salesforce.test", "support@example.com"},
		"lines":          {"4.2.0 one\n4.2.0 two\r\n\tthree\x07", "4.2.0 one two three"},
		"invalid UTF-8":  {"a\xffb", "a?b"},
	} {
		if got := Scrub(c.reply, address, "support@example.com"); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if got := Scrub(strings.Repeat("ä", 2000), address, "x"); got != strings.Repeat("ä", 1000) {
		t.Errorf("a long reply is kept with %d characters", utf8.RuneCountInString(got))
	}
}

// FuzzScrub: whatever a server says, the address is not in what is kept.
func FuzzScrub(f *testing.F) {
	f.Add("550 5.1.1 <a@b.example> unknown", "a@b.example", "support@example.com")
	f.Add("a@b.c.c", "a@b.c", "a@b")
	f.Add("xsupport@y.com", "support@y.com", "xsupport@y.com")
	f.Add("a@\n5.1.1 b", "a@b", "")
	f.Add("[hhiddenidden]", "hidden", "support@example.com")
	f.Fuzz(func(t *testing.T, reply, forwardTo, public string) {
		got := Scrub(reply, forwardTo, public)
		if utf8.RuneCountInString(got) > maxReply || !utf8.ValidString(got) || strings.ContainsFunc(got, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			t.Errorf("kept %q", got)
		}
		secret := strings.TrimSpace(forwardTo)
		if secret == "" || !utf8.ValidString(secret) || strings.Contains(strings.ToLower(public), strings.ToLower(secret)) || strings.ContainsAny(secret, `"\`) {
			return
		}
		for i := range got {
			if end := i + len(secret); end <= len(got) && strings.EqualFold(got[i:end], secret) {
				t.Errorf("%q is in %q", secret, got)
			}
		}
	})
}
