package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/storage/meta"
)

// Keys are changed in an order in which no gateway ever meets a value that it cannot read: a key is added to the file,
// the file comes to all nodes, the database names the key as the one that wraps, all is wrapped anew, and long after
// that the former key is removed. rotate does all but the copying and the last; each step can be repeated.

const (
	// laggardWait is how long to wait for running gateways to take up what was changed: they look four times a minute.
	laggardWait = 45 * time.Second
	laggardLook = time.Second
)

type keyringCommand struct {
	Rotate keyringRotateCommand `cmd:"" help:"Add a key and wrap with it all that the database holds. Gateways may run. Run it again after it was broken off."`
	Prune  keyringPruneCommand  `cmd:"" help:"Remove the keys from the keyring that nothing is wrapped by any more."`
	Add    keyringAddCommand    `cmd:"" help:"Only add a key to a keyring file, as for a keyring that is kept in a variable; rotate then uses it."`
}

type keyringAddCommand struct {
	File string `arg:"" help:"The keyring file." type:"path"`
}

// Run adds a key that is not yet used.
func (c *keyringAddCommand) Run(std streams) error {
	return withLockedKeyring(c.File, func(keyring *crypto.Keyring) error {
		id, err := addKey(keyring, c.File)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(std.out, "Added key %s. Give %s to every node, then run sealpost keyring rotate.\n", id, c.File)
		return err
	})
}

func addKey(keyring *crypto.Keyring, path string) (string, error) {
	id, err := keyring.AddKey()
	if err != nil {
		return "", err
	}
	return id, replaceKeeping(path, keyring.Encode)
}

type keyringRotateCommand struct {
	configFlag
	Limit int64 `help:"Stop after about this many rows, to go on another time." placeholder:"ROWS"`
}

// Run ends a change of key that was begun, else begins and ends one.
func (c *keyringRotateCommand) Run(ctx context.Context, std streams) error {
	return c.withStores(ctx, func(cfg *config.Config, s *stores) error {
		current, err := s.meta.CurrentKey(ctx)
		if err != nil {
			return err
		}
		r := &rotation{std: std, place: cfg.Keyring, stores: s}
		id := current.ID
		if current.Rewrapped {
			if id, err = r.begin(ctx, current.ID); err != nil {
				return err
			}
		}
		return r.rewrap(ctx, id, c.Limit)
	})
}

// rotation is one change of key.
type rotation struct {
	std    streams
	place  string
	stores *stores
}

// begin finds the key that waits in the keyring to be used, or adds one, and uses it.
func (r *rotation) begin(ctx context.Context, current string) (string, error) {
	id := r.stores.keyring.ActiveKey()
	switch known, err := r.stores.meta.IsKnownKey(ctx, id); {
	case err != nil:
		return "", err
	case known && id != current:
		return "", fmt.Errorf("the keyring %s calls key %s active, which was replaced by %s: it is an old copy; bring the newest one here", r.place, id, current)
	case known && strings.HasPrefix(r.place, config.KeyringEnv):
		return "", fmt.Errorf("the keyring %s cannot be written: write its content to a file, run sealpost keyring add FILE, set the variable to the new content on every node, start them again, and then run this again", r.place)
	case known:
		if id, err = r.add(ctx); err != nil {
			return "", err
		}
	}
	late, err := r.wait(ctx, id, func(l meta.Laggards) int { return l.Without })
	switch {
	case err != nil:
		return "", err
	case late > 0:
		return "", fmt.Errorf("%d running gateways do not have key %s: bring %s to every node, then run this again; nothing else has changed", late, id, r.place)
	}
	if err := r.stores.meta.UseKey(ctx, id, byAdmin()); err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(r.std.out, "Values are wrapped by key %s now.\n", id)
	return id, err
}

func (r *rotation) add(ctx context.Context) (id string, err error) {
	err = withLockedKeyring(r.place, func(keyring *crypto.Keyring) (err error) {
		if newer := keyring.ActiveKey(); newer != r.stores.keyring.ActiveKey() {
			return fmt.Errorf("another process has added key %s to %s just now: run this again", newer, r.place)
		}
		id, err = addKey(keyring, r.place)
		return err
	})
	if err != nil {
		return "", err
	}
	if err := r.stores.keyring.Refresh(); err != nil {
		return "", fmt.Errorf("read the keyring %s anew: %w", r.place, err)
	}
	if _, err := fmt.Fprintf(r.std.out, "Added key %s to %s.\n", id, r.place); err != nil {
		return "", err
	}
	return id, r.stores.meta.Audit(ctx, gateway.AuditEvent{Principal: byAdmin(), Action: gateway.AuditKeyAdded, Object: id, Outcome: "ok"})
}

// wait waits for the running gateways, and returns how many are late after all.
func (r *rotation) wait(ctx context.Context, id string, late func(meta.Laggards) int) (int, error) {
	end := time.NewTimer(laggardWait)
	defer end.Stop()
	look := time.NewTicker(laggardLook)
	defer look.Stop()
	for {
		l, err := r.stores.meta.Laggards(ctx, id)
		if err != nil || late(l) == 0 {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-end.C:
			return late(l), nil
		case <-look.C:
		}
	}
}

