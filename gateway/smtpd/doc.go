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
//   - TLS from the first octet (RFC 8314) and the PROXY header of a load balancer are read by the
//     connection's own goroutine, within a time limit, and have a place among the counted connections.
//   - Time-outs and going down are answered here.
//   - Replies are gathered until the client is waited for (RFC 2920), and they never repeat what the
//     client sent.
//
// Recipients that cannot get one mail, since their routes differ in what becomes of it, are told to come in
// a transaction of their own (452 4.5.3), which every client does by itself.
//
// Whether a client has heard the 250 to its mail is found out and told (Handler.Settle): only octets that
// left it after the 250 went out prove it. A client that pipelines QUIT behind its mail has proved nothing.
//
// A mail that is refused for its text is made known with its Message-ID, its sender and its recipients
// (Options.Refused), so that an admin who is asked for it can find it.
//
// Of DSN (RFC 3461) the parameters are taken, checked and handed on; what is done about them is not ours.
//
// Commands may end with a bare LF, as the field accepts; only message text is strict. A mail that came by
// BDAT need not end with CRLF; it is handed over as it came.
//
// Logs name the code, the reason and the client's IP address, never a correspondent.
package smtpd
