package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"
)

// slot stands where each mail has a number of its own: in its Message-ID, and at the beginning of its text or file, so
// that no two attachments are the same. It is valid base64 of whole groups.
const slot = "slot00000000"

// preparedMail is a mail in pieces, between which the number goes. It is sent without being copied.
type preparedMail struct {
	pieces [][]byte
	size   int
}

// prepare makes a mail of about size bytes: one attachment of random bytes, or only a text.
func prepare(size int, attachment bool) preparedMail {
	const overhead = 500 // header, text and boundaries
	head := "From: Jane <jane@customer.example>\r\nTo: " + testRoute + "\r\nSubject: bench\r\nMessage-ID: <" + slot +
		"@customer.example>\r\nMIME-Version: 1.0\r\n"
	var mail bytes.Buffer
	if attachment {
		mail.WriteString(head + "Content-Type: multipart/mixed; boundary=b1\r\n\r\n--b1\r\nContent-Type: text/plain\r\n\r\nSee the file.\r\n" +
			"--b1\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"file.bin\"\r\n" +
			"Content-Transfer-Encoding: base64\r\n\r\n" + slot + "\r\n")
		writeBase64(&mail, randomBytes((size-overhead)/78*57))
		mail.WriteString("\r\n--b1--\r\n")
	} else {
		mail.WriteString(head + "Content-Type: text/plain\r\n\r\n" + slot + "\r\n")
		for mail.Len() < size {
			mail.WriteString("A line of text as long as people write them, more or less, in a mail.\r\n")
		}
	}
	mail.WriteString(".\r\n")
	return preparedMail{pieces: bytes.Split(mail.Bytes(), []byte(slot)), size: mail.Len() - len(".\r\n")}
}

// numbered returns what is to be written for the mail with this number, the final dot included.
func (m preparedMail) numbered(number int) *net.Buffers {
	text := fmt.Appendf(nil, "n%0*d", len(slot)-1, number)
	var buffers net.Buffers
	for i, piece := range m.pieces {
		if i > 0 {
			buffers = append(buffers, text)
		}
		buffers = append(buffers, piece)
	}
	return &buffers
}

// sender is the envelope sender by which a mail is known again at the sink.
func sender(number int) string { return fmt.Sprintf("m%d@customer.example", number) }

// numberOf is the other way round; 0 is nobody's.
func numberOf(sender string) int {
	var number int
	if _, err := fmt.Sscanf(sender, "m%d@customer.example", &number); err != nil {
		return 0
	}
	return number
}

// sending is what one client does: one connection that is kept, a mail after the other, each command answered before
// the next, as smtp-source does.
type sending struct {
	mail      preparedMail
	next      func() (number int, more bool)
	number    int             // of the mail that is to be sent; 0: none
	latencies []time.Duration // from the final dot, handed to the kernel, to its 250
	deferred  int             // 4xx replies; each such mail is tried again
}

// deferredPause is how long a client waits after a 4xx.
const deferredPause = 50 * time.Millisecond

// run sends until there is no next mail.
func (s *sending) run(address string) error {
	for again := true; again; {
		var err error
		if again, err = s.session(address); err != nil {
			return fmt.Errorf("mail %d: %w", s.number, err)
		}
	}
	return nil
}

// session sends over one connection. It says true where another one is needed.
func (s *sending) session(address string) (again bool, err error) {
	conn, err := textproto.Dial("tcp", address)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if busy, err := s.reply(conn, 220); busy || err != nil {
		return busy, err
	}
	if _, err := s.say(conn, 250, "EHLO client.example"); err != nil {
		return false, err
	}
	for s.pick() {
		accepted, err := s.give(conn)
		if err != nil {
			return false, err
		}
		if accepted {
			s.number = 0
		} else if _, err := s.say(conn, 250, "RSET"); err != nil {
			return true, nil // it has closed the connection after its 4xx
		}
	}
	_, err = s.say(conn, 221, "QUIT")
	return false, err
}

func (s *sending) pick() (more bool) {
	if s.number == 0 {
		s.number, more = s.next()
		return more
	}
	return true
}

func (s *sending) give(conn *textproto.Conn) (accepted bool, err error) {
	for _, step := range []struct {
		want int
		text string
	}{{250, "MAIL FROM:<" + sender(s.number) + ">"}, {250, "RCPT TO:<" + testRoute + ">"}, {354, "DATA"}} {
		if busy, err := s.say(conn, step.want, step.text); busy || err != nil {
			return false, err
		}
	}
	if _, err := s.mail.numbered(s.number).WriteTo(conn.W); err != nil {
		return false, err
	}
	if err := conn.W.Flush(); err != nil {
		return false, err
	}
	began := time.Now()
	busy, err := s.reply(conn, 250)
	if busy || err != nil {
		return false, err
	}
	s.latencies = append(s.latencies, time.Since(began))
	return true, nil
}

