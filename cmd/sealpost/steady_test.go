package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/sfclient/sftest"
)

const (
	senders     = 4
	sendPause   = 60 * time.Millisecond // of each sender between two mails, and before another try
	senderWords = 5 * time.Second       // for all replies but the last, and to connect
)

// steady is a light, steady load: customers' servers that keep what was answered 250, and try again what was not. They
// go on to the next node when one cannot be reached.
type steady struct {
	addresses []string
	stop      chan struct{}
	running   sync.WaitGroup

	mu    sync.Mutex
	mails map[string]*sentMail // by what stands in the subject
	total tally
	more  chan struct{} // closed at the next 250 or refusal
}

// tally counts tries.
type tally struct {
	accepted  int // 250
	deferred  int // 4xx
	full      int // of these, 452: no room
	lost      int // the reply to the final dot: nobody knows whether it was a 250
	broken    int // before the final dot
	permanent int // 5xx, which no fault of ours may cause
}

// sentMail is what the senders know of one mail.
type sentMail struct {
	accepted bool
	lost     int
	deferred int
}

func startLoad(t testing.TB, nodes ...*node) *steady {
	t.Helper()
	s := &steady{stop: make(chan struct{}), mails: map[string]*sentMail{}, more: make(chan struct{})}
	for _, n := range nodes {
		s.addresses = append(s.addresses, n.smtp)
	}
	for sender := range senders {
		s.running.Go(func() { s.send(sender) })
	}
	t.Cleanup(s.end)
	return s
}

// end returns when no sender runs any more.
func (s *steady) end() {
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.running.Wait()
}

// send sends one mail after the other, each until it is accepted.
func (s *steady) send(sender int) {
	at := sender
	for number := 0; ; number++ {
		id := fmt.Sprintf("steady-%d-%d", sender, number)
		mail := steadyMail(id, number)
		for accepted := false; !accepted; {
			select {
			case <-s.stop:
				return
			case <-time.After(sendPause):
			}
			err, late := handIn(s.addresses[at%len(s.addresses)], mail)
			accepted = err == nil
			var reply *smtp.SMTPError
			if err != nil && !errors.As(err, &reply) {
				at++ // this node is away
			}
			s.count(id, err, late)
		}
	}
}

func (s *steady) count(id string, err error, late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mail := s.mails[id]
	if mail == nil {
		mail = &sentMail{}
		s.mails[id] = mail
	}
	var reply *smtp.SMTPError
	switch {
	case err == nil:
		mail.accepted = true
		s.total.accepted++
	case errors.As(err, &reply) && reply.Temporary():
		mail.deferred++
		s.total.deferred++
		if reply.Code == 452 {
			s.total.full++
		}
	case errors.As(err, &reply):
		s.total.permanent++
	case late:
		mail.lost++
		s.total.lost++
	default:
		s.total.broken++
	}
	close(s.more)
	s.more = make(chan struct{})
}

func (s *steady) tally() tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// until waits until the tally is as wanted, and returns how long that took.
func (s *steady) until(t testing.TB, what string, is func(tally) bool) time.Duration {
	t.Helper()
	began := time.Now()
	limit := time.NewTimer(faultLimit())
	defer limit.Stop()
	for {
		s.mu.Lock()
		total, more := s.total, s.more
		s.mu.Unlock()
		if is(total) {
			return time.Since(began)
		}
		select {
		case <-more:
		case <-limit.C:
			t.Fatalf("the senders do not see %s: %+v", what, total)
		}
	}
}

// handIn hands a mail in, and keeps apart what was lost after the final dot: late.
func handIn(address string, mail []byte) (err error, late bool) { //nolint:revive // late says more of err
	conn, err := net.DialTimeout("tcp", address, senderWords)
	if err != nil {
		return err, false
	}
	client := smtp.NewClient(conn)
	defer client.Close()
	client.CommandTimeout = time.Minute // a database that hangs may hold RCPT up
	if err := client.Mail("jane@customer.example", nil); err != nil {
		return err, false
	}
	if err := client.Rcpt(testRoute, nil); err != nil {
		return err, false
	}
	w, err := client.Data()
	if err != nil {
		return err, false
	}
	if _, err := w.Write(mail); err != nil {
		return err, false
	}
	if err := w.Close(); err != nil {
		var reply *smtp.SMTPError
		return err, !errors.As(err, &reply)
	}
	_ = client.Quit() // the 250 is what counts
	return nil, false
}

