package tnef

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ytnef unpacks a stream with Debian's ytnef and returns its files by name.
func ytnef(t *testing.T, raw []byte) map[string]string {
	t.Helper()
	in := filepath.Join(t.TempDir(), "winmail.dat")
	if err := os.WriteFile(in, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	said, err := exec.Command("ytnef", "-F", "-H", "-f", out, in).CombinedOutput()
	if err != nil {
		t.Fatalf("ytnef: %v\n%s", err, said)
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, entry := range entries {
		b, err := os.ReadFile(filepath.Join(out, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(b)
	}
	return files
}

func TestYtnefUnpacksTheSame(t *testing.T) {
	note := join(attribute(levelMessage, 0x78008, []byte("IPM.Microsoft Mail.Note\x00")))
	subject := func(s string) []byte { return attribute(levelMessage, 0x18004, []byte(s+"\x00")) }
	long8 := func(s string) []byte {
		return attachProps(string8(idMimeTag, "application/pdf"), string8(idLongFilename, s))
	}
	// Its dictionary has LF CR where the specification has CR LF, so there is neither in this one.
	rtf := strings.Repeat(strings.ReplaceAll(sampleRTF, "\r\n", " "), 40)
	big := strings.Repeat("\x00\x01\x02\xff large", 100_000)
	inner := stream(1252, note, subject("inside"), messageProps(binaryProp(idRTFCompressed, compress("{\\rtf1 inside inside}"))),
		begin(), title("inner.txt"), data("inner file"), begin(), title("IN~1.BIN"), data(big[:10_000]), long8("inner-long.bin"))
	raw := stream(1252, note, subject("outside"),
		messageProps(long(idInternetCPID, 65001), binaryProp(idRTFCompressed, compress(rtf)),
			join(le16(typeLong), le16(0x8002), make([]byte, 16), le32(0), le32(0x8501), le32(7))),
		begin(), title("REPORT~1.PDF"), data("%PDF-1.7 report"), long8("yearly-report.pdf"),
		begin(), title("cyrillic.pdf"), data("a name in UTF-16"), attachProps(wideString(idLongFilename, "Отчёт 📎.pdf")),
		begin(), title("big.bin"), data(big),
		// It looks into an attachment only if there is attAttachData.
		begin(), title("forwarded"), data("-"), attachProps(long(0x3705, 5), object(embeddedMessage, string(inner))),
		begin(), title("storage.ole"), data("-"), attachProps(long(0x3705, 6), object("\x0b"+embeddedMessage[1:], "\xd0\xcf\x11\xe0 storage")))

	// Our names and its, where they differ: it calls RTF by the subject and does not use names in UTF-16.
	theirs := map[string]string{"Отчёт 📎.pdf": "cyrillic.pdf", "message.rtf 0": "outside.rtf", "message.rtf 1": "inside.rtf"}
	ours, err := read(t, raw)
	if err != nil {
		t.Fatal(err)
	}
	got, bodies := map[string]string{}, 0
	for _, f := range ours {
		name := f.name
		if name == "message.rtf" {
			name, bodies = fmt.Sprintf("%s %d", name, bodies), bodies+1
		}
		if other, ok := theirs[name]; ok {
			name = other
		}
		if f.content != "-" {
			got[name] = f.content
		}
	}
	want := ytnef(t, raw)
	if len(want) != 8 {
		t.Errorf("ytnef unpacked %d files", len(want))
	}
	if !maps.Equal(got, want) {
		for name := range got {
			t.Errorf("%s: the same is %v, of %d and %d octets", name, got[name] == want[name], len(got[name]), len(want[name]))
		}
		t.Errorf("theirs: %q", slices.Collect(maps.Keys(want)))
	}
}
