package rewrite

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// tnefOf writes a TNEF stream with files, given as name and content in turn ([MS-OXTNEF] section 2.1.3).
func tnefOf(files ...string) string {
	b := []byte{0x78, 0x9f, 0x3e, 0x22, 1, 0}
	attribute := func(level byte, id uint32, data string) {
		b = append(b, level)
		b = binary.LittleEndian.AppendUint32(b, id)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
		b = append(b, data...)
		sum := uint16(0)
		for i := range len(data) {
			sum += uint16(data[i])
		}
		b = binary.LittleEndian.AppendUint16(b, sum)
	}
	attribute(1, 0x89006, "\x00\x00\x01\x00")
	attribute(1, 0x69007, "\xe4\x04\x00\x00\x00\x00\x00\x00")
	for i := 0; i < len(files); i += 2 {
		attribute(2, 0x69002, strings.Repeat("\x00", 14))
		if files[i] != "" {
			attribute(2, 0x18010, files[i]+"\x00")
		}
		attribute(2, 0x6800f, files[i+1])
	}
	return string(b)
}

func asBase64(text string) string {
	var b strings.Builder
	digits := base64.StdEncoding.EncodeToString([]byte(text))
	for ; len(digits) > 76; digits = digits[76:] {
		b.WriteString(digits[:76] + "\r\n")
	}
	return b.String() + digits + "\r\n"
}

func TestFilesInTNEFAreSealedBesideIt(t *testing.T) {
	whole := tnefOf("report.doc", "a report", "", "%PDF-1.4", "../x.exe", "MZ")
	unpacked := []string{"report.doc", "attachment-3.pdf", "../x.exe"}
	for _, test := range []struct {
		name, header, stream string
		want                 []string
	}{
		{"winmail.dat", "Content-Type: application/ms-tnef; name=winmail.dat", whole, slices.Concat([]string{"winmail.dat"}, unpacked)},
		{"without a name", "Content-Type: application/ms-tnef", whole, slices.Concat([]string{"winmail.dat"}, unpacked)},
		{"another type and name", "Content-Type: application/octet-stream; name=ATT0001.bin", whole, slices.Concat([]string{"ATT0001.bin"}, unpacked)},
		{"called a text", "Content-Type: text/plain", whole, slices.Concat([]string{"attachment-1.txt"}, unpacked)},
		{"damaged", "Content-Type: application/ms-tnef; name=winmail.dat", whole[:len(whole)-3], []string{"winmail.dat"}},
		{"no TNEF", "Content-Type: application/ms-tnef; name=winmail.dat", "something else", []string{"winmail.dat"}},
		{"nothing in it", "Content-Type: application/ms-tnef; name=winmail.dat", tnefOf(), []string{"winmail.dat"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			part := test.header + "\r\nContent-Transfer-Encoding: base64\r\n\r\n" + asBase64(test.stream)
			for _, mail := range []string{mixedMail("\r\ntext", part), part} {
				r := rewriteMail(t, []byte(mail))
				if !slices.Equal(r.names, test.want) {
					t.Fatalf("sealed %q, want %q", r.names, test.want)
				}
				if string(r.files[0]) != test.stream {
					t.Error("the original is changed")
				}
				if len(r.files) > 1 && string(r.files[1])+string(r.files[2])+string(r.files[3]) != "a report%PDF-1.4MZ" {
					t.Errorf("the files are %q", r.files[1:])
				}
				if _, sealed := r.plan.Parts(); sealed != len(r.files) {
					t.Errorf("%d files are counted", sealed)
				}
			}
		})
	}
}

// TestTNEFCannotMakeMoreFilesThanTheLimit: what is over it stays packed.
func TestTNEFCannotMakeMoreFilesThanTheLimit(t *testing.T) {
	var files []string
	for i := range 400 {
		files = append(files, fmt.Sprintf("%d.txt", i), "x")
	}
	part := "Content-Type: application/ms-tnef\r\nContent-Transfer-Encoding: base64\r\n\r\n" + asBase64(tnefOf(files...))
	r := rewriteMail(t, []byte(mixedMail("\r\ntext", part, part, part)))
	if len(r.files) != 3+2*400 {
		t.Errorf("%d files", len(r.files))
	}
	file, err := io.ReadAll(r.plan.Items()[400].Open())
	if err != nil || string(file) != "x" {
		t.Errorf("%q, %v", file, err)
	}
}
