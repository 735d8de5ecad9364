// Package rewrite takes a mail apart and puts it together again without what was sealed.
//
// Scan reads the mail once and returns its structure with byte offsets. NewPlan asks policy for a verdict on
// each leaf and decides what becomes of the mail. Write streams the result. The boundaries are searched in
// the raw bytes, not by a MIME library, since everything that stays must stay byte for byte. Memory depends
// on the number of parts and the size of one header, never on that of a part.
//
// # What leaves and what stays
//
// A sealed part goes with its header, its boundary line and the CRLF before the next one. A multipart of
// which nothing stays goes as a whole. The other boundary lines, preambles, epilogues and headers stay. Where
// the last part of a multipart leaves and its closing line was missing at the end of the mail, that line is
// written, so that the part before keeps its end.
//
// A forwarded message is one file. A multipart/signed whose parts all stay is untouched, its signature
// included, if that is one by its type, size and first bytes. One with a file in it, and every
// multipart/encrypted, is sealed as one file, since half of it is worth nothing; if it is the whole mail, the
// mail is sealed whole.
//
// A file is sealed decoded, as it was before the sender's program encoded it. Where its base64 or
// quoted-printable is broken, the encoding unknown or given twice, two readers might decode different bytes,
// and the encoded body is sealed as it stands.
//
// A text/plain that would pass the 131,072 characters of a TextBody is sealed as message.txt, and the notice
// takes its place. A text/html over 131,072 characters, the notice counted in, would be cut from its end: it stays, and
// a copy of it is sealed as message.html. Both are counted after decoding, for each part by itself.
//
// A malformed Content-Disposition or Content-Type that may say "attachment" or give a name to another reader,
// and gives us neither, makes its part an attachment.
//
// # The notice
//
// It goes into the first text/plain and the first text/html that stay, outside of reports and signed
// entities, if both can carry it: their charset is UTF-8, US-ASCII or not given, and their encoding is sound.
// In plain text it stands below, but above a long text (Email-to-Case cuts or bounces) and above a text with
// a signature, behind which readers hide it. In HTML it stands before the last </body>, in a long page or
// behind an open comment after the first <body>. The HTML form is ASCII; a plain text is relabelled as UTF-8
// only if a file name needs it. Quoted-printable keeps its bytes around the notice, base64 is encoded anew. A page that
// will be cut carries the notice above its text even if the plain text cannot, and in any charset of one byte for each
// character that contains ASCII.
//
// Otherwise it gets a part of its own: in the place of the first sealed part, in the innermost multipart
// that is read part by part; or else the mail is wrapped in a multipart/mixed. A mail that was one file
// becomes a text/plain mail.
//
// # Ambiguity
//
// Where another reader could see a file that we do not, the mail is sealed whole, and a short mail with the
// threading fields takes its place. A field over the limits of Email-to-Case is left out of that. It is so for:
//
//   - bare CR, bare LF or NUL; a header, a line, a depth or a number of parts over the limits; a first line
//     that begins with white space, since it would continue a field that we put above it;
//   - a multipart without a boundary parameter, with two, or with one that can be read in two ways; one whose
//     boundary never occurs, unless there is nothing at all; one with a transfer encoding; two open multiparts
//     with the same boundary, or one line that delimits two;
//   - a boundary that is not quoted although RFC 2045 wants it, if something is to be sealed;
//   - on a part that would stay: contradicting Content-Type, Content-Transfer-Encoding or Content-Disposition
//     fields, or a multipart type that is an encoded word;
//   - Content-* lines anywhere between a line that is no header line and so ended the header for us, and the
//     next empty line; in the mail's own header any field below a line that is none, for it would be hidden from us;
//   - Content-* lines in what reads like a header behind a line that begins with an open or closed boundary
//     but is no boundary line;
//   - in a preamble or an epilogue: an encoded file, the fields of a part, or over 16 KiB of anything.
//
// Harmless, and taken as other readers take it: a missing MIME-Version or last boundary line, boundary lines
// doubled or with white space behind them, one boundary that begins with another, the same field twice, raw
// 8-bit fields, white space lines in a header, an unknown disposition (inline), an invalid media type (text,
// or a file if its first half says so).
package rewrite
