package portal

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"sealpost/crypto"
	"sealpost/gateway"
)

// parallelChecks is how many log-ins are checked at once; more would not get argon2id's memory anyway.
const parallelChecks = 2

// Limit is a number of failures within a sliding window of time.
type Limit struct {
	Failures int
	Window   time.Duration
}

// LoginLimits bounds failed log-ins. A successful one counts nowhere. The pair's limit is well below the
// account's, so that it takes many clients to close an account, and only while they keep trying.
type LoginLimits struct {
	Pair    Limit // of one account by one client: 5 in 15 min
	Client  Limit // by one client (an IPv6 /64 is one): 50 in 15 min
	Account Limit // of one account by all clients: 100 in 1 h
}

func (l LoginLimits) withDefaults() LoginLimits {
	set := func(limit *Limit, failures int, window time.Duration) {
		if limit.Failures <= 0 || limit.Window <= 0 {
			*limit = Limit{failures, window}
		}
	}
	set(&l.Pair, 5, 15*time.Minute)
	set(&l.Client, 50, 15*time.Minute)
	set(&l.Account, 100, time.Hour)
	return l
}

var errLogin = gateway.Errorf(gateway.CodeUnauthenticated, nil, "The address or the password is wrong.")

type loginRequest struct {
	Agent    string `json:"agent"`
	Password string `json:"password"`
	// Token asks for a bearer token instead of a cookie.
	Token bool `json:"token"`
}

type loginReply struct {
	Token   string    `json:"token,omitempty"`
	Expires time.Time `json:"expires"`
}

// login checks a password and begins a session.
func (p *portal) login(w http.ResponseWriter, r *http.Request) error {
	var request loginRequest
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	agent, err := p.check(w, r, request)
	p.metrics.logins.WithLabelValues(outcome(err)).Inc()
	if err != nil {
		return err
	}
	by := byCookie
	if request.Token {
		by = byBearer
	}
	return p.begin(w, r, agent, by)
}

// check finds the agent whose password this is. It holds one of the few places for checks, so that a
// failure is counted before the next guess is looked at.
func (p *portal) check(w http.ResponseWriter, r *http.Request, request loginRequest) (gateway.Agent, error) {
	select {
	case p.checks <- struct{}{}:
		defer func() { <-p.checks }()
	case <-r.Context().Done():
		return gateway.Agent{}, gateway.Errorf(gateway.CodeTimeout, r.Context().Err(), "The log-in took too long.")
	}
	ctx := r.Context()
	keys := p.limitKeys(p.client(r), request.Agent)
	if err := p.limited(ctx, w, keys); err != nil {
		return gateway.Agent{}, err
	}
	agent, err := p.verify(ctx, request)
	if countErr := p.count(context.WithoutCancel(ctx), keys, err); countErr != nil {
		return gateway.Agent{}, countErr
	}
	principal := gateway.Principal{Kind: gateway.PrincipalAgent, ID: agent.ID}
	if auditErr := p.audit(r, gateway.AuditEvent{Action: gateway.AuditLogin, Principal: principal}, err); auditErr != nil {
		return gateway.Agent{}, auditErr
	}
	return agent, err
}

// verify answers errLogin for an unknown agent and for a wrong password alike, after the same work. The
// agent comes with it, where there is one, for the audit event.
func (p *portal) verify(ctx context.Context, request loginRequest) (gateway.Agent, error) {
	agent, err := p.store.AgentByAddress(ctx, request.Agent)
	if gateway.ErrorCode(err) == gateway.CodeNotFound {
		if err := p.passwords.VerifyDummy(ctx, request.Password); err != nil {
			return gateway.Agent{}, fmt.Errorf("check a password: %w", err)
		}
		return gateway.Agent{}, errLogin
	}
	if err != nil {
		return gateway.Agent{}, err
	}
	right, err := p.passwords.Verify(ctx, agent.PasswordHash.Reveal(), request.Password)
	if err != nil {
		return gateway.Agent{}, fmt.Errorf("check a password: %w", err)
	}
	if !right {
		return agent, errLogin
	}
	return agent, nil
}

// begin makes a new session: never the one that the client brought along.
func (p *portal) begin(w http.ResponseWriter, r *http.Request, agent gateway.Agent, by carrier) error {
	ctx, err := p.sessions.Load(r.Context(), "")
	if err != nil {
		return fmt.Errorf("begin a session: %w", err)
	}
	p.sessions.Put(ctx, keyAgent, agent.ID)
	p.sessions.Put(ctx, keyCarrier, string(by))
	p.sessions.Put(ctx, keyPassword, fingerprint(agent))
	token, expires, err := p.sessions.Commit(ctx)
	if err != nil {
		return gateway.Errorf(gateway.CodeUnavailable, err, "The session could not be stored.")
	}
	if err := p.store.BindSession(ctx, token, agent.ID); err != nil {
		return fmt.Errorf("bind the session to its agent: %w", err)
	}
	reply := loginReply{Expires: expires}
	if by == byBearer {
		reply.Token = token
	} else {
		p.sessions.WriteSessionCookie(ctx, w, token, expires)
	}
	writeJSON(w, http.StatusOK, reply)
	return nil
}

// limitKey is one thing whose failures are counted.
type limitKey struct {
	name  string
	limit Limit
	// forgiven tells that a right password clears it. A client's own count stays, or one valid account
	// would buy any number of guesses at the others.
	forgiven bool
}

func (p *portal) limitKeys(client netip.Addr, agent string) []limitKey {
	from := clientKey(client)
	account := crypto.CanonicalAddress(agent) // as the look-up spells it, or other spellings would be other accounts
	return []limitKey{
		{"pair " + from + " " + account, p.opts.Limits.Pair, true},
		{"client " + from, p.opts.Limits.Client, false},
		{"account " + account, p.opts.Limits.Account, true},
	}
}

// limited returns an error with CodeBusy, and sets Retry-After, when a limit is reached. The store cannot
// tell when the oldest failure leaves the window, so the window's length is named: the longest it can take.
func (p *portal) limited(ctx context.Context, w http.ResponseWriter, keys []limitKey) error {
	now, err := p.store.Now(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		failures, err := p.store.CountLoginFailures(ctx, key.name, now.Add(-key.limit.Window))
		if err != nil {
			return fmt.Errorf("count failed log-ins: %w", err)
		}
		if failures >= key.limit.Failures {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(key.limit.Window.Seconds()))))
			return gateway.Errorf(gateway.CodeBusy, nil, "Too many failed log-ins. Try again in %d minutes.",
				int(math.Ceil(key.limit.Window.Minutes())))
		}
	}
	return nil
}

// count counts a wrong password and forgives for a right one; a fault of ours is neither.
func (p *portal) count(ctx context.Context, keys []limitKey, result error) error {
	for _, key := range keys {
		var err error
		switch {
		case gateway.ErrorCode(result) == gateway.CodeUnauthenticated:
			err = p.store.AddLoginFailure(ctx, key.name)
		case result == nil && key.forgiven:
			err = p.store.ClearLoginFailures(ctx, key.name)
		}
		if err != nil {
			return fmt.Errorf("count a log-in: %w", err)
		}
	}
	return nil
}
