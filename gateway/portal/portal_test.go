package portal

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"sealpost/gateway"
)

const (
	agentAddress  = "agent@example.com"
	agentPassword = "correct horse"
)

// house is a portal with one agent and one package, and what is needed to open it.
type house struct {
	t         *testing.T
	store     *memStore
	passwords *plainPasswords
	handler   http.Handler
	logs      *syncBuffer
	url       *url.URL

	pkg     gateway.PackageID
	proof   string
	head    string
	segment string
	data    []byte // of the segment
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newHouse(t *testing.T, change ...func(*Options)) *house {
	t.Helper()
	h := &house{t: t, store: newMemStore(), passwords: &plainPasswords{}, logs: &syncBuffer{}}
	h.url = &url.URL{Scheme: "http", Host: "127.0.0.1:8080"}
	opts := Options{URL: h.url, Logger: slog.New(slog.NewTextHandler(h.logs, nil))}
	for _, c := range change {
		c(&opts)
	}
	h.url = opts.URL
	var err error
	if h.handler, err = New(opts, h.store, h.store, h.store, h.passwords); err != nil {
		t.Fatal(err)
	}
	h.addAgent("a1", agentAddress, agentPassword)
	proof := make([]byte, 32)
	_, _ = rand.Read(proof)
	h.proof = base64.RawURLEncoding.EncodeToString(proof)
	h.data = make([]byte, 100_000)
	_, _ = rand.Read(h.data)
	h.pkg = gateway.NewPackageID()
	h.head, h.segment = "20260102/"+h.pkg.String()+".h.1.00", "20260102/"+h.pkg.String()+".s.01"
	h.addPackage(h.pkg, proof, h.head, h.segment)
	return h
}

func (h *house) addAgent(id, address, password string) {
	h.store.agents[id] = gateway.Agent{ID: id, Address: address, PasswordHash: gateway.NewSecret(password)}
}

func (h *house) addPackage(id gateway.PackageID, proof []byte, head, segment string) {
	h.store.blobs[head] = []byte("the head of " + id.String())
	h.store.blobs[segment] = h.data
	expires := h.store.now.Add(24 * time.Hour)
	h.store.packages[id] = gateway.Package{
		ID: id, State: gateway.PackageAvailable, Expires: expires, Head: head,
		ServerSecret: gateway.NewSecret("the-server-secret-marker"), ProofHash: sha256.Sum256(proof),
		Objects: []gateway.Object{
			{Name: head, Item: gateway.HeadObject, Size: int64(len(h.store.blobs[head]))},
			{Name: segment, Size: int64(len(h.data))},
		},
		Placements: []gateway.Placement{{Kind: gateway.PlacementRoute, Place: "support@example.com", Expires: expires}},
	}
}

// header is one header field of a request.
type header struct{ name, value string }

func (h *house) request(method, path, body string, headers ...header) *http.Request {
	r := httptest.NewRequest(method, h.url.Scheme+"://"+h.url.Host+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, f := range headers {
		r.Header.Set(f.name, f.value)
	}
	return r
}

// answer is a response, read to its end.
type answer struct {
	status  int
	header  http.Header
	body    string
	length  int64 // as declared, -1 when it was not
	cookies []*http.Cookie
}

func (h *house) send(r *http.Request) answer {
	h.t.Helper()
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	response := w.Result()
	defer func() { _ = response.Body.Close() }()
	return answer{response.StatusCode, response.Header, w.Body.String(), response.ContentLength, response.Cookies()}
}

func (h *house) do(method, path, body string, headers ...header) answer {
	h.t.Helper()
	return h.send(h.request(method, path, body, headers...))
}

func loginBody(agent, password string, token bool) string {
	b, _ := json.Marshal(map[string]any{"agent": agent, "password": password, "token": token})
	return string(b)
}

// cookie logs in as a browser does and returns the Cookie header.
func (h *house) cookie() header {
	h.t.Helper()
	r := h.do("POST", "/api/v1/login", loginBody(agentAddress, agentPassword, false))
	if r.status != http.StatusOK || len(r.cookies) != 1 {
		h.t.Fatalf("log-in: %d with %d cookies: %s", r.status, len(r.cookies), r.body)
	}
	return header{"Cookie", r.cookies[0].Name + "=" + r.cookies[0].Value}
}

// bearer logs in as a program does and returns the Authorization header.
func (h *house) bearer() header {
	h.t.Helper()
	r := h.do("POST", "/api/v1/login", loginBody(agentAddress, agentPassword, true))
	var reply struct{ Token string }
	if err := json.Unmarshal([]byte(r.body), &reply); err != nil || reply.Token == "" || len(r.cookies) != 0 {
		h.t.Fatalf("log-in for a token: %d, %v, token %t, %d cookies", r.status, err, reply.Token != "", len(r.cookies))
	}
	return header{"Authorization", "Bearer " + reply.Token}
}

func (h *house) openPath() string { return "/api/v1/packages/" + h.pkg.String() + "/open" }

func (h *house) objectPath() string {
	return "/api/v1/packages/" + h.pkg.String() + "/objects/" + h.segment
}

func proofBody(proof string) string { return fmt.Sprintf(`{"proof":%q}`, proof) }

type openReply struct {
	ServerSecret string    `json:"server_secret"`
	Grant        string    `json:"grant"`
	Expires      time.Time `json:"expires"`
	Head         []byte    `json:"head"`
}

func (h *house) open(session header) openReply {
	h.t.Helper()
	r := h.do("POST", h.openPath(), proofBody(h.proof), session)
	var reply openReply
	if err := json.Unmarshal([]byte(r.body), &reply); err != nil || r.status != http.StatusOK {
		h.t.Fatalf("open: %d, %v", r.status, err)
	}
	return reply
}

func (h *house) grant(session header) header { return header{grantHeader, h.open(session).Grant} }

func newDiscard() *slog.Logger { return slog.New(slog.DiscardHandler) }
