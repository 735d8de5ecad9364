package blob_test

import (
	"strings"
	"testing"

	"sealpost/storage/blob"
)

func TestParseS3(t *testing.T) {
	for location, want := range map[string]blob.S3Options{
		"s3://mails":                                                  {Bucket: "mails"},
		"s3://mails/a/b/?region=eu-central-1":                         {Bucket: "mails", Prefix: "a/b", Region: "eu-central-1"},
		"s3://mails?endpoint=http://127.0.0.1:7070/":                  {Bucket: "mails", Endpoint: "http://127.0.0.1:7070", PathStyle: true},
		"s3://mails?endpoint=https://s3.example.com&path_style=false": {Bucket: "mails", Endpoint: "https://s3.example.com"},
		"s3://mails?sse=AES256&ca=/etc/ca.pem":                        {Bucket: "mails", SSE: "AES256", CA: "/etc/ca.pem"},
		"s3://mails?sse=aws:kms&kms_key=alias/mails":                  {Bucket: "mails", SSE: "aws:kms", KMSKey: "alias/mails"},
	} {
		got, err := blob.ParseS3(location)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", location, got, err)
		}
	}
}

func TestParseS3Refuses(t *testing.T) {
	for location, says := range map[string]string{
		"":                                     "s3://",
		"http://mails":                         "s3://",
		"s3://":                                "bucket",
		"s3://Mails":                           "bucket",
		"s3://mails/../x":                      "prefix",
		"s3://mails/a b":                       "prefix",
		"s3://mails#x":                         "#",
		"s3://hush:hush@mails":                 "credentials",
		"s3://mails?secret_key=hush":           "credentials",
		"s3://mails?aws_access_key_id=hush":    "credentials",
		"s3://mails?X-Amz-Security-Token=hush": "credentials",
		"s3://mails?endpoint=http://hush:hush@127.0.0.1": "credentials",
		"s3://mails?endpoint=127.0.0.1:7070":             "endpoint",
		"s3://mails?endpoint=http://127.0.0.1/path":      "no path",
		"s3://mails?regoin=eu-central-1":                 "region",
		"s3://mails?region=":                             "one value",
		"s3://mails?region=a&region=b":                   "one value",
		"s3://mails?path_style=perhaps":                  "true or false",
		"s3://mails?sse=rot13":                           "AES256",
		"s3://mails?kms_key=alias/mails":                 "sse=aws:kms",
		"s3://mails?ca=ca.pem":                           "absolute",
		"s3://mails?%zz":                                 "malformed",
	} {
		_, err := blob.ParseS3(location)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that says %q", location, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("the error repeats a secret: %v", err)
		}
	}
}
