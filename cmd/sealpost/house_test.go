package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed says which packages of the module each package may import, its tests aside. What is not listed
// may import nothing of the module. A package's own sub-packages (conformance suites) may import it.
func allowed(pkg string) []string {
	leaves := []string{"crypto", "storage/blob", "sfclient"}
	switch {
	case pkg == "cmd/sealpost" || strings.HasPrefix(pkg, "cmd/"):
		return []string{"*"}
	case pkg == "gateway":
		return nil
	case pkg == "gateway/intake":
		return append(leaves, "gateway", "gateway/rewrite", "gateway/policy", "gateway/policy/personal", "gateway/spool")
	case pkg == "gateway/rewrite":
		// Its decoders are packages of its own. What is personal in a text is policy's to say, but only who takes a mail
		// apart has the text: personal knows nothing of mails, and so stays a pure reader of text.
		return append(leaves, "gateway", "gateway/rewrite/tnef", "gateway/rewrite/encoded", "gateway/policy/personal")
	case strings.HasPrefix(pkg, "gateway/"):
		return append(leaves, "gateway")
	case strings.HasPrefix(pkg, "storage/meta"):
		return []string{"gateway", "storage/meta"}
	case strings.HasPrefix(pkg, "storage/blob"):
		return []string{"storage/blob"}
	}
	return nil
}

type listed struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "sealpost/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// TestImportsGoOneWay holds the rule that dependencies point from cmd to gateway/* to gateway, that
// siblings stay apart, and that leaves import nothing of ours.
func TestImportsGoOneWay(t *testing.T) {
	packages := listPackages(t)
	if len(packages) < 10 {
		t.Fatalf("only %d packages are listed", len(packages))
	}
	for _, p := range packages {
		from := strings.TrimPrefix(p.ImportPath, "sealpost/")
		may := allowed(from)
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, "sealpost/")
			if ours && !slices.Contains(may, "*") && !slices.Contains(may, to) {
				t.Errorf("%s imports %s", from, to)
			}
			if from == "gateway" && strings.Contains(imported, ".") {
				t.Errorf("gateway imports %s, which is not of the standard library", imported)
			}
		}
	}
}
