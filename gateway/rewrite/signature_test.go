package rewrite

import (
	"strings"
	"testing"
)

func TestOnlyASignatureStaysInASignedEntity(t *testing.T) {
	const armor = "-----BEGIN PGP SIGNATURE-----\r\n\r\nabcd\r\n-----END PGP SIGNATURE-----\r\n"
	pgp := func(encoding, body string) string {
		return "Content-Type: application/pgp-signature; name=a.asc\r\n" + encoding + "\r\n" + body
	}
	cms := func(encoding, body string) string {
		return "Content-Type: application/pkcs7-signature; name=smime.p7s\r\n" + encoding + "\r\n" + body
	}
	const base64Field = "Content-Transfer-Encoding: base64\r\n"
	tests := []struct {
		name, parts string
		stays       bool
	}{
		{"OpenPGP", pgp("", armor), true},
		{"OpenPGP, an empty line before", pgp("", "\r\n"+armor), true},
		{"OpenPGP in base64", pgp(base64Field, encodeAs(t, armor, "base64")), true},
		{"a message that is a signature", pgp("", strings.ReplaceAll(armor, "SIGNATURE", "MESSAGE")), true},
		{"CMS", cms(base64Field, encodeAs(t, "\x30\x80\x06\x09", "base64")), true},
		{"script", pgp("", "alert(1)\r\n"), false},
		{"program in base64", cms(base64Field, encodeAs(t, "MZ\x90\x00", "base64")), false},
		{"CMS that is not in base64", cms("", "0 is where it begins\r\n"), false},
		{"broken base64", cms(base64Field, "MIAGCQ*!\r\n"), false},
		{"unknown encoding", pgp("Content-Transfer-Encoding: x-uue\r\n", armor), false},
		{"large", pgp("", armor+strings.Repeat(strings.Repeat("x", 78)+"\r\n", 32<<10/80)), false},
		{"empty", pgp("", ""), false},
		{"file between", "Content-Type: application/pdf\r\n\r\nx\r\n--b\r\n" + pgp("", armor), false},
		{"text behind", pgp("", armor) + "--b\r\n\r\ntext\r\n", false},
		{"second signature", pgp("", armor) + "--b\r\n" + pgp("", armor), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			mail := "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n" + test.parts + "--b--\r\n"
			r := rewriteMail(t, []byte(mail))
			want := whyEnvelope
			if test.stays {
				want = ""
			}
			if why, _ := r.plan.Whole(); why != want {
				t.Errorf("whole: %q, want %q", why, want)
			}
		})
	}
}
