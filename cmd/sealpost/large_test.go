package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"sealpost/sfclient/sftest"
	"sealpost/storage/storagetest"
)

// cluster is what the nodes of one large installation share.
type cluster struct {
	database *storagetest.Postgres
	bucket   *storagetest.S3
	name     string // of the database
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{database: storagetest.StartPostgres(t), bucket: storagetest.StartS3(t)}
	c.name = c.database.NewDatabase(t)
	c.bucket.Setenv(t)
	return c
}

// node installs a node whose mails go to hop; of several, each but the first takes keyring and key from the first.
func (c *cluster) node(t *testing.T, hop, settings string) *node {
	t.Helper()
	n := installBare(t, filepath.Join(t.TempDir(), "gw"), hop)
	n.appendConfig(t, "authentication: {enabled: false}\nnotices: {enabled: false}\nalerts: {mail: false}\n"+
		"database: \""+c.database.URL(c.name)+"\"\nblobs: \""+c.bucket.Location(c.bucket.Endpoint)+"\"\n"+settings)
	n.must(t, "agent", "add", testAgent, "--config", n.config())
	return n
}

// TestLargeSize: one mail, all the way, on PostgreSQL and S3, with downloads by way of the gateway and from the bucket.
func TestLargeSize(t *testing.T) {
	c, org := startCluster(t), startOrg(t, sftest.Options{})
	n := c.node(t, org.Addr(), "")
	n.start(t, "sealpost")
	content := randomBytes(6 << 20)
	if err := n.send("jane@customer.example", bytes.NewReader(mailWith("large", "See the file.", content))); err != nil {
		t.Fatal(err)
	}
	link := theLink(t, waitMails(t, org, 1)[0])
	if files := n.open(t, link); !bytes.Equal(files["file.bin"], content) {
		t.Errorf("%d files, not the one that was sent", len(files))
	}
	if out := n.must(t, "trace", "<6c61726765@customer.example>", "--config", n.config()); !strings.Contains(out, "answered 250") {
		t.Errorf("the trace says:\n%s", out)
	}
	n.stop(t)

	replaceInConfig(t, n, "portal:\n", "portal:\n  direct_downloads: true\n")
	n.start(t, "sealpost")
	if files := n.open(t, link); !bytes.Equal(files["file.bin"], content) {
		t.Errorf("%d files from the bucket, not the one that was sent", len(files))
	}
	n.stop(t)
	if strings.Contains(n.logs.String(), "X-Amz-Signature") {
		t.Error("a signed URL is in the log")
	}
}

// TestBrowserFetchesFromTheBucket: with direct downloads a real browser gets the ciphertext from the bucket, whose rule
// for other origins `check` asks for, and sends it neither cookie nor grant nor keycode.
func TestBrowserFetchesFromTheBucket(t *testing.T) {
	c, org := startCluster(t), startOrg(t, sftest.Options{})
	n := c.node(t, org.Addr(), "")
	replaceInConfig(t, n, "portal:\n", "portal:\n  direct_downloads: true\n")
	if out, err := n.command(t.Context(), "check", "--config", n.config()); err == nil || !strings.Contains(out, "error    direct downloads: ") {
		t.Errorf("check does not miss the bucket's rule: %v\n%s", err, out)
	}
	_, err := c.bucket.Client().PutBucketCors(t.Context(), &s3.PutBucketCorsInput{Bucket: &c.bucket.Bucket,
		CORSConfiguration: &types.CORSConfiguration{CORSRules: []types.CORSRule{{
			AllowedOrigins: []string{"http://" + n.portal}, AllowedMethods: []string{"GET"}, AllowedHeaders: []string{"range"},
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := n.command(t.Context(), "check", "--config", n.config()); err != nil || !strings.Contains(out, "may fetch from the bucket") {
		t.Errorf("check: %v\n%s", err, out)
	}
	n.start(t, "sealpost")
	content := randomBytes(70 << 10)
	if err := n.send("jane@customer.example", bytes.NewReader(mailWith("direct", "See the file.", content))); err != nil {
		t.Fatal(err)
	}
	link := theLink(t, waitMails(t, org, 1)[0])
	tab := openChromium(t)
	tab.openLink(t, link)
	if got := tab.download(t, "file.bin"); !bytes.Equal(got, content) {
		t.Errorf("%d bytes were saved, not the file", len(got))
	}
	tab.mu.Lock()
	defer tab.mu.Unlock()
	sent := tab.requests.String()
	if !strings.Contains(sent, "GET "+c.bucket.Endpoint+"/") {
		t.Errorf("nothing came from the bucket:\n%s", sent)
	}
	if _, keycode, _ := strings.Cut(link, "#"); strings.Contains(sent, keycode) {
		t.Error("the keycode went out")
	}
	_, after, _ := strings.Cut(sent, "GET "+c.bucket.Endpoint+"/")
	if strings.Contains(after, "Sealpost-Grant") || strings.Contains(after, "Cookie:") {
		t.Errorf("the bucket got more than the URL:\n%s", after)
	}
}
