package crypto

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// Secrets never reach a log, an error string or a page by being printed, however that is done.
func TestNothingSecretPrints(t *testing.T) {
	f := newFixture(t, 1000, []byte("text"))
	o := f.open(t)
	keyring, err := NewKeyring(testTime)
	if err != nil {
		t.Fatal(err)
	}
	begun, err := f.sealer.Begin(f.id, testTime, "mail")
	if err != nil {
		t.Fatal(err)
	}
	k, s := f.sealed.Keycode, f.sealed.ServerSecret
	proof, err := k.Proof(f.id)
	if err != nil {
		t.Fatal(err)
	}
	var needles []string
	for _, raw := range [][]byte{k.raw[:], s.raw[:], proof.raw[:], o.sessionKey, keyring.index[:], begun.sessionKey, []byte(fileName(0))} {
		needles = append(needles, base64.RawURLEncoding.EncodeToString(raw), hex.EncodeToString(raw),
			strings.ToUpper(hex.EncodeToString(raw)), string(raw), strings.Trim(fmt.Sprintf("%d", raw), "[]"))
	}
	values := []any{
		k, &k, s, &s, proof, &proof, Link{"https://x.example", f.id, k}, f.sealed, &f.sealed, begun, o, *o,
		o.Manifest(), o.Manifest().Items, o.Manifest().Items[0], keyring, f.signer, f.recovery,
		map[string]any{"k": k}, []Keycode{k},
	}
	for _, v := range values {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		if _, ok := v.([]ManifestItem); !ok { // the JSON of items is the format itself
			slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		}
		for _, needle := range needles {
			if strings.Contains(out.String(), needle) {
				t.Errorf("%T prints a secret", v)
				break
			}
		}
	}
	if out, err := json.Marshal(struct{ K Keycode }{k}); err != nil || string(out) != `{"K":"[redacted]"}` {
		t.Errorf("JSON: %s, %v", out, err)
	}
}

func TestParseSecretsStrictly(t *testing.T) {
	good := Keycode{raw: [32]byte(pattern(32))}
	if k, err := ParseKeycode(good.Reveal()); err != nil || k != good {
		t.Errorf("keycode does not round-trip: %v", err)
	}
	if s, err := ParseServerSecret(good.Reveal()); err != nil || s.raw != good.raw {
		t.Errorf("server secret does not round-trip: %v", err)
	}
	if p, err := ParseProof(good.Reveal()); err != nil || p.raw != good.raw {
		t.Errorf("proof does not round-trip: %v", err)
	}
	text := strings.Repeat("A", 42)
	for _, bad := range []string{
		"", text, text + "AA", text + "B", text + "A=", text + "+", " " + text + "A", text + "\n", text + "A\n", text[:20] + "\r\n" + text[:23],
		strings.Repeat("A", 43) + "=", hex.EncodeToString(make([]byte, 32)),
	} {
		if _, err := ParseKeycode(bad); err == nil {
			t.Errorf("accepted %q", bad)
		} else if len(bad) > 5 && strings.Contains(err.Error(), bad) {
			t.Errorf("the error repeats %q", bad)
		}
	}
}