func (s *sending) say(conn *textproto.Conn, want int, text string) (busy bool, err error) {
	if err := conn.PrintfLine("%s", text); err != nil {
		return false, err
	}
	return s.reply(conn, want)
}

// reply reads a reply; busy is a 4xx one.
func (s *sending) reply(conn *textproto.Conn, want int) (busy bool, err error) {
	_, _, err = conn.ReadResponse(want)
	var refused *textproto.Error
	if errors.As(err, &refused) && refused.Code/100 == 4 {
		s.deferred++
		time.Sleep(deferredPause)
		return true, nil
	}
	return false, err
}

// peerSink is the next hop of the systems: it answers 250 to every mail and counts each by its envelope sender.
// It scans for the end of a mail and does nothing else, so that what takes whole mails to it is not made to pay for it.
type peerSink struct {
	address  string
	listener net.Listener
	sessions sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	seen  map[int]int // how often, by number
	bytes map[int]int64
	news  chan struct{} // closed, and made again, when a mail has come
}

func startPeerSink(t testing.TB) *peerSink {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &peerSink{address: listener.Addr().String(), listener: listener, conns: map[net.Conn]bool{},
		seen: map[int]int{}, bytes: map[int]int64{}, news: make(chan struct{})}
	s.sessions.Go(s.accept)
	t.Cleanup(s.close)
	return s
}

func (s *peerSink) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.sessions.Wait()
}

func (s *peerSink) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[conn] = true
		s.mu.Unlock()
		s.sessions.Go(func() {
			s.serve(conn)
			_ = conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
	}
}

// serve answers until the peer leaves. Replies are held back while further commands of a pipeline are there.
func (s *peerSink) serve(conn net.Conn) {
	r, w := bufio.NewReaderSize(conn, 128<<10), bufio.NewWriter(conn)
	from := ""
	reply := func(text string) bool {
		if _, err := w.WriteString(text + "\r\n"); err != nil {
			return false
		}
		return r.Buffered() > 0 || w.Flush() == nil
	}
	for open := reply("220 sink.test ESMTP"); open; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch verb {
		case "EHLO":
			open = reply("250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES")
		case "MAIL":
			_, from, _ = strings.Cut(line, "<")
			from, _, _ = strings.Cut(from, ">")
			open = reply("250 2.1.0 Ok")
		case "DATA":
			if !reply("354 End with a dot") {
				return
			}
			size, err := skipMail(r)
			if err != nil {
				return
			}
			s.count(numberOf(from), size)
			open = reply("250 2.0.0 Ok")
		case "QUIT":
			_ = reply("221 2.0.0 Bye")
			return
		default:
			open = reply("250 2.0.0 Ok")
		}
	}
}

// skipMail reads to the end of a mail (RFC 5321 section 4.1.1.4) and returns its size.
func skipMail(r *bufio.Reader) (int64, error) {
	size, begins := int64(0), true
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return size, err
		}
		if begins && string(line) == ".\r\n" {
			return size, nil
		}
		size += int64(len(line))
		begins = err == nil
	}
}

func (s *peerSink) count(number int, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[number]++
	s.bytes[number] = size
	close(s.news)
	s.news = make(chan struct{})
}

// wait returns once so many different mails have come; fewer when ctx ends is an error.
func (s *peerSink) wait(ctx context.Context, mails int) error {
	for {
		s.mu.Lock()
		came, news := len(s.seen), s.news
		s.mu.Unlock()
		if came >= mails {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d mails came: %w", came, mails, ctx.Err())
		}
	}
}

// check wants the mails 1 to mails, each once and of least to most bytes, and none else.
func (s *peerSink) check(mails int, least, most int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost, doubled, unlike := 0, 0, 0
	for number := 1; number <= mails; number++ {
		switch size := s.bytes[number]; {
		case s.seen[number] == 0:
			lost++
		case s.seen[number] > 1:
			doubled++
		case size < least || size > most:
			unlike++
		}
	}
	if others := len(s.seen) + lost - mails; lost+doubled+unlike+others > 0 {
		return fmt.Errorf("of %d mails %d are lost, %d doubled, %d not of %d to %d bytes; %d others came", mails, lost, doubled, unlike, least, most, others)
	}
	return nil
}