// steadyMail makes a mail that its id determines. Some have a copy that is an object of its own, some a file that is
// uploaded in parts.
func steadyMail(id string, number int) []byte {
	text := "See the file."
	if number%8 == 3 {
		text = strings.Repeat("A long letter.\r\n", 6_000)
	}
	return mailWith(id, text, steadyContent(id, number))
}

func steadyContent(id string, number int) []byte {
	size := 20_000
	if number%16 == 7 {
		size = 6 << 20
	}
	content := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(id))).Read(content) // never fails
	return content
}

var steadySubject = regexp.MustCompile(`\r\nSubject: (steady-\d+-(\d+))\r\n`)

// arrivals are the mails at the next hop: by id, by Secure Link, how many copies.
type arrivals map[string]map[string]int

func arrived(t testing.TB, org *sftest.Org) (all arrivals, copies int) {
	t.Helper()
	all = arrivals{}
	for _, mail := range org.Mails() {
		found := steadySubject.FindSubmatch(mail.Raw)
		if found == nil {
			continue
		}
		id := string(found[1])
		if all[id] == nil {
			all[id] = map[string]int{}
		}
		all[id][theLink(t, mail)]++
		copies++
	}
	return all, copies
}

// checkArrivals is promise 2 seen from outside: each 250 arrived and opens. A mail arrived twice only where the reply
// to a final dot was lost: the sender's, for another package, or that of the next hop, for another attempt; twice is how
// many of the latter there were. attempts says how many were made for a package.
func (s *steady) checkArrivals(t *testing.T, org *sftest.Org, attempts map[string]int, nodes ...*node) (twice int) {
	t.Helper()
	s.end()
	all, copies := arrived(t, org)
	again := 0
	for id, mail := range s.mails {
		links := all[id]
		if mail.accepted && len(links) == 0 {
			t.Errorf("%s was answered 250 and is lost", id)
		}
		again += max(len(links)-1, 0)
		if len(links) > 1+mail.lost {
			t.Errorf("%s is accepted %d times, but its sender missed %d replies (and was refused %d times)", id, len(links), mail.lost, mail.deferred)
		}
		for link, n := range links {
			twice += n - 1
			if made := attempts[idOf(t, link).String()]; n > made {
				t.Errorf("%s arrived %d times in %d attempts", id, n, made)
			}
		}
	}
	opened := openAll(t, all, nodes)
	total := s.tally()
	if total.permanent > 0 {
		t.Errorf("%d mails were refused for good", total.permanent)
	}
	t.Logf("tries: %+v; %d mails arrived as %d copies, %d of them accepted again after a lost reply, %d sent again after a lost reply; %d packages opened",
		total, len(all), copies, again, twice, opened)
	return twice
}

func idOf(t testing.TB, link string) crypto.ID {
	t.Helper()
	parsed, err := crypto.ParseLink(link)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.ID
}

// openAll logs in at the first node, opens all packages at the nodes in turn, and compares what is in them with what was
// sent.
func openAll(t *testing.T, all arrivals, nodes []*node) (opened int) {
	t.Helper()
	client, err := logIn(t.Context(), "http://"+nodes[0].portal, testAgent, gateway.NewSecret(testPassword))
	if err != nil {
		t.Fatal(err)
	}
	type job struct{ id, link string }
	jobs := make(chan job)
	var workers sync.WaitGroup
	for worker := range senders {
		at := *client
		at.portal = "http://" + nodes[worker%len(nodes)].portal
		workers.Go(func() {
			for j := range jobs {
				if err := openOne(t.Context(), &at, j.id, j.link); err != nil {
					t.Errorf("open %s: %v", j.id, err)
				}
			}
		})
	}
	for id, links := range all {
		for link := range links {
			jobs <- job{id, link}
			opened++
		}
	}
	close(jobs)
	workers.Wait()
	if err := client.logOut(t.Context()); err != nil {
		t.Error(err)
	}
	return opened
}

func openOne(ctx context.Context, client *portalClient, id, link string) error {
	parsed, err := crypto.ParseLink(link)
	if err != nil {
		return err
	}
	pack, objects, err := client.open(ctx, parsed)
	if err != nil {
		return err
	}
	var file bytes.Buffer
	if err := pack.WriteItem(ctx, objects, 0, &file); err != nil {
		return err
	}
	var sender, number int
	if _, err := fmt.Sscanf(id, "steady-%d-%d", &sender, &number); err != nil {
		return err
	}
	if !bytes.Equal(file.Bytes(), steadyContent(id, number)) {
		return errors.New("it is not what was sent")
	}
	return nil
}
