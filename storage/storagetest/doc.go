// Package storagetest starts the real servers that tests of storage use, PostgreSQL and an S3 server, and a proxy
// that delays, cuts and corrupts what passes. Only tests import it.
package storagetest
