package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"golang.org/x/sync/errgroup"

	"sealpost/sfclient/sftest"
)

// postfix is a Postfix of a test's own: its configuration, queue, log and mailboxes are all below dir. No
// other Postfix of the machine is touched.
type postfix struct {
	dir  string
	smtp string
}

// postfixMain is what every instance has in main.cf. %[1]s is its directory, %[2]s its name.
const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = %[2]s.test
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
smtp_tls_security_level = none
smtputf8_enable = yes
default_transport = error:5.7.1 this test sends nothing anywhere else
`

// postfixMaster is master.cf; %s is where it listens.
const postfixMaster = `%s inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// mailTool finds a program of Debian's postfix package, wherever PATH leads.
func mailTool(t testing.TB, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not here; on Debian, as root: apt-get install --no-install-recommends postfix", name)
	return ""
}

// startPostfix starts an instance and stops it when the test ends. settings are further lines of main.cf.
func startPostfix(t testing.TB, name, settings string) *postfix {
	t.Helper()
	program := mailTool(t, "postfix")
	if os.Geteuid() != 0 {
		t.Fatal("Postfix starts as root only")
	}
	// Not t.TempDir, which only root may enter.
	dir, err := os.MkdirTemp("", "sealpost-postfix-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &postfix{dir: dir, smtp: freeAddress(t)}
	p.write(t, fmt.Sprintf(postfixMain, dir, name)+settings, fmt.Sprintf(postfixMaster, p.smtp))
	if out, err := exec.Command(program, "-c", dir, "start").CombinedOutput(); err != nil {
		t.Fatalf("start Postfix: %v\n%s\n%s", err, out, p.log())
	}
	t.Cleanup(func() { // it waits five seconds at most, then kills
		if out, err := exec.Command(program, "-c", dir, "stop").CombinedOutput(); err != nil {
			t.Errorf("stop Postfix: %v\n%s\n%s", err, out, p.log())
		}
	})
	if !eventually(p.listens) {
		t.Fatalf("Postfix does not listen:\n%s", p.log())
	}
	return p
}

func (p *postfix) write(t testing.TB, main, master string) {
	t.Helper()
	owner, nobody := accountOf(t, "postfix"), accountOf(t, "nobody")
	for name, uid := range map[string]int{".": 0, "queue": 0, "data": owner, "mail": nobody} {
		path := filepath.Join(p.dir, name)
		err := os.MkdirAll(path, 0o755)
		if err = errors.Join(err, os.Chmod(path, 0o755), os.Chown(path, uid, -1)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"main.cf": main, "master.cf": master} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func accountOf(t testing.TB, name string) int {
	t.Helper()
	account, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func (p *postfix) listens() bool {
	c, err := net.Dial("tcp", p.smtp)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func (p *postfix) log() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "mail.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// queued counts the mails that it still has.
func (p *postfix) queued() int {
	n := 0
	for _, queue := range []string{"maildrop", "incoming", "active", "deferred", "hold", "corrupt"} {
		n += countFiles(filepath.Join(p.dir, "queue", queue))
	}
	return n
}

// delivered counts the mails in its mailbox.
func (p *postfix) delivered() int { return countFiles(filepath.Join(p.dir, "mail", "box", "new")) }

// countFiles counts files below dir, which come and go meanwhile.
func countFiles(dir string) int {
	n := 0
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			n++
		}
		return nil
	})
	return n
}

// mailbox returns the mails of its mailbox by Message-ID. A second mail of one ID fails the test.
func (p *postfix) mailbox(t *testing.T) map[string]sftest.Mail {
	t.Helper()
	mails := map[string]sftest.Mail{}
	for name, raw := range filesIn(t, filepath.Join(p.dir, "mail", "box", "new")) {
		parsed, err := mail.ReadMessage(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		id := parsed.Header.Get("Message-ID")
		if id == "" || parsed.Header.Get("X-Original-To") != forwardTo {
			t.Errorf("a mail with Message-ID %q came for %q", id, parsed.Header.Get("X-Original-To"))
		}
		if _, twice := mails[id]; twice {
			t.Errorf("mail %s arrived twice", id)
		}
		mails[id] = sftest.Mail{Raw: raw, Size: int64(len(raw))}
	}
	return mails
}

// handed is a mail that this test itself hands to Postfix.
type handed struct {
	from, id  string
	raw       []byte
	files     map[string][]byte
	utf8      bool
	unchanged []string // lines that must arrive as they are
}

func handedMails() []handed {
	large, empty := randomBytes(3<<20), []byte{}
	small := randomBytes(1000)
	return []handed{
		{from: "jane@customer.example", id: "large@customer.example",
			raw:   letter("large@customer.example", "Three files", "See the files.", "report.pdf", large, "empty.txt", empty, "note.bin", small),
			files: map[string][]byte{"report.pdf": large, "empty.txt": empty, "note.bin": small}},
		{from: "jane@customer.example", id: "dots@customer.example",
			raw:   letter("dots@customer.example", "Dots", ".\r\n..\r\n.dot", "dots.bin", small),
			files: map[string][]byte{"dots.bin": small}, unchanged: []string{".", "..", ".dot"}},
		{from: "jürgen@kunde.example", id: "utf8@kunde.example", utf8: true,
			raw:   letter("utf8@kunde.example", "Größe und Preis – 報告", "Grüße aus Köln: ½ €", "Größe 報告.bin", small),
			files: map[string][]byte{"Größe 報告.bin": small},
			unchanged: []string{"Subject: Größe und Preis – 報告", "Grüße aus Köln: ½ €",
				"From: Jürgen <jürgen@kunde.example>"}},
	}
}

// letter makes a mail with a text in 8 bits and files, which are pairs of string and []byte.
func letter(id, subject, text string, files ...any) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: Jürgen <jürgen@kunde.example>\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: <%s>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: multipart/mixed; boundary=b1\r\n\r\n--b1\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Content-Transfer-Encoding: 8bit\r\n\r\n%s\r\n", testRoute, subject, id, text)
	for i := 0; i < len(files); i += 2 {
		fmt.Fprintf(&b, "--b1\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"%s\"\r\n"+
			"Content-Transfer-Encoding: base64\r\n\r\n", files[i])
		writeBase64(&b, files[i+1].([]byte))
		b.WriteString("\r\n")
	}
	b.WriteString("--b1--\r\n")
	return b.Bytes()
}

func randomBytes(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.Read(data) // never fails
	return data
}

func (h handed) send(address string) error {
	client, err := smtp.Dial(address)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Mail(h.from, &smtp.MailOptions{Body: smtp.Body8BitMIME, UTF8: h.utf8}); err != nil {
		return err
	}
	if err := client.Rcpt(testRoute, nil); err != nil {
		return err
	}
	w, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, bytes.NewReader(h.raw)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return client.Quit()
}

// runSMTPSource sends n mails over several sessions at once.
func runSMTPSource(t *testing.T, address string, n int, args ...string) {
	t.Helper()
	args = append([]string{"-s", "8", "-m", strconv.Itoa(n), "-f", "bulk@customer.example", "-t", testRoute}, args...)
	if out, err := exec.Command(mailTool(t, "smtp-source"), append(args, address)...).CombinedOutput(); err != nil {
		t.Fatalf("smtp-source: %v\n%s", err, out)
	}
}

// openAll opens links, several at once, and says which of them do not open to files.
func (n *node) openAll(t *testing.T, links []string, files map[string][]byte) error {
	dir := t.TempDir()
	group, ctx := errgroup.WithContext(context.Background())
	group.SetLimit(4)
	for i, link := range links {
		group.Go(func() error {
			out := filepath.Join(dir, strconv.Itoa(i))
			if text, err := n.command(ctx, "open", link, "--out", out, "--agent", testAgent); err != nil {
				return fmt.Errorf("open link %d: %w\n%s", i, err, text)
			}
			for name, want := range files {
				if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Equal(got, want) {
					return fmt.Errorf("link %d: %s is not what was sent: %d bytes, %w", i, name, len(got), err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// TestPostfixInFrontAndBehind takes mails through a real Postfix, Sealpost and a second Postfix into a
// mailbox: each arrives once, and each link opens to what was sent.
func TestPostfixInFrontAndBehind(t *testing.T) {
	const bulk, plain = 50, 20
	_, domain, _ := strings.Cut(forwardTo, "@")
	behind := startPostfix(t, "behind", fmt.Sprintf("virtual_mailbox_domains = %s\nvirtual_mailbox_base = $data_directory/../mail\n"+
		"virtual_mailbox_maps = inline:{ { %s = box/ } }\nvirtual_uid_maps = static:%d\nvirtual_gid_maps = static:%[3]d\n",
		domain, forwardTo, accountOf(t, "nobody")))
	n := install(t, filepath.Join(t.TempDir(), "sealpost"), behind.smtp)
	n.start(t, "sealpost")
	front := startPostfix(t, "front", "relay_domains = example.com\nrelay_transport = smtp:["+strings.Replace(n.smtp, ":", "]:", 1)+
		"\nalways_add_missing_headers = yes\n") // a Message-ID for each mail of the bulk

	attachment := randomBytes(30_000)
	file := filepath.Join(t.TempDir(), "bulk.eml")
	raw := bytes.ReplaceAll(letter("", "Bulk", "One of many.", "bulk.bin", attachment), []byte("Message-ID: <>\r\n"), nil)
	if err := os.WriteFile(file, bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	runSMTPSource(t, front.smtp, bulk, "-F", file)
	runSMTPSource(t, front.smtp, plain, "-l", "2000", "-S", "Plain")
	own := handedMails()
	for _, h := range own {
		if err := h.send(front.smtp); err != nil {
			t.Fatalf("%s: %v", h.id, err)
		}
	}
	all := bulk + plain + len(own)
	if !eventually(func() bool { return behind.delivered() >= all && front.queued() == 0 && behind.queued() == 0 }) {
		t.Fatalf("%d of %d mails arrived; front:\n%s\nnode:\n%s\nbehind:\n%s", behind.delivered(), all, front.log(), n.logs.String(), behind.log())
	}
	if !eventually(func() bool { return waiting(t, n) == 0 }) {
		t.Fatalf("deliveries still wait:\n%s", n.logs.String())
	}
	mails := behind.mailbox(t)
	if len(mails) != all {
		t.Errorf("%d mails arrived, want %d", len(mails), all)
	}
	checkHanded(t, n, mails, own)
	checkBulk(t, n, mails, bulk, plain, attachment)
}

func checkHanded(t *testing.T, n *node, mails map[string]sftest.Mail, own []handed) {
	t.Helper()
	for _, h := range own {
		got, ok := mails["<"+h.id+">"]
		if !ok {
			t.Errorf("%s did not arrive", h.id)
			continue
		}
		delete(mails, "<"+h.id+">")
		lines := strings.Split(string(got.Raw), "\n")
		for _, line := range h.unchanged {
			if !slices.Contains(lines, line) {
				t.Errorf("%s came without the line %q:\n%s", h.id, line, got.Raw)
			}
		}
		files := n.open(t, theLink(t, got))
		if len(files) != len(h.files) {
			t.Errorf("%s: %d files, want %d", h.id, len(files), len(h.files))
		}
		for name, want := range h.files {
			if !bytes.Equal(files[name], want) {
				t.Errorf("%s: %s came as %d bytes, want the %d that were sent", h.id, name, len(files[name]), len(want))
			}
		}
	}
}

// checkBulk looks at the rest: mails with one attachment, and mails with none.
func checkBulk(t *testing.T, n *node, mails map[string]sftest.Mail, bulk, plain int, attachment []byte) {
	t.Helper()
	var links []string
	without := 0
	for _, got := range mails {
		found := sftest.Links(got)
		if len(found) == 0 && bytes.Contains(got.Raw, []byte("\nSubject: Plain\n")) {
			without++
		}
		links = append(links, found...)
	}
	slices.Sort(links)
	if different := len(slices.Compact(slices.Clone(links))); different != bulk || len(links) != bulk || without != plain {
		t.Errorf("%d links, %d different, and %d mails without; want %d and %d", len(links), different, without, bulk, plain)
	}
	if err := n.openAll(t, links, map[string][]byte{"bulk.bin": attachment}); err != nil {
		t.Error(err)
	}
}
