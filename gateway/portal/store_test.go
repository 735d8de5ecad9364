package portal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"

	"sealpost/gateway"
)

// memStore is a Store, Sessions and Blobs in memory, with a clock that tests move.
type memStore struct {
	mu       sync.Mutex
	now      time.Time
	agents   map[string]gateway.Agent // by ID
	packages map[gateway.PackageID]gateway.Package
	grants   map[[32]byte]gateway.Grant
	failures map[string][]time.Time
	events   []gateway.AuditEvent
	auditErr error
	sessions map[string]memSession
	blobs    map[string][]byte
	cut      int // bytes that the end of every blob lacks
}

type memSession struct {
	data    []byte
	expires time.Time
	agent   string
}

var (
	_ Store    = (*memStore)(nil)
	_ Sessions = (*memStore)(nil)
	_ Blobs    = (*memStore)(nil)
)

func newMemStore() *memStore {
	return &memStore{
		now:    time.Now().UTC().Truncate(time.Microsecond),
		agents: map[string]gateway.Agent{}, packages: map[gateway.PackageID]gateway.Package{},
		grants: map[[32]byte]gateway.Grant{}, failures: map[string][]time.Time{},
		sessions: map[string]memSession{}, blobs: map[string][]byte{},
	}
}

func (s *memStore) locked() func() {
	s.mu.Lock()
	return s.mu.Unlock
}

func absent() error { return gateway.Errorf(gateway.CodeNotFound, nil, "it is not there") }

func (s *memStore) AgentByAddress(_ context.Context, address string) (gateway.Agent, error) {
	defer s.locked()()
	for _, agent := range s.agents {
		if strings.EqualFold(agent.Address, strings.TrimSpace(address)) {
			return agent, nil
		}
	}
	return gateway.Agent{}, absent()
}

func (s *memStore) Agent(_ context.Context, id string) (gateway.Agent, error) {
	defer s.locked()()
	agent, ok := s.agents[id]
	if !ok {
		return gateway.Agent{}, absent()
	}
	return agent, nil
}

func (s *memStore) Package(_ context.Context, id gateway.PackageID) (gateway.Package, error) {
	defer s.locked()()
	pkg, ok := s.packages[id]
	if !ok {
		return gateway.Package{}, absent()
	}
	return pkg, nil
}

func (s *memStore) ObjectOf(_ context.Context, id gateway.PackageID, name string) (gateway.Object, error) {
	defer s.locked()()
	for _, object := range s.packages[id].Objects {
		if object.Name == name {
			return object, nil
		}
	}
	return gateway.Object{}, absent()
}

func (s *memStore) AddGrant(_ context.Context, token, session [32]byte, id gateway.PackageID, expires time.Time) error {
	defer s.locked()()
	s.grants[token] = gateway.Grant{TokenHash: token, SessionHash: session, Package: id, Expires: expires}
	return nil
}

func (s *memStore) Grant(_ context.Context, token [32]byte) (gateway.Grant, error) {
	defer s.locked()()
	grant, ok := s.grants[token]
	if !ok {
		return gateway.Grant{}, absent()
	}
	return grant, nil
}

func (s *memStore) CountLoginFailures(_ context.Context, key string, since time.Time) (int, error) {
	defer s.locked()()
	n := 0
	for _, at := range s.failures[key] {
		if at.After(since) {
			n++
		}
	}
	return n, nil
}

func (s *memStore) AddLoginFailure(_ context.Context, key string) error {
	defer s.locked()()
	s.failures[key] = append(s.failures[key], s.now)
	return nil
}

func (s *memStore) ClearLoginFailures(_ context.Context, key string) error {
	defer s.locked()()
	delete(s.failures, key)
	return nil
}

func hashedToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (s *memStore) BindSession(_ context.Context, token, agentID string) error {
	defer s.locked()()
	session, ok := s.sessions[hashedToken(token)]
	if !ok {
		return errors.New("there is no such session")
	}
	session.agent = agentID
	s.sessions[hashedToken(token)] = session
	return nil
}

func (s *memStore) Audit(_ context.Context, event gateway.AuditEvent) error {
	defer s.locked()()
	if s.auditErr != nil {
		return s.auditErr
	}
	s.events = append(s.events, event)
	return nil
}

func (s *memStore) Now(context.Context) (time.Time, error) {
	defer s.locked()()
	return s.now, nil
}

func (s *memStore) FindCtx(_ context.Context, token string) ([]byte, bool, error) {
	defer s.locked()()
	session, ok := s.sessions[token]
	return session.data, ok && s.now.Before(session.expires), nil
}

func (s *memStore) CommitCtx(_ context.Context, token string, data []byte, expires time.Time) error {
	defer s.locked()()
	s.sessions[token] = memSession{data: data, expires: expires}
	return nil
}

func (s *memStore) DeleteCtx(_ context.Context, token string) error {
	defer s.locked()()
	delete(s.sessions, token)
	return nil
}

func (s *memStore) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

func (s *memStore) Commit(token string, data []byte, expires time.Time) error {
	return s.CommitCtx(context.Background(), token, data, expires)
}

func (s *memStore) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

func (s *memStore) Get(_ context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	defer s.locked()()
	blob, ok := s.blobs[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	end := min(offset+length, int64(len(blob)-s.cut))
	if length < 0 {
		end = int64(len(blob) - s.cut)
	}
	return io.NopCloser(bytes.NewReader(blob[min(offset, end):end])), nil
}

// Put makes it the sealer's store as well.
func (s *memStore) Put(_ context.Context, name string, body io.Reader) (int64, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return 0, err
	}
	defer s.locked()()
	s.blobs[name] = data
	return int64(len(data)), nil
}

// edit changes a package.
func (s *memStore) edit(id gateway.PackageID, change func(*gateway.Package)) {
	defer s.locked()()
	pkg := s.packages[id]
	change(&pkg)
	s.packages[id] = pkg
}

func (s *memStore) advance(d time.Duration) {
	defer s.locked()()
	s.now = s.now.Add(d)
}

func (s *memStore) failAudit(err error) {
	defer s.locked()()
	s.auditErr = err
}

// takeEvents returns the events since it was last called.
func (s *memStore) takeEvents() []gateway.AuditEvent {
	defer s.locked()()
	events := s.events
	s.events = nil
	return events
}

// plainPasswords compares passwords as they are and counts what it was asked.
type plainPasswords struct {
	mu             sync.Mutex
	verify, dummy  int
	inside, widest int
	enter          chan struct{} // when set, each check waits for one value
}

func (p *plainPasswords) check(counter *int) {
	p.mu.Lock()
	*counter++
	p.inside++
	p.widest = max(p.widest, p.inside)
	p.mu.Unlock()
	if p.enter != nil {
		<-p.enter
	}
	p.mu.Lock()
	p.inside--
	p.mu.Unlock()
}

func (p *plainPasswords) Verify(_ context.Context, hash, password string) (bool, error) {
	p.check(&p.verify)
	return hash == password, nil
}

func (p *plainPasswords) VerifyDummy(context.Context, string) error {
	p.check(&p.dummy)
	return nil
}