func TestParseLink(t *testing.T) {
	id := ID{0xab, 15: 1}
	k := Keycode{raw: [32]byte(pattern(32))}
	for _, portal := range []string{"https://files.example.com", "https://example.com:8443/sealpost", "http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:8080", "https://x.example/p/q"} {
		want := Link{Portal: portal, ID: id, Keycode: k}
		if want.Reveal() != portal+"/p/"+id.String()+"#"+k.Reveal() {
			t.Errorf("reveals %s", want.Reveal())
		}
		got, err := ParseLink(" \t" + want.Reveal() + "\r\n")
		if err != nil || got != want {
			t.Errorf("%s: %v", portal, err)
		}
		if got.String() != portal+"/p/"+id.String()+"#[redacted]" {
			t.Errorf("prints as %s", got)
		}
	}
	good := Link{Portal: "https://files.example.com", ID: id, Keycode: k}.Reveal()
	place := strings.TrimSuffix(good, "#"+k.Reveal())
	cases := map[string]string{
		"":                                      "not a Secure Link",
		"https://files.example.com/":            "not a Secure Link",
		place:                                   "the link is incomplete: ",
		place + "#":                             "the link is incomplete: ",
		good[:len(good)-1]:                      "the link is incomplete",
		good + ".":                              "damaged",
		strings.Replace(good, "/p/", "/p/x", 1): "lower-case hex digits",
		strings.Replace(good, "ab0", "AB0", 1):  "lower-case hex digits",
		strings.Replace(good, "#", "?a=b#", 1):  "lower-case hex digits",
		strings.Replace(good, "https", "http", 1):                  "https://",
		strings.Replace(good, "https://", "", 1):                   "https://",
		strings.Replace(good, "https://", "ftp://", 1):             "https://",
		strings.Replace(good, "https://", "https://u:p@", 1):       "https://",
		strings.Replace(good, ".com/p/", ".com?x=1/p/", 1):         "https://",
		strings.Replace(good, "files.example.com", "", 1):          "https://",
		strings.Replace(good, "files.example.com", "a b%zz", 1):    "https://",
		strings.Replace(good, "https://files.", "http://127.", 1):  "https://",
		strings.Replace(good, "https://files.example.com", "p", 1): "https://",
	}
	for link, want := range cases {
		_, err := ParseLink(link)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", link, err)
		}
		if err != nil && strings.Contains(err.Error(), k.Reveal()[:20]) {
			t.Errorf("the error repeats the keycode: %v", err)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add("https://files.example.com/p/" + ID{}.String() + "#" + Keycode{}.Reveal())
	f.Add("http://[::1]/p//p/x#")
	f.Fuzz(func(t *testing.T, s string) {
		link, err := ParseLink(s)
		if err != nil {
			return
		}
		if link.Reveal() != strings.TrimSpace(s) {
			t.Errorf("%q parses as another link", s)
		}
		if again, err := ParseLink(link.Reveal()); err != nil || again != link {
			t.Errorf("%q does not parse again: %v", s, err)
		}
	})
}

func TestObjectNames(t *testing.T) {
	id := ID{0xcd, 15: 2}
	for _, name := range []string{HeadName(id, testTime, 1), HeadName(id, testTime, 1234), SegmentName(id, testTime), QueueName(id, testTime)} {
		n, err := ParseObjectName(name)
		if err != nil || n.ID != id || n.Day != "20261124" || n.String() != name || len(n.Nonce) != 16 {
			t.Errorf("%s: %+v, %v", name, n, err)
		}
	}
	if n, _ := ParseObjectName(HeadName(id, testTime, 12)); n.Kind != KindHead || n.Seq != 12 {
		t.Errorf("head: %+v", n)
	}
	if a, b := SegmentName(id, testTime), SegmentName(id, testTime); a == b {
		t.Error("names repeat")
	}
	const nonce = "0123456789abcdef"
	for _, bad := range []string{
		"", "/", "20261124/", "20261324/" + id.String() + ".s." + nonce, "2026112/" + id.String() + ".s." + nonce,
		"20261124/" + id.String() + ".s.1." + nonce, "20261124/" + id.String() + ".h." + nonce, "20261124/" + id.String() + ".x." + nonce,
		"20261124/" + id.String() + ".h.0." + nonce, "20261124/" + id.String() + ".h.01." + nonce, "20261124/" + id.String() + ".h.+1." + nonce,
		"20261124/" + id.String() + ".h.1000000000." + nonce, "20261124/" + id.String() + ".s." + strings.ToUpper(nonce),
		"20261124/" + strings.ToUpper(id.String()) + ".s." + nonce, "20261124/../" + id.String() + ".s." + nonce, "20261124/" + id.String() + ".s." + nonce + "/",
		"20261124/" + id.String() + ".s." + nonce + ".", "20261124\\" + id.String() + ".s." + nonce, " 20261124/" + id.String() + ".s." + nonce,
	} {
		if _, err := ParseObjectName(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestLatestHead(t *testing.T) {
	id, other := ID{1}, ID{2}
	nine, ten := HeadName(id, testTime, 9), HeadName(id, testTime, 10)
	names := []string{"junk", SegmentName(id, testTime), ten, nine, HeadName(other, testTime, 11), QueueName(id, testTime)}
	if got, ok := LatestHead(id, names); !ok || got != ten {
		t.Errorf("latest is %s", got)
	}
	if _, ok := LatestHead(ID{3}, names); ok {
		t.Error("found the head of a package that has none")
	}
	a, b := HeadName(id, testTime, 11), HeadName(id, testTime, 11)
	if got, _ := LatestHead(id, []string{a, b}); got != max(a, b) {
		t.Error("of two with one SEQ, not the last")
	}
	if got, _ := LatestHead(id, []string{b, a}); got != max(a, b) {
		t.Error("depends on the order")
	}
}

func FuzzParseObjectName(f *testing.F) {
	f.Add(HeadName(ID{1}, testTime, 3))
	f.Add(SegmentName(ID{1}, testTime))
	f.Add(QueueName(ID{}, testTime))
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseObjectName(s); err == nil && n.String() != s {
			t.Errorf("%q has another spelling: %q", s, n)
		}
	})
}
