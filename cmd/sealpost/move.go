package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway/config"
	"sealpost/storage/blob"
	"sealpost/storage/meta"
)

type moveCommand struct {
	From        string `help:"The configuration of the installation that is carried over. Its database and objects stay as they are." required:"" type:"path" placeholder:"CONFIG"`
	To          string `help:"The configuration that it is carried over to, with an empty database." required:"" type:"path" placeholder:"CONFIG"`
	Verify      bool   `help:"Also read and compare the objects that an earlier try has carried over."`
	LostObjects bool   `help:"Go on though objects that the database refers to are lost in the source: their packages will not open, their mails not be delivered."`
}

// Run carries an installation over from one kind of database and blob store to another.
func (c *moveCommand) Run(ctx context.Context, std streams) error {
	return c.run(ctx, std, func(string) {})
}

// run is Run that tells which step it takes.
func (c *moveCommand) run(ctx context.Context, std streams, step func(string)) (err error) {
	m := &move{std: std, step: step, verify: c.Verify, lostObjects: c.LostObjects}
	if err := m.open(ctx, c.From, c.To); err != nil {
		return errors.Join(err, m.close())
	}
	defer func() { err = errors.Join(err, m.close()) }()
	err = m.run(ctx)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("stopped; the same command goes on where this one ended: %w", err)
	}
	return err
}

// move is one run of the command.
type move struct {
	std         streams
	step        func(string) // called before each step
	verify      bool
	lostObjects bool

	source *meta.Source
	target *meta.Store
	stored *meta.Source // what is in target
	// from and to are nil if both configurations have the same blob store.
	from blob.Reader
	to   blob.Store
}

// open refuses configurations that cannot be carried over from one to the other.
func (m *move) open(ctx context.Context, fromFile, toFile string) error {
	from, err := config.Load(fromFile)
	if err != nil {
		return err
	}
	to, err := config.Load(toFile)
	if err != nil {
		return err
	}
	sameData := filepath.Clean(from.Data) == filepath.Clean(to.Data)
	if from.Database == to.Database && (from.Database != config.DatabaseSQLite || sameData) {
		return usageError{"--from and --to name the same database"}
	}
	if err := sameKeyring(from.Keyring, to.Keyring); err != nil {
		return err
	}
	if m.source, err = openSource(ctx, from); err != nil {
		return err
	}
	if m.target, err = openAnyDatabase(ctx, to, nil); err != nil {
		return err
	}
	if m.stored, err = openSource(ctx, to); err != nil {
		return err
	}
	if from.Blobs == to.Blobs && (from.Blobs != config.BlobsDir || sameData) {
		return nil
	}
	if m.to, err = openBlobs(ctx, to, prometheus.NewRegistry()); err != nil {
		return err
	}
	if from.Blobs == config.BlobsDir {
		m.from = blob.NewDirReader(blobsDir(from))
		return nil
	}
	m.from, err = openBlobs(ctx, from, prometheus.NewRegistry())
	return err
}

func (m *move) close() error {
	var errs []error
	for _, source := range []*meta.Source{m.source, m.stored} {
		if source != nil {
			errs = append(errs, source.Close())
		}
	}
	if m.target != nil {
		errs = append(errs, m.target.Close())
	}
	return errors.Join(errs...)
}

func openSource(ctx context.Context, c *config.Config) (*meta.Source, error) {
	if c.Database == config.DatabaseSQLite {
		return meta.OpenSQLiteSource(ctx, databaseFile(c))
	}
	return meta.OpenPostgresSource(ctx, c.Database)
}

// sameKeyring refuses two keyrings of different content.
func sameKeyring(from, to string) error {
	var texts [2]bytes.Buffer
	for i, place := range []string{from, to} {
		keyring, err := readKeyring(place)
		if err != nil {
			return err
		}
		if err := keyring.Encode(&texts[i]); err != nil {
			return err
		}
	}
	if !bytes.Equal(texts[0].Bytes(), texts[1].Bytes()) {
		return fmt.Errorf("the keyrings %s and %s differ, and what a database holds can be read with its own only: copy the first to the second", from, to)
	}
	return nil
}

// run begins with the objects: a row is never without those that it refers to.
func (m *move) run(ctx context.Context) error {
	if err := m.source.Idle(ctx); err != nil {
		return err
	}
	before, err := m.contents(ctx, "source", m.source)
	if err != nil {
		return err
	}
	m.step("begin")
	finished, restarted, err := m.target.BeginMove(ctx, before)
	if err != nil {
		return err
	}
	if !finished.IsZero() {
		return m.say("Carried over already, at %s. There is nothing to do.\n", finished.Format("2006-01-02 15:04:05 UTC"))
	}
	if restarted {
		if err := m.say("The source has changed since the last try: its tables are carried over from the start, the objects stay.\n"); err != nil {
			return err
		}
	}
	if err := m.objects(ctx); err != nil {
		return err
	}
	if err := m.tables(ctx, before); err != nil {
		return err
	}
	if err := m.compare(ctx, before); err != nil {
		return err
	}
	m.step("finish")
	if err := m.target.FinishMove(ctx, before); err != nil {
		return err
	}
	m.step("finished")
	return m.say("Done: %d tables with %d rows are the same in both databases.\n"+
		"Do not serve the source again: mails that wait there would be delivered twice. It is unchanged; remove it when you are content.\n",
		len(before), before.Rows())
}

func (m *move) say(format string, args ...any) error {
	_, err := fmt.Fprintf(m.std.out, format, args...)
	return err
}

func (m *move) contents(ctx context.Context, name string, database *meta.Source) (meta.Contents, error) {
	line := newStatusLine(m.std)
	defer line.end()
	return database.Contents(ctx, func(table string, rows int64) { line.show("reading the %s: %s, row %d", name, table, rows) })
}

func (m *move) tables(ctx context.Context, source meta.Contents) error {
	rows := map[string]int64{}
	for _, table := range source {
		rows[table.Table] = table.Rows
	}
	line := newStatusLine(m.std)
	defer line.end()
	return m.target.MoveTables(ctx, m.source, func(table string, done int64) {
		line.show("rows of %s: %d of %d", table, done, rows[table])
		m.step("after a batch of " + table)
	})
}

// compare reads both databases anew.
func (m *move) compare(ctx context.Context, before meta.Contents) error {
	m.step("compare")
	if err := m.source.Idle(ctx); err != nil {
		return err
	}
	after, err := m.contents(ctx, "source", m.source)
	if err != nil {
		return err
	}
	if tables := before.Differ(after); len(tables) > 0 {
		return fmt.Errorf("rows of the source changed meanwhile, in %s: stop what uses it, then run the same command again", strings.Join(tables, ", "))
	}
	stored, err := m.contents(ctx, "target", m.stored)
	if err != nil {
		return err
	}
	if tables := before.Differ(stored); len(tables) > 0 {
		return fmt.Errorf("the databases differ in %s: something else writes to the target; begin again with an empty one", strings.Join(tables, ", "))
	}
	return nil
}
