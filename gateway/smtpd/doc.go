// Package smtpd is the SMTP front: it speaks with the mail servers that bring us mail, takes nothing
// but mail for our own addresses, spools it, and answers 250 only after the Handler has said that it is
// safe.
//
// The dialogue is emersion/go-smtp's. What that library cannot promise, this package does around it:
//
//   - go-smtp is handed a conn of ours instead of the socket. It gets one command line at a time, so it
//     never holds octets that belong to what comes next.
//   - Message text does not pass through it. What follows DATA ends at CRLF "." CRLF and at nothing else. A
//     bare CR, a bare LF or a NUL anywhere refuses the mail, after it was read to its true end, so that
//     nothing in it is ever taken for a command. Lines may have any length.
//   - BDAT (RFC 3030) is carried out here, and so go-smtp starts no goroutines that outlive a transaction.
//     A chunk that is cut off never passes for a whole one.
//   - STARTTLS is carried out here: the first dialogue ends, and a second one, with no memory of the
//     first, begins on the protected connection. Plaintext that was sent along behind STARTTLS ends the
//     connection. All of the above holds under TLS too.
//   - Time-outs and going down are answered here.
//   - Replies are gathered until the client is waited for (RFC 2920), and they never repeat what the
//     client sent.
//
// Commands may end with a bare LF, as the field accepts; only message text is strict. A mail that came by
// BDAT need not end with CRLF; it is handed over as it came.
//
// Logs name the code, the reason and the client's IP address, never a correspondent.
package smtpd
