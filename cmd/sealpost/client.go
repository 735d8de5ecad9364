package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sealpost/crypto"
	"sealpost/gateway"
)

// portalClient speaks the portal's API (version 1) for one agent.
type portalClient struct {
	http   *http.Client
	portal string
	token  gateway.Secret
}

// logIn begins a session at the portal. The caller ends it with logOut.
func logIn(ctx context.Context, portal, agent string, password gateway.Secret) (*portalClient, error) {
	c := &portalClient{portal: portal, http: &http.Client{
		// A redirect could carry the session elsewhere; the API has none.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: time.Minute, TLSHandshakeTimeout: 30 * time.Second},
	}}
	request := map[string]any{"agent": agent, "password": password.Reveal(), "token": true}
	var reply struct {
		Token string `json:"token"`
	}
	if err := c.call(ctx, "/api/v1/login", request, &reply); err != nil {
		return nil, err
	}
	c.token = gateway.NewSecret(reply.Token)
	return c, nil
}

func (c *portalClient) logOut(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	defer c.http.CloseIdleConnections()
	if err := c.call(ctx, "/api/v1/logout", struct{}{}, nil); err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	return nil
}

// open proves that the keycode is known and opens the head. The objects are read with what it was granted.
func (c *portalClient) open(ctx context.Context, link crypto.Link) (*crypto.Opened, *grantedObjects, error) {
	var reply struct {
		ServerSecret string `json:"server_secret"`
		Grant        string `json:"grant"`
		Direct       bool   `json:"direct"`
		Head         string `json:"head"`
		Scan         struct {
			Verdict   gateway.ScanVerdict `json:"verdict"`
			Signature string              `json:"signature"`
		} `json:"scan"`
	}
	proof, err := link.Keycode.Proof(link.ID)
	if err != nil {
		return nil, nil, fmt.Errorf("derive the proof: %w", err)
	}
	path := "/api/v1/packages/" + link.ID.String()
	if err := c.call(ctx, path+"/open", map[string]string{"proof": proof.Reveal()}, &reply); err != nil {
		return nil, nil, err
	}
	secret, err := crypto.ParseServerSecret(reply.ServerSecret)
	if err != nil {
		return nil, nil, fmt.Errorf("read the server secret: %w", err)
	}
	head := base64.NewDecoder(base64.StdEncoding, strings.NewReader(reply.Head))
	opened, err := crypto.OpenHead(head, link.ID, secret, link.Keycode, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("open the list of files: %w", err)
	}
	scan := gateway.Scan{Verdict: reply.Scan.Verdict, Signature: reply.Scan.Signature}
	return opened, &grantedObjects{c, path, gateway.NewSecret(reply.Grant), reply.Direct, scan}, nil
}

// call posts request as JSON and reads the reply, if any is wanted.
func (c *portalClient) call(ctx context.Context, path string, request, reply any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.portal+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.do(r)
	if err != nil {
		return err
	}
	if reply != nil {
		err = json.NewDecoder(answer.Body).Decode(reply)
	}
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return fmt.Errorf("read the portal's answer: %w", err)
	}
	return nil
}

// do sends a request. An answer that is no success becomes an error with the portal's own words.
func (c *portalClient) do(r *http.Request) (*http.Response, error) {
	if !c.token.IsZero() {
		r.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	answer, err := c.http.Do(r) //nolint:bodyclose // the caller closes a success, refused a failure
	if err != nil {
		return nil, fmt.Errorf("reach the portal: %w", withoutURL(err))
	}
	if answer.StatusCode >= 200 && answer.StatusCode < 300 {
		return answer, nil
	}
	return nil, refused(answer)
}

func refused(answer *http.Response) error {
	var reply struct {
		Code    gateway.Code `json:"code"`
		Message string       `json:"message"`
	}
	err := json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&reply)
	if closeErr := answer.Body.Close(); err != nil || closeErr != nil || reply.Message == "" {
		return fmt.Errorf("the portal answered %s", printable(answer.Status))
	}
	if reply.Code == gateway.CodeNotFound {
		return errors.New("there is no such package, or the link is not complete")
	}
	return gateway.Errorf(reply.Code, nil, "%s", printable(reply.Message))
}

// grantedObjects are the objects of one package, as its grant opens them.
type grantedObjects struct {
	client *portalClient
	path   string // of the package
	grant  gateway.Secret
	direct bool // they come from where they are stored
	// scan is what a virus scanner said of the mail.
	scan gateway.Scan
}

// Get implements crypto.Getter.
func (g *grantedObjects) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if g.direct {
		return g.getStored(ctx, name, offset, length)
	}
	r, err := g.request(ctx, "/objects/"+name)
	if err != nil {
		return nil, err
	}
	setRange(r, offset, length)
	answer, err := g.client.do(r)
	if err != nil {
		return nil, err
	}
	return answer.Body, nil
}

func (g *grantedObjects) request(ctx context.Context, path string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.client.portal+g.path+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	r.Header.Set("Sealpost-Grant", g.grant.Reveal())
	return r, nil
}

// getStored asks the portal for the object's URL. The server there gets neither token nor grant, and the URL, which is
// a token itself, stands in no error.
func (g *grantedObjects) getStored(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	ask, err := g.request(ctx, "/urls/"+name)
	if err != nil {
		return nil, err
	}
	answer, err := g.client.do(ask)
	if err != nil {
		return nil, err
	}
	var reply struct {
		URL string `json:"url"`
	}
	err = json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&reply)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the portal's answer: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, reply.URL, http.NoBody)
	if err != nil {
		return nil, errors.New("the portal gave no usable address of a file")
	}
	setRange(r, offset, length)
	stored, err := g.client.http.Do(r) //nolint:bodyclose // the caller closes a success
	if err != nil {
		return nil, fmt.Errorf("reach the file's storage: %w", withoutURL(err))
	}
	if stored.StatusCode != http.StatusOK && stored.StatusCode != http.StatusPartialContent {
		return nil, errors.Join(fmt.Errorf("the file's storage answered %s", printable(stored.Status)), stored.Body.Close())
	}
	return stored.Body, nil
}

func setRange(r *http.Request, offset, length int64) {
	switch {
	case length >= 0:
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case offset > 0:
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
}

// withoutURL leaves out the URL that net/http puts into its errors.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
