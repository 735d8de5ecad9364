package meta_test

import (
	"testing"
	"time"

	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// woken waits for a signal.
func woken(t *testing.T, s *meta.Store, after string) {
	t.Helper()
	select {
	case <-s.Wake():
	case <-time.After(20 * time.Second):
		t.Fatalf("%s did not wake the relay", after)
	}
}

func quiet(t *testing.T, s *meta.Store, after string) {
	t.Helper()
	select {
	case <-s.Wake():
		t.Errorf("%s woke the relay", after)
	default:
	}
}

// Nodes wake each other, and a process that ends at once has told the others before.
func TestNodesWakeEachOther(t *testing.T) {
	p, url := newPostgres(t)
	keys := metatest.NewKeys()
	one := openPostgres(t, url, keys)
	two, proxy := behindProxy(t, p, url, keys)
	quiet(t, one, "nothing")
	quiet(t, two, "nothing")
	if err := one.CommitMail(t.Context(), newMail(t, one)); err != nil {
		t.Fatal(err)
	}
	woken(t, one, "its own mail")
	woken(t, two, "the other's mail")

	command := openPostgres(t, url, keys)
	if err := command.CommitMail(t.Context(), newMail(t, command)); err != nil {
		t.Fatal(err)
	}
	if err := command.Close(); err != nil {
		t.Fatal(err)
	}
	woken(t, one, "a command")
	woken(t, two, "a command")

	proxy.Cut()
	woken(t, two, "a listener that came back")
	if err := one.CommitMail(t.Context(), newMail(t, one)); err != nil {
		t.Fatal(err)
	}
	woken(t, one, "its own mail")
	woken(t, two, "a mail after that")
	quiet(t, one, "its own mail, twice")
	if one.LookInterval() < time.Minute {
		t.Errorf("nodes that wake each other look every %v", one.LookInterval())
	}
}
