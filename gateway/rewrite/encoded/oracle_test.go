package encoded

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// GNU sharutils encodes and decodes as we do.
func TestSharutilsAgrees(t *testing.T) {
	for _, size := range []int{0, 1, 2, 3, 44, 45, 46, 57, 1000, 100_000} {
		for _, flags := range [][]string{nil, {"-m"}, {"-e"}, {"-m", "-e"}} {
			data := bytesOf(size)
			encode := exec.Command("uuencode", append(flags, "a b.bin")...)
			encode.Stdin = strings.NewReader(data)
			block, err := encode.Output()
			if err != nil {
				t.Fatal(err)
			}
			checkText(t, above+string(block)+below, above+below, []want{{UU, "a b.bin", data, false}})
		}
	}
}

// What sharutils makes of unusual lines, we make of them too.
func TestSharutilsDecodesTheSame(t *testing.T) {
	body := uuBody(bytesOf(200))
	for name, block := range map[string]string{
		"spaces":           "begin 644 a\n" + strings.ReplaceAll(body, "`", " ") + " \nend\n",
		"check characters": "begin 644 a\n" + strings.ReplaceAll(body, "\n", "X\n") + "`\nend\n",
		"octal digits":     "begin 0100644 a\n" + body + "`\nend\n",
		"spaces in front":  "begin  644  a\n" + body + "`\nend\n",
		"short lines":      "begin 644 a\n#86)C\n#86)C\n`\nend\n",
		"CRLF":             strings.ReplaceAll("begin 644 a\n"+body+"`\nend\n", "\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "out")
			decode := exec.Command("uudecode", "-o", file)
			decode.Stdin = strings.NewReader(block)
			if out, err := decode.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			checkText(t, block, "", []want{{UU, "a", string(data), false}})
		})
	}
}

// prose gives lines of words, some of them like those of blocks.
func prose(r *rand.Rand) string {
	words := []string{
		"begin", "the", "end", "Maybe", "644", "M", "=ybegin", "REGARDS", "-----", ":", "> quoted", "`", "Jane", "(This", "ü", "begin 644 x",
		"--", "PGP", "MESSAGE", "1234",
	}
	var out strings.Builder
	for range r.IntN(8) {
		for range 1 + r.IntN(12) {
			out.WriteString(words[r.IntN(len(words))] + " ")
		}
		out.WriteString("of it\n")
	}
	return out.String()
}

// Random files in random prose come out byte for byte, and the prose stays.
func TestFilesComeOutAndProseStays(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	prefixes := []string{"", "", "", "> ", ">> ", ">", "   ", "\t", "| "}
	for range 3000 {
		var text, kept strings.Builder
		var wants []want
		for range r.IntN(4) {
			p := prose(r) + "\n"
			text.WriteString(p)
			kept.WriteString(p)
			data := make([]byte, 1+r.IntN(500))
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			if r.IntN(4) == 0 {
				clear(data[r.IntN(len(data)):])
			}
			block, w := encodeAny(r, string(data))
			text.WriteString(quoted(prefixes[r.IntN(len(prefixes))], block))
			wants = append(wants, w)
		}
		tail := "\n" + prose(r)
		text.WriteString(tail)
		kept.WriteString(tail)
		whole, rest := text.String(), kept.String()
		if r.IntN(2) == 0 {
			whole, rest = strings.ReplaceAll(whole, "\n", "\r\n"), strings.ReplaceAll(rest, "\n", "\r\n")
			for i, w := range wants {
				if w.asItI {
					wants[i].file = strings.ReplaceAll(w.file, "\n", "\r\n")
				}
			}
		}
		checkText(t, whole, rest, wants)
		if t.Failed() {
			t.Fatalf("in %q", whole)
		}
	}
}

func encodeAny(r *rand.Rand, data string) (string, want) {
	switch r.IntN(4) {
	case 0:
		block := "=ybegin line=128 size=" + "9" + " name=y\n" + yenc(data, 128) + "=yend size=9\n"
		return block, want{Yenc, "y", block, true}
	case 1:
		return stripped(strings.ReplaceAll(uu("a b", data), "`", " ")), want{UU, "a b", data, false}
	default:
		block := uu("a b", data)
		if r.IntN(2) == 0 {
			block = strings.TrimSuffix(block, "end\n")
		}
		return block, want{UU, "a b", data, false}
	}
}

func FuzzFind(f *testing.F) {
	data := bytesOf(300)
	f.Add([]byte(above + uu("a", data) + below))
	f.Add([]byte(quoted("> ", strings.Replace(uu("a", data), "\nM", "\nlist\nM", 1))))
	f.Add([]byte(uuBody(bytesOf(500)) + "`\r\nend\r\n"))
	f.Add([]byte("begin-base64 644 a\nQUJD\nQQ==\n====\n"))
	f.Add([]byte("=ybegin line=16 size=30 name=a\n=ypart begin=1 end=2\n" + yenc(data, 16) + "=yend size=3\n"))
	f.Add([]byte("(This file must be converted with BinHex 4.0)\n\n:$f*TEQKPH#jdH@iZ,R0TG!\n!!!\"rN!4849K:\n"))
	f.Add([]byte("> -----BEGIN PGP MESSAGE-----\n" + quoted("> ", armor) + "> -----END PGP MESSAGE-----\n"))
	f.Add([]byte("begin  x\r\r\n>\t\rbegin 644 y\r#86)C\r"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got := find(t, string(text), 50)
		for _, b := range got.blocks {
			for _, at := range []int64{b.Start, b.End} {
				if !isLineStart(text, at) {
					t.Fatalf("%d is inside of a line", at)
				}
			}
			if b.Kind == "" || strings.ContainsAny(b.Name, "\r\n") {
				t.Fatalf("kind %q, name %q", b.Kind, b.Name)
			}
		}
	})
}

func isLineStart(text []byte, at int64) bool {
	if at == 0 || at == int64(len(text)) {
		return true
	}
	before, after := text[at-1], text[at]
	return before == '\n' || before == '\r' && !bytes.HasPrefix([]byte{after}, []byte("\n"))
}

// What other programs write (GnuPG, Perl's pack, Python's uu and binhex) is one block from its first byte to its last.
func TestBlocksOfOtherPrograms(t *testing.T) {
	kinds := map[string]Kind{".asc": PGP, ".hqx": Binhex, ".uue": UU}
	files, err := filepath.Glob("testdata/blocks/*")
	if err != nil || len(files) != 8 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	decoded := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := find(t, "Hello\n\n"+string(text), 9)
		if len(got.blocks) != 1 || got.kept != "Hello\n\n" || got.blocks[0].Kind != kinds[filepath.Ext(file)] {
			t.Errorf("%s: %d blocks, kept %q", file, len(got.blocks), got.kept)
			continue
		}
		decoded[filepath.Base(file)] = got.files[0]
	}
	if decoded["r.uue"] != decoded["perl.uue"] || len(decoded["r.uue"]) != 3000 {
		t.Error("Perl and Python encoded the same file")
	}
	if decoded["zeros.uue"] != strings.Repeat("\x00", 2000)+"abc" {
		t.Error("zeros do not come out")
	}
}
