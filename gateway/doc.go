// Package gateway is the domain of Sealpost: its nouns, their states, its error codes.
//
// It imports the standard library only and knows nothing of SMTP, HTTP, SQL or OpenPGP, so every other
// package may speak in its terms. Behaviour that needs the outside world lives in the packages below
// this directory; where they meet, the consumer declares the interface and cmd joins the two.
package gateway
