package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"sealpost/sfclient/sftest"
)

// markers are strings that must be found nowhere, by where in the mail they are.
func markers() map[string]string {
	return map[string]string{
		"attachment": "MARKER-attachment-7f3a", "name": "MARKER-name-91c4", "subject": "MARKER-subject-5e0d",
		"sender": "marker-sender-b2a8@customer.example", "body": "MARKER-body-c6f1", "message-id": "MARKER-id-d9e2@customer.example",
	}
}

// markedMail holds each marker; attachment and text are of about the given sizes.
func markedMail(m map[string]string, attachment, text int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <%s>\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: <%s>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: multipart/mixed; boundary=b1\r\n\r\n--b1\r\nContent-Type: text/plain\r\n\r\n", m["sender"], testRoute, m["subject"], m["message-id"])
	b.WriteString(strings.Repeat(m["body"]+"\r\n", 1+text/len(m["body"])))
	fmt.Fprintf(&b, "--b1\r\nContent-Disposition: attachment; filename=%q\r\nContent-Transfer-Encoding: base64\r\n\r\n", m["name"])
	writeBase64(&b, bytes.Repeat([]byte(m["attachment"]+"\n"), 1+attachment/len(m["attachment"])))
	b.WriteString("\r\n--b1--\r\n")
	return b.Bytes()
}

// forms are the ways in which a marker could be written.
func forms(marker string) [][]byte {
	all := [][]byte{[]byte(marker), []byte(hex.EncodeToString([]byte(marker))), []byte(strings.ToUpper(hex.EncodeToString([]byte(marker))))}
	for shift := range 3 { // base64 has three phases; the first and last digits depend on the neighbours
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), marker...))
		all = append(all, []byte(encoded[4:len(encoded)-4]))
	}
	return all
}

// leaks lists the markers that data holds in any form.
func leaks(data []byte) []string {
	var found []string
	data = bytes.ToLower(data)
	for where, marker := range markers() {
		for _, form := range forms(marker) {
			if bytes.Contains(data, bytes.ToLower(form)) {
				found = append(found, where)
				break
			}
		}
	}
	return found
}

// scanFiles looks into every regular file below the directories, and into what the process has open.
func scanFiles(t *testing.T, n *node, when string, dirs ...string) (scanned int) {
	t.Helper()
	look := func(path, name string) {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return
		}
		data, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Errorf("%s: %v", when, err)
		}
		scanned++
		if found := leaks(data); len(found) > 0 {
			t.Errorf("%s: %s holds the markers of %v", when, name, found)
		}
		if found := leaks([]byte(name)); len(found) > 0 {
			t.Errorf("%s: the name %s holds the markers of %v", when, name, found)
		}
	}
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err == nil {
				look(path, path)
			}
			return nil // files come and go while the gateway works
		})
	}
	open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.cmd.Process.Pid))
	for _, fd := range open {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "/proc") {
			look(fd, target)
		}
	}
	return scanned
}

// TestPromiseNoPlaintextAtRest takes marked mails through every stage and looks, at each and all the
// while, at all that the gateway could have written to.
func TestPromiseNoPlaintextAtRest(t *testing.T) {
	m := markers()
	org := startOrg(t, sftest.Options{FailFirst: 3, FailCode: 550})
	temp := t.TempDir()
	n := install(t, filepath.Join(t.TempDir(), "sealpost"), org.Addr())
	n.start(t, "sealpost", "TMPDIR="+temp)
	stop := watch(t, n, temp, n.dir)

	small, large, long := markedMail(m, 1000, 100), markedMail(m, 4<<20, 100), markedMail(m, 1000, 100<<10)
	sendInHalves(t, n, m["sender"], large, func() {
		if scanned := scanFiles(t, n, "while a large mail arrives", temp, n.dir); scanned == 0 {
			t.Error("nothing was scanned")
		}
		if !spooled(n) {
			t.Error("the large mail is in no spool file; the test looks at the wrong moment")
		}
	})
	for _, mail := range [][]byte{small, long} {
		if err := n.send(m["sender"], bytes.NewReader(mail)); err != nil {
			t.Fatal(err)
		}
	}
	if !eventually(func() bool { return lines(n.must(t, "queue", "list", "--state", "dead", "--config", n.config())) == 4 }) {
		t.Fatalf("the mails did not become dead:\n%s", n.logs.String())
	}
	scanFiles(t, n, "while mails wait", temp, n.dir)
	for _, id := range mailIDs(n.must(t, "queue", "list", "--state", "dead", "--config", n.config())) {
		n.must(t, "queue", "retry", id, "--config", n.config())
	}
	for _, mail := range waitMails(t, org, 3) {
		files := n.open(t, theLink(t, mail))
		if !bytes.Contains(files[m["name"]], []byte(m["attachment"])) {
			t.Errorf("the link does not open to the attachment: %d files", len(files))
		}
	}
	stop()
	n.stop(t)
	scanFiles(t, n, "after the run", temp, n.dir)
	if found := leaks([]byte(n.logs.String())); len(found) > 0 {
		t.Errorf("the log holds the markers of %v", found)
	}
	if !strings.Contains(n.logs.String(), "mail accepted") {
		t.Error("there is no log; the test looks at the wrong place")
	}
}

// watch scans again and again until it is stopped.
func watch(t *testing.T, n *node, dirs ...string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				scanFiles(t, n, "during the run", dirs...)
				time.Sleep(20 * time.Millisecond)
			}
		}
	}()
	return func() { close(done); <-ended }
}

// sendInHalves calls between when the first half has been sent.
func sendInHalves(t *testing.T, n *node, from string, mail []byte, between func()) {
	t.Helper()
	client, err := smtp.Dial(n.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Mail(from, nil); err != nil {
		t.Fatal(err)
	}
	if err := client.Rcpt(testRoute, nil); err != nil {
		t.Fatal(err)
	}
	w, err := client.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(mail[:len(mail)/2]); err != nil {
		t.Fatal(err)
	}
	eventually(func() bool { return spooled(n) })
	between()
	if _, err := io.Copy(w, bytes.NewReader(mail[len(mail)/2:])); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// spooled reports whether the process has an anonymous spool file open that holds something.
func spooled(n *node) bool {
	open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.cmd.Process.Pid))
	for _, fd := range open {
		target, err := os.Readlink(fd)
		info, statErr := os.Stat(fd)
		if err == nil && statErr == nil && strings.HasPrefix(target, filepath.Join(n.dir, "data", "spool")) && info.Size() > 0 {
			return true
		}
	}
	return false
}

// mailIDs are the first column of `queue list`.
func mailIDs(table string) []string {
	var ids []string
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] != "MAIL" {
			ids = append(ids, fields[0])
		}
	}
	return ids
}
