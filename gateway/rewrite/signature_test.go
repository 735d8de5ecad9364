package rewrite

import (
	"slices"
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
	const signedData = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
	const base64Field = "Content-Transfer-Encoding: base64\r\n"
	tests := []struct {
		name, parts string
		stays       bool
	}{
		{"OpenPGP", pgp("", armor), true},
		{"OpenPGP, an empty line before", pgp("", "\r\n"+armor), true},
		{"OpenPGP in base64", pgp(base64Field, encodeAs(t, armor, "base64")), true},
		{"a message that is a signature", pgp("", strings.ReplaceAll(armor, "SIGNATURE", "MESSAGE")), true},
		{"OpenPGP with a comment", pgp("", strings.Replace(armor, "\r\n\r\n", "\r\nVersion: x 1.0\r\nComment: https://x.example\r\n\r\n", 1)), true},
		{"CMS", cms(base64Field, encodeAs(t, "\x30\x0c"+signedData+"x", "base64")), true},
		{"CMS of indefinite length", cms(base64Field, encodeAs(t, "\x30\x80"+signedData+"xyz\x00\x00", "base64")), true},
		{"CMS with a long length", cms(base64Field, encodeAs(t, "\x30\x84\x00\x00\x00\x0c"+signedData+"x", "base64")), true},
		{"CMS of another kind", cms(base64Field, encodeAs(t, "\x30\x04\x06\x02\x2a\x86", "base64")), false},
		{"something behind CMS", cms(base64Field, encodeAs(t, "\x30\x0c"+signedData+"xyz", "base64")), false},
		{"an archive in CMS", cms(base64Field, encodeAs(t, "\x30\x80"+signedData+"PK\x05\x06\x00\x00", "base64")), false},
		{"CMS called an archive", strings.Replace(cms(base64Field, encodeAs(t, "\x30\x0c"+signedData+"x", "base64")), "smime.p7s", "a.zip", 1), false},
		{"OpenPGP called a page", strings.Replace(pgp("", armor), "a.asc", "a.hta", 1), false},
		{"script behind OpenPGP", pgp("", armor+"<script>\r\n"), false},
		{"script in OpenPGP", pgp("", strings.Replace(armor, "abcd", "<script>", 1)), false},
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
			if stays := len(r.names) == 0; stays != test.stays {
				t.Errorf("sealed: %q", r.names)
			}
			if !test.stays && string(r.files[0]) != mail {
				t.Errorf("the evidence is not the mail: %q", r.files[0])
			}
			want := whyEnvelope
			if test.stays {
				want = ""
			}
			r = way{rules: Rules{SealSigned: true}}.rewrite(t, []byte(mail), DefaultLimits())
			if why, _ := r.plan.Whole(); why != want {
				t.Errorf("whole: %q, want %q", why, want)
			}
		})
	}
}

// TestLeavesSayWhatOverruledTheJudge: the reason that is shown is the one that decided.
func TestLeavesSayWhatOverruledTheJudge(t *testing.T) {
	const (
		signature = "Content-Type: application/pgp-signature; name=a.asc\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\nabcd\r\n-----END PGP SIGNATURE-----\r\n"
		file      = "--b\r\nContent-Type: application/pdf; name=a.pdf\r\n\r\n%PDF\r\n"
		inSigned  = "it is in a signed or encrypted message with a file"
	)
	signed := func(parts string) string {
		return "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n" + parts + "--b\r\n" + signature + "--b--\r\n"
	}
	for _, test := range []struct {
		name, mail string
		want       []string
	}{
		{"nothing", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n" + file + "--b--\r\n", []string{"kept", "sealed"}},
		{"a signature stays", signed(""), []string{"kept", "the signature of what stays as it is"}},
		{"a signed file", "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\ntext\r\n--o\r\n" + signed(file) + "--o--\r\n",
			[]string{"kept", "kept", "sealed", "sealed"}},
		{"a signed file alone", "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\ntext\r\n--o\r\n" + strings.ReplaceAll(signed(file), "\r\n\r\ntext", "\r\nContent-Type: application/pdf\r\n\r\nx") + "--o--\r\n",
			[]string{"kept", inSigned, inSigned, inSigned}},
		{"a long text", "Subject: x\r\n\r\n" + strings.Repeat("line\r\n", 30000), []string{"kept, but longer than Salesforce takes"}},
		{"a mail sealed whole", "Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\n--b--\r\n", []string{"the mail is sealed whole"}},
	} {
		var got []string
		for _, leaf := range rewriteMail(t, []byte(test.mail)).plan.Leaves() {
			got = append(got, leaf.Why)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
