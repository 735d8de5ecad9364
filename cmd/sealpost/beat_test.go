package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sealpost/sfclient/sftest"
)

// TestNodeGoesOnBeating: four times a minute, also after a failure, until it ends.
func TestNodeGoesOnBeating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := &gatewayNode{logger: slog.New(slog.NewJSONHandler(&log, nil))}
		ctx, cancel := context.WithCancel(t.Context())
		beats := 0
		over := make(chan error)
		go func() {
			over <- g.keepBeating(ctx, func(context.Context) error {
				beats++
				if beats == 1 {
					return errors.New("the database is away")
				}
				return nil
			})
		}()
		time.Sleep(time.Minute + time.Second)
		cancel()
		if err := <-over; err != nil || beats != 4 {
			t.Errorf("%d beats in a minute, %v; want 4", beats, err)
		}
		if n := strings.Count(log.String(), "the database is away"); n != 1 {
			t.Errorf("the failure was logged %d times:\n%s", n, log.String())
		}
	})
}

// TestNodeIsKnownWhileItRuns: the other nodes of an installation know of one before it takes mail, and it leaves its work
// to them when it stops.
func TestNodeIsKnownWhileItRuns(t *testing.T) {
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.start(t, "sealpost")
	if nodes := rowsOf(t, n, "nodes"); nodes != 1 {
		t.Errorf("%d nodes are known, want 1", nodes)
	}
	if !eventually(func() bool { return rowsOf(t, n, "work") == 1 }) {
		t.Error("it does not do the sweep")
	}
	n.stop(t)
	if nodes, work := rowsOf(t, n, "nodes"), rowsOf(t, n, "work"); nodes != 0 || work != 0 {
		t.Errorf("after a stop %d nodes are known, which have %d kinds of work", nodes, work)
	}
}

// rowsOf counts the rows of a table.
func rowsOf(t *testing.T, n *node, table string) (count int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(n.dir, "data", "sealpost.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT COUNT(*) FROM " + table).Scan(&count); err != nil {
		t.Fatal(err)
	}
	return count
}
