package main

import (
	"path/filepath"
	"strings"
	"testing"

	"sealpost/sfclient/sftest"
)

// TestNoticeThatBouncesEnds: a notice of ours whose reader takes no mail causes no other and waits for no admin. The trace of the
// mail that it is about says so, and the list shows it apart.
func TestNoticeThatBouncesEnds(t *testing.T) {
	outside := startOrg(t, sftest.Options{RefuseRcpt: 550})
	org := startOrg(t, sftest.Options{RefuseRcpt: 550})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	replaceInConfig(t, n, "notices: {enabled: false}", "notices: {enabled: true}")
	n.appendConfig(t, "srs: {bounce_next_hop: \"smtp://"+outside.Addr()+"\"}")
	n.start(t, "sealpost")
	dial(t, n.smtp).give("jane@customer.example", testRoute, mailWith("refused", "text", nil), "250")
	ask := func(args ...string) string { return n.must(t, append(args, "--config", n.config())...) }
	if !eventually(func() bool { return strings.Count(ask("queue", "list", "--return"), "dead") == 1 }) {
		t.Fatalf("the notice is not dead:\n%s%s", ask("queue", "list", "--return"), ask("queue", "list"))
	}
	told := ask("trace", "<72656675736564@customer.example>")
	if !strings.Contains(told, "its sender could not be told: the notice bounced") {
		t.Errorf("the trace says:\n%s", told)
	}
	if list := ask("queue", "list"); strings.Count(list, "dead") != 1 || !strings.Contains(list, testRoute) {
		t.Errorf("the list shows:\n%s", list)
	}
	id, _, _ := strings.Cut(strings.SplitAfter(ask("queue", "list", "--return", "--limit", "1"), "\n")[1], " ")
	if shown := ask("queue", "show", id); !strings.Contains(shown, "nobody is told of that") {
		t.Errorf("the notice is shown as:\n%s", shown)
	}
	if returns := lines(ask("queue", "list", "--return")); returns != 2 {
		t.Errorf("the notice caused another: %s", ask("queue", "list", "--return"))
	}
}
