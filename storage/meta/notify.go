package meta

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Nodes wake each other by NOTIFY. It is sent after a commit and not within: a transaction that notifies holds a lock of
// the whole cluster until its commit is on the disk, and so would make all mails of all nodes wait for each other. What
// a crash takes away in between is found by the next look.

const (
	qNotify = `SELECT pg_notify('sealpost', $1)`
	qListen = `LISTEN sealpost`

	// notifyPause is between two notifications, so that many commits make few.
	notifyPause = 20 * time.Millisecond
	notifyLimit = 5 * time.Second
	settleLimit = 10 * time.Second

	// heartbeat is how often the listener asks whether its server is there.
	heartbeat      = 30 * time.Second
	heartbeatLimit = 10 * time.Second

	minReconnect = 100 * time.Millisecond
	maxReconnect = 5 * time.Second
)

// server is what runs beside the pool: who listens, who notifies, and who writes what other nodes must know at once.
type server struct {
	store   *Store
	config  *pgx.ConnConfig
	made    chan struct{} // something was made due here
	unheard chan struct{} // a settlement is to be written
	closing chan struct{}
	once    sync.Once
	cancel  context.CancelFunc // ends the listener
	running sync.WaitGroup
}

// startServer listens from when it returns nil.
func startServer(ctx context.Context, config *pgx.ConnConfig, s *Store) (*server, error) {
	listening, cancel := context.WithCancel(context.WithoutCancel(ctx))
	v := &server{store: s, config: config.Copy(), made: make(chan struct{}, 1), unheard: make(chan struct{}, 1),
		closing: make(chan struct{}), cancel: cancel}
	delete(v.config.RuntimeParams, "statement_timeout")
	conn, err := v.connect(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	v.running.Go(func() { v.listen(listening, conn) })
	v.running.Go(func() { v.notify(listening) })
	v.running.Go(func() { v.settle(context.WithoutCancel(ctx)) })
	return v, nil
}

// close sends what is to be sent, and waits until nothing runs any more.
func (v *server) close() {
	v.once.Do(func() { close(v.closing) })
	v.running.Wait()
	v.cancel()
}

// settleNow has the settlements written that wait.
func (v *server) settleNow() {
	select {
	case v.unheard <- struct{}{}:
	default:
	}
}

// settle writes settlements. What fails is left to the next transaction; and what waits at the end, to Close's.
func (v *server) settle(ctx context.Context) {
	for {
		select {
		case <-v.closing:
			return
		case <-v.unheard:
		}
		writing, cancel := context.WithTimeout(ctx, settleLimit)
		_ = v.store.writeSettlements(writing, "record that an answer was not heard")
		cancel()
	}
}

// tell has the other nodes woken.
func (v *server) tell() {
	select {
	case v.made <- struct{}{}:
	default:
	}
}

// notify tells the other nodes of what was made due here.
func (v *server) notify(ctx context.Context) {
	defer v.cancel() // when all is told, listening ends
	for {
		select {
		case <-v.closing:
			v.tellNow(ctx)
			return
		case <-v.made:
		}
		v.send(ctx)
		select {
		case <-v.closing:
			v.tellNow(ctx)
			return
		case <-time.After(notifyPause):
		}
	}
}

// tellNow tells what has not been told yet.
func (v *server) tellNow(ctx context.Context) {
	select {
	case <-v.made:
		v.send(ctx)
	default:
	}
}

// send is not tried again: whoever does not hear it looks.
func (v *server) send(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, notifyLimit)
	defer cancel()
	_, _ = v.store.write.ExecContext(ctx, qNotify, v.store.process)
}

func (v *server) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, v.config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, qListen); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// listen wakes this node when another has made something due, and once whenever it may have missed that.
func (v *server) listen(ctx context.Context, conn *pgx.Conn) {
	for ctx.Err() == nil {
		v.hear(ctx, conn)
		closeConn(conn)
		if conn = v.reconnect(ctx); conn != nil {
			v.store.wakeHere()
		}
	}
	closeConn(conn)
}

func closeConn(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing was written on it
}

// hear returns when the connection has ended.
func (v *server) hear(ctx context.Context, conn *pgx.Conn) {
	for {
		waiting, cancel := context.WithTimeout(ctx, heartbeat)
		notification, err := conn.WaitForNotification(waiting)
		quiet := waiting.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && notification.Payload != v.store.process:
			v.store.wakeHere()
		case err == nil:
		case quiet && beats(ctx, conn):
		default:
			return
		}
	}
}

func beats(ctx context.Context, conn *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, heartbeatLimit)
	defer cancel()
	return conn.Ping(ctx) == nil
}

// reconnect returns nil when ctx has ended.
func (v *server) reconnect(ctx context.Context) *pgx.Conn {
	for pause := minReconnect; ; pause = min(2*pause, maxReconnect) {
		if conn, err := v.connect(ctx); err == nil {
			return conn
		}
		if waitFor(ctx, pause/2+rand.N(pause/2)) != nil { // #nosec G404 -- so that nodes do not come all at once
			return nil
		}
	}
}
