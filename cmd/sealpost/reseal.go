package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/storage/blob"
	"sealpost/storage/meta"
)

const (
	resealWork  = "recovery rotate"
	resealClaim = 2 * time.Minute
	resealPage  = 100
	// resealAtOnce is how many heads are rewritten at the same time: most of it is waiting for the stores.
	resealAtOnce = 8
)

type recoveryRotateCommand struct {
	configFlag
	Key    string `help:"A private recovery key that the heads are sealed to; its passphrase comes from SEALPOST_RECOVERY_PASSPHRASE or the terminal." required:"" type:"path" placeholder:"OLD-PRIVATE.asc"`
	DryRun bool   `help:"Only count the heads that would be rewritten."`
	Limit  int    `help:"Stop after about this many heads, to go on another time." placeholder:"N"`
}

// Run rewrites the heads that are not sealed to exactly the configured recovery keys. Segments stay as they are, and so
// do mails that wait for delivery: these are under the queue keys and not sealed to recovery keys.
func (c *recoveryRotateCommand) Run(ctx context.Context, std streams) error {
	key, err := (&recoverCommand{Key: c.Key}).readKey(std)
	if err != nil {
		return err
	}
	return c.withStores(ctx, func(cfg *config.Config, s *stores) error {
		sealer, err := newSealer(cfg, s.keyring)
		if err != nil {
			return err
		}
		r := &reseal{std: std, stores: s, sealer: sealer, key: key, dryRun: c.DryRun, limit: c.Limit}
		return r.run(ctx)
	})
}

// reseal is one run over all heads.
type reseal struct {
	std    streams
	stores *stores
	sealer *crypto.Sealer
	key    *crypto.RecoveryPrivateKey
	dryRun bool
	limit  int

	mu                      sync.Mutex
	looked                  int64
	rewritten, kept, failed int
}

// run is alone: what it takes for a head that another run has left behind must be one.
func (r *reseal) run(ctx context.Context) error {
	if err := r.claim(ctx); err != nil {
		return err
	}
	stopped, err := r.all(ctx)
	if err == nil && !r.dryRun && !stopped {
		err = r.tidy(ctx)
	}
	if err == nil && !r.dryRun && r.rewritten > 0 {
		err = r.stores.meta.Audit(ctx, gateway.AuditEvent{Principal: byAdmin(), Action: gateway.AuditHeadsRewrite, Outcome: "ok"})
	}
	verb := "were"
	if r.dryRun {
		verb = "would be"
	}
	if _, failed := fmt.Fprintf(r.std.out, "%d heads %s rewritten, %d are sealed to these recovery keys already.\n", r.rewritten, verb, r.kept); err == nil {
		err = failed
	}
	switch {
	case err != nil:
		return fmt.Errorf("run this again to go on: %w", err)
	case r.failed > 0:
		return fmt.Errorf("%d heads could not be rewritten; they are as they were", r.failed)
	case stopped:
		_, err = fmt.Fprintln(r.std.out, "More are left; run this again to go on.")
	}
	return err
}

func (r *reseal) claim(ctx context.Context) error {
	mine, err := r.stores.meta.ClaimWork(ctx, resealWork, resealClaim)
	if err == nil && !mine {
		return errors.New("another process rewrites heads; if it was killed, wait two minutes")
	}
	return err
}

// all goes through the heads in pages. It reports whether the limit stopped it.
func (r *reseal) all(ctx context.Context) (stopped bool, err error) {
	total, err := r.stores.meta.CountHeads(ctx)
	if err != nil {
		return false, err
	}
	counter := newCounter(r.std, "heads")
	defer counter.end()
	var after *gateway.PackageID
	size := resealPage
	if r.limit > 0 {
		size = min(size, r.limit)
	}
	for {
		if err := r.claim(ctx); err != nil {
			return false, err
		}
		heads, err := r.stores.meta.Heads(ctx, after, size)
		if err != nil || len(heads) == 0 {
			return false, err
		}
		if r.limit > 0 && r.rewritten >= r.limit {
			return true, nil
		}
		if err := r.page(ctx, heads); err != nil {
			return false, err
		}
		after = &heads[len(heads)-1].Package
		counter.show(r.looked, total)
	}
}

func (r *reseal) page(ctx context.Context, heads []meta.Head) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(resealAtOnce)
	for _, head := range heads {
		group.Go(func() error {
			did, err := r.one(ctx, head)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.looked++
			var bad badHead
			switch {
			case errors.As(err, &bad):
				r.failed++
				_, err := fmt.Fprintf(r.std.err, "%s: %v\n", head.Package, bad)
				return err
			case err != nil:
				return fmt.Errorf("package %s: %w", head.Package, err)
			case did:
				r.rewritten++
			default:
				r.kept++
			}
			return nil
		})
	}
	return group.Wait()
}