// rewrap waits until nobody wraps by another key, and wraps all anew.
func (r *rotation) rewrap(ctx context.Context, id string, limit int64) error {
	late, err := r.wait(ctx, id, func(l meta.Laggards) int { return l.Other })
	switch {
	case err != nil:
		return err
	case late > 0:
		return fmt.Errorf("%d running gateways still wrap by another key than %s; their logs say why; then run this again", late, id)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	counter := newCounter(r.std, "rows")
	stopped := false
	n, err := r.stores.meta.Rewrap(ctx, byAdmin(), func(done, total int64) {
		counter.show(done, total)
		if limit > 0 && done >= limit && done < total {
			stopped = true
			cancel()
		}
	})
	counter.end()
	if stopped {
		_, err = fmt.Fprintf(r.std.out, "%d values were wrapped anew, and more are left; run this again to go on.\n", n)
		return err
	}
	if err != nil {
		return fmt.Errorf("%d values were wrapped anew; run this again to go on: %w", n, err)
	}
	if err := r.stores.meta.Checkpoint(ctx); err != nil && gateway.ErrorCode(err) != gateway.CodeUnavailable {
		return err
	}
	_, err = fmt.Fprintf(r.std.out, "%d values were wrapped anew. Back the keyring up; in two hours, sealpost keyring prune removes the former key.\n", n)
	return err
}

type keyringPruneCommand struct{ configFlag }

// Run refuses while anything needs a former key.
func (c *keyringPruneCommand) Run(ctx context.Context, std streams) error {
	return c.withStores(ctx, func(cfg *config.Config, s *stores) error {
		if strings.HasPrefix(cfg.Keyring, config.KeyringEnv) {
			return fmt.Errorf("the keyring %s cannot be written", cfg.Keyring)
		}
		counter := newCounter(std, "rows")
		err := s.meta.MayPrune(ctx, counter.show)
		counter.end()
		if err != nil {
			return err
		}
		current, err := s.meta.CurrentKey(ctx)
		if err != nil {
			return err
		}
		var removed []string
		err = withLockedKeyring(cfg.Keyring, func(keyring *crypto.Keyring) (err error) {
			removed, err = prune(keyring, cfg.Keyring, current.ID)
			return err
		})
		for _, id := range removed {
			event := gateway.AuditEvent{Principal: byAdmin(), Action: gateway.AuditKeyRemoved, Object: id, Outcome: "ok"}
			err = errors.Join(err, s.meta.Audit(ctx, event))
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(std.out, "%d keys were removed from %s. Backups of the database from before need the keyring of their time.\n", len(removed), cfg.Keyring)
		return err
	})
}

// prune leaves the key in use, and one that waits to be used.
func prune(keyring *crypto.Keyring, path, current string) (removed []string, err error) {
	if err := keyring.Use(current); err != nil {
		return nil, err
	}
	for _, id := range keyring.KeyIDs() {
		if id == current || id == keyring.ActiveKey() {
			continue
		}
		if err := keyring.RemoveKey(id); err != nil {
			return nil, err
		}
		removed = append(removed, id)
	}
	if len(removed) == 0 {
		return nil, nil
	}
	return removed, replaceKeeping(path, keyring.Encode)
}

// withLockedKeyring reads a keyring file that no other process of this host changes meanwhile.
func withLockedKeyring(path string, use func(*crypto.Keyring) error) (err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("open the directory of the keyring: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock the directory of the keyring, as another process may have done: %w", err)
	}
	keyring, err := readKeyring(path)
	if err != nil {
		return err
	}
	return use(keyring)
}

// replaceKeeping writes a file anew, durably, with the mode and the owner that it has. A crash leaves the old one or
// the new one.
func replaceKeeping(path string, write func(io.Writer) error) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("find the file: %w", err)
	}
	var old unix.Stat_t
	if err := unix.Stat(path, &old); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	return replaceFile(path, func(w io.Writer) error {
		if f, ok := w.(*os.File); ok {
			if err := f.Chown(int(old.Uid), int(old.Gid)); err != nil {
				return fmt.Errorf("%w; run this as the owner of the file", err)
			}
			if err := f.Chmod(os.FileMode(old.Mode & 0o777)); err != nil {
				return err
			}
		}
		return write(w)
	})
}

// counter shows on a terminal how far something has come.
type counter struct {
	out   *os.File // nil: nowhere
	what  string
	drawn time.Time
}

func newCounter(std streams, what string) *counter {
	return &counter{newProgress(std, what, 0).out, what, time.Time{}}
}

func (c *counter) show(done, total int64) {
	if c.out != nil && time.Since(c.drawn) > 100*time.Millisecond {
		c.drawn = time.Now()
		_, _ = fmt.Fprintf(c.out, "\r\x1b[K%d of %d %s", done, total, c.what)
	}
}

func (c *counter) end() { (&progress{out: c.out}).end() }
