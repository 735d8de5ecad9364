package smtpd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	fuzzMaxSize  = 2000
	fuzzReceived = 3
)

// FuzzSession: whatever a client sends, in whatever packets, the server accepts exactly the mails that a
// strict reference reader finds in it, answers each command once, and never panics.
func FuzzSession(f *testing.F) {
	const begin = "MAIL FROM:<a@b.test>\r\nRCPT TO:<support@example.com>\r\n"
	for _, s := range []string{
		begin + "DATA\r\nx\r\n..\r\n.\r\nQUIT\r\n", begin + "DATA\r\nx\n.\n" + begin + "DATA\r\ny\r\n.\r\n",
		begin + "DATA\r\nx\r\r\n.\r\nNOOP\r\n", begin + "DATA\r\n\r\n.\rx\r\n.\r\nNOOP\r\n", begin + "DATA\r\n.\r\n" + begin + "DATA\r\n\x00\r\n.\r\n",
		begin + "BDAT 3\r\nx\r\nBDAT 0 LAST\r\n", begin + "BDAT 2\r\nx\rBDAT 1 LAST\r\n\n", begin + "BDAT 9 LAST\r\nhalf",
		begin + "BDAT 5\r\nNOOP\nRSET\r\nBDAT 6 LAST\r\nNOOP\r\n" + begin + "BDAT 3 LAST\r\ny\r\n",
		begin + "BDAT 3\r\nx\r\nNOOP\r\nMAIL FROM:<>\r\nDATA\r\nEHLO y\r\n" + begin + "DATA\r\n.\r\n",
		begin + "BDAT 1\r\n\nBDAT 3 LAST\r\nx\r\nNOOP\r\n", begin + "BDAT -1\r\n", "BDAT 4294967296 LAST\r\nQUIT\r\n",
		begin + "DATA\r\n" + strings.Repeat("Received: x\r\n", 4) + ".\r\nNOOP\r\n", begin + "DATA\r\n" + strings.Repeat("x", 2100) + "\r\n.\r\nNOOP\r\n",
		"RCPT TO:<postmaster>\r\nMAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\nVRFY x\r\nDATA x\r\nXXXX\r\n\r\nA\r\nSTARTTLS\r\nDATA\r\n.\r\n",
		"MAIL FROM:<\"a\\\"b\"@c.test> SMTPUTF8 SIZE=1 BODY=8BITMIME\r\nRCPT TO:<@x:sales@example.com>\r\nHELO z\r\nAUTH PLAIN\r\nHELP\r\n",
	} {
		f.Add([]byte(s), byte(0))
		f.Add([]byte(s), byte(1))
		f.Add([]byte(s), byte(7))
	}
	pipes := make(pipeListener)
	ts := &testServer{recorder: &recorder{}, log: &lockedBuffer{}}
	opts := testOptions(ts)
	opts.MaxMessageSize, opts.Limits.ReceivedFields, opts.Limits.Errors = fuzzMaxSize, fuzzReceived, 20
	opts.Metrics, opts.Logger = nil, nil
	s, err := New(opts)
	if err != nil {
		f.Fatal(err)
	}
	ts.Server, ts.served = s, make(chan error, 1)
	go func() { ts.served <- s.Serve(pipes) }()
	f.Cleanup(func() { ts.stop(f) })

	f.Fuzz(func(t *testing.T, input []byte, packet byte) {
		ts.mails, ts.safe, ts.settled = nil, nil, nil
		input = append([]byte("EHLO client.test\r\n"), input...)
		nc := &scriptConn{in: bytes.NewReader(input), packet: int(packet), closed: make(chan struct{})}
		pipes <- nc
		<-nc.closed
		want, err := reference(input, splitReplies(nc.out.String()))
		if err != nil {
			t.Fatalf("%v\nclient %q\nserver %q", err, input, nc.out.String())
		}
		got := texts(ts.taken())
		if len(got) != len(want) {
			t.Fatalf("accepted %q, want %q\nclient %q\nserver %q", got, want, input, nc.out.String())
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("mail %d is %q, want %q", i, got[i], want[i])
			}
		}
	})
}