// badHead is a head that cannot be rewritten; the others can.
type badHead struct{ error }

// one rewrites a head if that is needed.
func (r *reseal) one(ctx context.Context, head meta.Head) (did bool, err error) {
	name, err := crypto.ParseObjectName(head.Name)
	if err != nil || name.Kind != crypto.KindHead {
		return false, badHead{errors.New("its head has a strange name")}
	}
	sealed := false
	err = r.read(ctx, head.Name, func(o io.Reader) (err error) { sealed, err = r.sealer.SealsTo(o); return err })
	if err != nil || sealed {
		return false, err
	}
	err = r.read(ctx, head.Name, func(o io.Reader) error {
		_, err := crypto.OpenHeadWithRecoveryKey(o, crypto.ID(head.Package), r.key, r.stores.keyring.VerifyKey())
		return err
	})
	if err != nil || r.dryRun {
		return err == nil, err
	}
	day, err := time.Parse("20060102", name.Day)
	if err != nil {
		return false, badHead{err}
	}
	return r.replace(ctx, head, gateway.Object{Name: crypto.HeadName(name.ID, day, name.Seq+1), Item: crypto.HeadObject})
}

// replace writes a head anew under another name.
func (r *reseal) replace(ctx context.Context, head meta.Head, fresh gateway.Object) (did bool, err error) {
	err = r.read(ctx, head.Name, func(o io.Reader) error {
		rewritten, err := r.sealer.RewriteHead(o, r.key)
		if err == nil {
			fresh.Size, err = r.stores.blobs.Put(ctx, fresh.Name, rewritten)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	if err := r.stores.blobs.Commit(ctx, fresh.Name); err != nil {
		return false, err
	}
	err = r.stores.meta.ReplaceHead(ctx, head.Package, head.Name, fresh)
	if gateway.ErrorCode(err) == gateway.CodeConflict { // it was erased meanwhile
		return false, r.stores.blobs.Delete(ctx, fresh.Name)
	}
	return err == nil, err
}

// read hands an object to use. What is wrong with the head itself, and not with a store, is a badHead.
func (r *reseal) read(ctx context.Context, name string, use func(io.Reader) error) error {
	o, err := r.stores.blobs.Get(ctx, name, 0, -1)
	if err == nil {
		err = errors.Join(use(o), o.Close())
	}
	for _, bad := range []error{blob.ErrNotExist, crypto.ErrAltered, crypto.ErrNotForKey, crypto.ErrSignature, crypto.ErrManifest} {
		if errors.Is(err, bad) {
			return badHead{err}
		}
	}
	return err
}

// tidy deletes the heads that were written and did not come into the database: a crash left them. One is spared if the
// head that the database knows is not there, as after a restore, since then it may be the only one.
func (r *reseal) tidy(ctx context.Context) error {
	days, err := r.stores.blobs.Days(ctx)
	if err != nil {
		return fmt.Errorf("list the days of the blob store: %w", err)
	}
	for _, day := range days {
		if err := r.claim(ctx); err != nil {
			return err
		}
		var written []string
		for info, err := range r.stores.blobs.List(ctx, day) {
			if err != nil {
				return fmt.Errorf("list the objects of %s: %w", day, err)
			}
			if name, err := crypto.ParseObjectName(info.Name); err == nil && name.Kind == crypto.KindHead && name.Seq > 1 {
				written = append(written, info.Name)
			}
		}
		referenced, err := r.stores.meta.Referenced(ctx, written)
		if err != nil {
			return err
		}
		for _, name := range written {
			if referenced[name] {
				continue
			}
			if err := r.leave(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave deletes a left-over head of a package that has another one.
func (r *reseal) leave(ctx context.Context, leftover string) error {
	name, err := crypto.ParseObjectName(leftover)
	if err != nil {
		return err
	}
	p, err := r.stores.meta.Package(ctx, gateway.PackageID(name.ID))
	if gateway.ErrorCode(err) == gateway.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if p.State != gateway.PackageErased {
		if _, err := r.stores.blobs.Stat(ctx, p.Head); errors.Is(err, blob.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("look for a head: %w", err)
		}
	}
	if err := r.stores.blobs.Delete(ctx, leftover); err != nil {
		return fmt.Errorf("delete a left-over head: %w", err)
	}
	return nil
}
