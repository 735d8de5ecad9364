package srs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testKey(fill byte) Key {
	k := Key{Created: start.Truncate(day), secret: new([keyBytes]byte)}
	for i := range k.secret {
		k.secret[i] = fill
	}
	return k
}

func rewriter(t testing.TB, now time.Time, keys ...Key) *Rewriter {
	t.Helper()
	if len(keys) == 0 {
		keys = []Key{testKey(1)}
	}
	r, err := New(Options{Domain: "srs.Example.com", Keys: keys, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestForwardAndBack(t *testing.T) {
	r := rewriter(t, start)
	tests := []struct{ name, sender, begins, back string }{
		{"plain", "Jane.Doe@example.org", "SRS0=", ""},
		{"equals sign in the local part", "bounce+a=b=c@example.org", "SRS0=", ""},
		{"quoted", `"two words"@example.org`, `"SRS0=`, ""},
		{"unquoted by a parser", `two words@example.org`, `"SRS0=`, `"two words"@example.org`},
		{"quotes inside", `"say \"hi\\"@example.org`, `"SRS0=`, ""},
		{"domain literal", "jane@[192.0.2.1]", `"SRS0=`, ""},
		{"UTF-8", "jörg@bücher.example", "SRS0=", ""},
		{"long", strings.Repeat("a", 64) + "@example.org", "SRS0=", ""},
		{"another's SRS0", "SRS0=abcd=AB=example.net=jane@fwd.example.org", "SRS1=", ""},
		{"another's SRS0, other separator", "SRS0+abcd=AB=example.net=jane@fwd.example.org", "SRS1=", ""},
		{"another's SRS1", "SRS1=xyz=fwd.example.org==abcd=AB=example.net=jane@fwd2.example.net", "SRS1=", "SRS0=abcd=AB=example.net=jane@fwd.example.org"},
		{"SRS0 in name only", "srs0-fan@example.org", "SRS0=", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address, err := r.Forward(tt.sender)
			if err != nil || !strings.HasPrefix(address, tt.begins) || !strings.HasSuffix(address, "@srs.example.com") {
				t.Fatalf("Forward: %q, %v", address, err)
			}
			want := tt.back
			if want == "" {
				want = tt.sender
			}
			if back, err := r.Reverse(address); err != nil || back != want {
				t.Errorf("Reverse(%q) = %q, %v, want %q", address, back, err, want)
			}
			for name, folded := range map[string]string{"lower": lower(address), "domain": strings.Replace(address, "srs.example.com", "SRS.EXAMPLE.COM", 1)} {
				if back, err := r.Reverse(folded); err != nil || lower(back) != lower(want) {
					t.Errorf("Reverse of %s-cased = %q, %v", name, back, err)
				}
			}
		})
	}
}

func TestForwardLeavesAlone(t *testing.T) {
	r := rewriter(t, start)
	for _, sender := range []string{"", "SRS0=a=b=c=d@srs.example.com", "x@SRS.example.com"} {
		if got, err := r.Forward(sender); err != nil || got != sender {
			t.Errorf("Forward(%q) = %q, %v", sender, got, err)
		}
	}
	own, _ := r.Forward("jane@example.org")
	loop := "SRS1=zzzz=srs.example.com=" + strings.TrimPrefix(strings.TrimSuffix(own, "@srs.example.com"), "SRS0") + "@other.example"
	if got, err := r.Forward(loop); err != nil || got != own {
		t.Errorf("our own address come by another = %q, %v, want %q", got, err, own)
	}
}

func TestForwardRefuses(t *testing.T) {
	r := rewriter(t, start)
	for _, sender := range []string{"nobody", "@example.org", "a@", "a\r\nb@example.org", "a@exa=mple.org", "\"a@example.org", "\"\"@example.org", "a\xff@example.org", strings.Repeat("a", 240) + "@example.org"} {
		got, err := r.Forward(sender)
		if err == nil {
			t.Errorf("Forward(%q) = %q", sender, got)
		} else if sender != "" && strings.Contains(err.Error(), sender) {
			t.Errorf("the error repeats the sender: %v", err)
		}
	}
}

// The expected hash was computed with Python's hmac module.
func TestVector(t *testing.T) {
	const want = "SRS0=PS4SF6FI=BB=example.org=Jane@srs.example.com"
	if got, err := rewriter(t, start).Forward("Jane@example.org"); err != nil || got != want {
		t.Errorf("Forward = %q, %v, want %q", got, err, want)
	}
}

func TestReverseSeparators(t *testing.T) {
	r := rewriter(t, start)
	address, _ := r.Forward("jane@example.org")
	for _, sep := range "-+=" {
		if back, err := r.Reverse("SRS0" + string(sep) + address[5:]); err != nil || back != "jane@example.org" {
			t.Errorf("%c: %q, %v", sep, back, err)
		}
	}
}

func TestReverseNotOurs(t *testing.T) {
	r := rewriter(t, start)
	address, _ := r.Forward("jane@example.org")
	tests := map[string]error{
		"support@srs.example.com": ErrNotSRS, "srs0@srs.example.com": ErrNotSRS, "": ErrNotSRS, "nobody": ErrNotSRS,
		strings.Replace(address, "@srs.", "@other.", 1): ErrNotSRS,
		"SRS0=x@srs.example.com":                        ErrForged, "SRS1=x@srs.example.com": ErrForged,
		"SRS0=====@srs.example.com": ErrForged, "SRS1=ABCDEFGHAB=victim.example==a=b=c=d@srs.example.com": ErrForged,
		"SRS1" + address[4:]: ErrForged,
	}
	for in, want := range tests {
		if got, err := r.Reverse(in); !errors.Is(err, want) || got != "" {
			t.Errorf("Reverse(%q) = %q, %v, want %v", in, got, err, want)
		}
	}
}

// Nobody can make an address of ours: the way back is no open relay.
func TestTamperedNeverPasses(t *testing.T) {
	r := rewriter(t, start)
	for _, sender := range []string{"jane.doe@example.org", "SRS0=abcd=AB=example.net=jane@fwd.example.org"} {
		address, _ := r.Forward(sender)
		local := strings.TrimSuffix(address, "@srs.example.com")
		for i := 5; i < len(local); i++ {
			for _, c := range "a2Z=.-" {
				changed := local[:i] + string(c) + local[i+1:]
				if lower(changed) == lower(local) {
					continue
				}
				if back, err := r.Reverse(changed + "@srs.example.com"); err == nil {
					t.Errorf("%q passed, to %q", changed, back)
				}
			}
			if back, err := r.Reverse(local[:i] + local[i+1:] + "@srs.example.com"); err == nil {
				t.Errorf("without character %d passed, to %q", i, back)
			}
		}
	}
}

func TestExpiry(t *testing.T) {
	for _, sender := range []string{"jane@example.org", "SRS0=abcd=AB=example.net=jane@fwd.example.org"} {
		address, _ := rewriter(t, start).Forward(sender)
		for n, want := range map[int]error{-2: ErrExpired, -1: nil, 0: nil, 21: nil, 22: ErrExpired, 500: ErrExpired, 1022: ErrExpired} {
			if _, err := rewriter(t, start.Add(time.Duration(n)*day)).Reverse(address); !errors.Is(err, want) {
				t.Errorf("after %d days: %v, want %v", n, err, want)
			}
		}
	}
}

func TestRotation(t *testing.T) {
	old, newer := testKey(1), testKey(2)
	address, _ := rewriter(t, start, old).Forward("jane@example.org")
	if _, err := rewriter(t, start, newer, old).Reverse(address); err != nil {
		t.Errorf("the old key's address after a rotation: %v", err)
	}
	signed, _ := rewriter(t, start, newer, old).Forward("jane@example.org")
	if _, err := rewriter(t, start, newer).Reverse(signed); err != nil {
		t.Errorf("the first key did not sign: %v", err)
	}
	if _, err := rewriter(t, start, newer).Reverse(address); !errors.Is(err, ErrForged) {
		t.Errorf("after the old key has gone: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no domain": {Keys: []Key{testKey(1)}}, "no key": {Domain: "srs.example.com"}, "empty key": {Domain: "srs.example.com", Keys: []Key{{}}},
		"too short": {Domain: "srs.example.com", Keys: []Key{testKey(1)}, MaxAge: time.Hour}, "too long": {Domain: "srs.example.com", Keys: []Key{testKey(1)}, MaxAge: 2000 * day},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestKeysFile(t *testing.T) {
	keys := AddKey(AddKey(nil, start), start.Add(day))
	var file bytes.Buffer
	if err := WriteKeys(&file, keys); err != nil {
		t.Fatal(err)
	}
	got, err := ReadKeys(&file)
	if err != nil || len(got) != 2 || *got[0].secret != *keys[0].secret || *got[1].secret != *keys[1].secret || !got[0].Created.After(got[1].Created) {
		t.Fatalf("read back %d keys: %v", len(got), err)
	}
	if *keys[0].secret == *keys[1].secret {
		t.Error("two keys are alike")
	}
}

func TestAddKeyDropsTheSpent(t *testing.T) {
	at := func(ages ...int) (keys []Key) {
		for _, age := range ages {
			k := testKey(byte(age))
			k.Created = start.Truncate(day).Add(-time.Duration(age) * day)
			keys = append(keys, k)
		}
		return keys
	}
	for _, tt := range []struct{ before, after []Key }{
		{nil, at(0)}, {at(400), at(0, 400)}, {at(21, 400), at(0, 21, 400)}, {at(23, 400), at(0, 23)}, {at(1, 30, 60, 90), at(0, 1, 30)},
	} {
		got := AddKey(tt.before, start)
		if len(got) != len(tt.after) {
			t.Errorf("%d keys became %d, want %d", len(tt.before), len(got), len(tt.after))
			continue
		}
		for i := range got {
			if !got[i].Created.Equal(tt.after[i].Created) {
				t.Errorf("key %d is of %v, want %v", i, got[i].Created, tt.after[i].Created)
			}
		}
	}
}

func TestReadKeysRefusesWithoutRepeating(t *testing.T) {
	const secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI"
	good := "2026-01-01 " + secret + "\n"
	if keys, err := ReadKeys(strings.NewReader("# comment\n\n" + good)); err != nil || len(keys) != 1 {
		t.Fatalf("the good one: %d, %v", len(keys), err)
	}
	for name, file := range map[string]string{
		"no date": secret + "\n", "swapped": secret + " 2026-01-01\n", "short": "2026-01-01 c2VjcmV0\n",
		"no base64": "2026-01-01 " + secret[1:] + "!\n", "oldest first": good + "2026-02-01 " + secret + "\n",
	} {
		_, err := ReadKeys(strings.NewReader(file))
		if err == nil || strings.Contains(err.Error(), secret[1:]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysPrintRedacted(t *testing.T) {
	k := testKey('K')
	r := rewriter(t, start, k)
	for _, v := range []any{k, &k, []Key{k}, Options{Keys: []Key{k}}, r, *r} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
			printed := strings.ToLower(fmt.Sprintf(verb, v))
			for _, leak := range []string{"kkkk", "4b4b4b", "75 75", "75, 75", "0x4b, 0x4b"} {
				if strings.Contains(printed, leak) {
					t.Errorf("%s of %T shows the key", verb, v)
				}
			}
		}
	}
}

func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{"a@b", `"a b"@example.org`, "SRS0=a=b=c=d@x.example", "SRS1=a=b==c=d=e=f@x.example", "é@x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sender string) {
		r := rewriter(t, start)
		if back, err := r.Reverse(sender); err == nil {
			t.Fatalf("%q reverses to %q", sender, back)
		}
		address, err := r.Forward(sender)
		if err != nil || address == sender {
			return
		}
		if strings.ContainsAny(address, "\r\n\x00") {
			t.Fatalf("control characters in %q", address)
		}
		if _, _, foreign := strings.Cut(lower(sender), "srs"); foreign {
			return
		}
		local, domain, err := split(sender)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := r.Reverse(address); err != nil || back != quoteLocal(local)+"@"+domain {
			t.Fatalf("%q -> %q -> %q, %v", sender, address, back, err)
		}
	})
}