// reference reads what a client sent as RFC 5321 and RFC 3030 say, guided by the replies where they decide,
// and returns the texts of the mails that had to be accepted.
func reference(input []byte, replies []string) (mails []string, err error) {
	bdat := regexp.MustCompile(`(?i)^BDAT +([0-9]+)( +LAST)?[ \t]*\r?\n$`)
	next := func() (string, bool) {
		if len(replies) == 0 {
			return "", false
		}
		reply := replies[0]
		replies = replies[1:]
		return reply, true
	}
	next() // the greeting
	chunks := ""
	rest := string(input)
	for {
		end := strings.IndexByte(rest, '\n')
		if end < 0 {
			break
		}
		line := rest[:end+1]
		reply, ok := next()
		rest = rest[end+1:]
		m := bdat.FindStringSubmatch(line)
		if !ok {
			if m != nil && cutChunk(m[1], rest) {
				return mails, nil
			}
			return nil, fmt.Errorf("no reply to %q", line)
		}
		switch {
		case strings.HasPrefix(reply, "421 4.0.0"):
			return nil, fmt.Errorf("a panic behind %q", line)
		case strings.HasPrefix(reply, "354"):
			full := "\r\n" + rest
			end := strings.Index(full, "\r\n.\r\n")
			if end < 0 {
				rest = ""
				break
			}
			text, raw := strings.ReplaceAll(full[:end+2], "\r\n.", "\r\n")[2:], full[2:max(2, end+2)]
			rest = full[end+5:]
			if reply, ok = next(); !ok {
				return nil, fmt.Errorf("no reply to the text %q", raw)
			}
			if err := judge(reply, raw, text); err != nil {
				return nil, err
			}
			if strings.HasPrefix(reply, "250") {
				mails = append(mails, text)
			}
		case m != nil && !strings.HasPrefix(reply, "501"):
			if cutChunk(m[1], rest) {
				if strings.HasPrefix(reply, "250") {
					return nil, fmt.Errorf("cut chunk answered with %q", reply)
				}
				rest = ""
				break
			}
			size, err := strconv.Atoi(m[1])
			if err != nil {
				return nil, err
			}
			chunks += rest[:size]
			rest = rest[size:]
			switch {
			case strings.HasPrefix(reply, "503"):
				chunks = ""
			case reply == "250 2.0.0 continue" && m[2] == "":
			default:
				if err := judge(reply, chunks, chunks); err != nil {
					return nil, err
				}
				if strings.HasPrefix(reply, "250") {
					mails = append(mails, chunks)
				}
				chunks = ""
			}
		}
		switch strings.ToUpper(line[:min(4, len(line))]) {
		case "RSET", "EHLO", "HELO":
			chunks = ""
		}
		if ended(reply, replies) {
			return mails, nil
		}
	}
	if len(replies) != 0 && !ended("", replies) {
		return nil, fmt.Errorf("replies to nothing: %q", replies)
	}
	return mails, nil
}

// cutChunk tells whether a chunk of that size is more than what the client has sent.
func cutChunk(size, rest string) bool {
	n, err := strconv.ParseInt(size, 10, 64)
	return err != nil || n > int64(len(rest))
}

// judge checks the reply to a whole text.
func judge(reply, raw, text string) error {
	lines := strings.ReplaceAll(raw, "\r\n", "")
	header, _, _ := strings.Cut("\r\n"+text, "\r\n\r\n")
	loops := len(regexp.MustCompile(`(?i)\r\nreceived[ \t]*:`).FindAllString(header, -1))
	bad := strings.ContainsAny(lines, "\r\n\x00") || len(text) > fuzzMaxSize || loops > fuzzReceived
	if accepted := strings.HasPrefix(reply, "250 2.0.0 accepted as "); accepted == bad {
		return fmt.Errorf("text %q answered with %q", raw, reply)
	}
	return nil
}

// ended tells whether the server has ended the dialogue, by reply or by the one that follows it.
func ended(reply string, following []string) bool {
	for _, r := range append([]string{reply}, following[:min(1, len(following))]...) {
		if strings.HasPrefix(r, "421 4.7.0") || strings.Contains(r, "Too many errors") || strings.Contains(r, "Too long line") ||
			strings.HasPrefix(reply, "221") || strings.Contains(reply, "closing") {
			return true
		}
	}
	return false
}

// splitReplies returns each reply as its last line.
func splitReplies(s string) []string {
	var list []string
	for line := range strings.SplitSeq(s, "\r\n") {
		if len(line) > 3 && line[3] == ' ' {
			list = append(list, line)
		}
	}
	return list
}

// scriptConn is a client that has sent all of its input, in packets of a given size, and then hangs up.
type scriptConn struct {
	in     *bytes.Reader
	packet int // 0: as much as is read
	out    bytes.Buffer
	once   sync.Once
	closed chan struct{}
}

func (c *scriptConn) Read(p []byte) (int, error) {
	if c.packet > 0 {
		p = p[:min(len(p), c.packet)]
	}
	return c.in.Read(p)
}
func (c *scriptConn) Write(p []byte) (int, error) { return c.out.Write(p) }
func (c *scriptConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}
func (*scriptConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*scriptConn) RemoteAddr() net.Addr             { return &net.UnixAddr{Name: "script"} }
func (*scriptConn) SetDeadline(time.Time) error      { return nil }
func (*scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (*scriptConn) SetWriteDeadline(time.Time) error { return nil }

type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	nc, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return nc, nil
}
func (l pipeListener) Close() error {
	close(l)
	return nil
}
func (pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

var _ io.ReadWriter = (*scriptConn)(nil)
