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
// A forwarded message (message/rfc822, global or news, and what a digest has) is walked if the judge keeps it: its header
// and its texts stay, its files leave one by one, and the notice stays outside. It leaves as one file if the judge says so,
// if it is one (nothing else would be left of it), if its name or its first line is that of no mail, if it has a transfer
// encoding, which RFC 2046 section 5.2.1 forbids, if it begins with the "From " line of an mbox, if it lies deeper than the
// limit, or if it is ambiguous: then it alone is sealed and not the mail. For that the mail is scanned again; at the fourth
// time no message in it is walked. The limits of Salesforce below are not about texts in it.
//
// The judge sees what a part declares; of what would stay it sees also what the first 3,072 bytes are, decoded as the most
// forgiving reader does. So a PDF, an archive or a program that is called a text is sealed.
//
// A file that is TNEF by its first bytes, whatever it is called, is sealed as it stands, and behind it each file in it
// (package tnef); a damaged one alone, and so one over 1,000 files in the mail, or 2 GiB of reading it once for each of them.
//
// A multipart/signed whose parts all stay is untouched, its signature included, if that is one by its type, size and
// first bytes. One with a file in it cannot keep its signature: all of it is sealed as evidence, signed-message.eml, its
// parts stay or leave as they would without a signature, and it becomes a multipart/mixed. With Rules.SealSigned, or if no
// text of it would stay, it is sealed as one file; so is every multipart/encrypted, since half of it is worth nothing. If
// that is the whole mail, the mail is sealed whole.
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
// # Inside a text
//
// A text/plain or text/html that stays is searched for files, and what is found is cut out of it: blocks of uuencode,
// yEnc, BinHex and OpenPGP (package encoded), and data: URIs of a page. The text around stays byte for byte, but that base64
// is encoded anew. A text with over 100 files is sealed; so is one with any whose bytes cannot be cut as they were read:
// in UTF-16, UTF-32 or another charset without ASCII, in broken base64, in an unknown encoding. The lengths above are
// those of what is left of a text. A block in a page is sealed as it stands, since its characters may be escaped there.
//
// A data: URI stays if it is a PNG, JPEG, GIF, WebP or BMP of up to Rules.InlineImage bytes, by its type and its first bytes.
// Any other leaves decoded, or as it stands if its base64 is broken; a placeholder takes the place of an image/* one, and
// an empty URI that of others. They are searched for in the whole page, in comments and scripts too, in any case of
// letters, behind entities, escapes and line ends. What may be prose stays up to 16 KiB: one that is not base64 and gives no
// valid type, or that stands in text.
//
// A picture part that a page shows, by cid: or its Content-Location, stays on the same terms, whatever its disposition and
// its name are. A larger one, an SVG, or what is no picture, is sealed, and a placeholder takes its place: its header stays
// but for Content-Type, Content-Transfer-Encoding and Content-Disposition. That a picture is well-formed behind its
// first bytes is not checked.
//
// # Personal data
//
// With Rules.Text the bodies that stay, in forwarded messages too, and the fields that say what a mail is about are searched
// by package personal. What is found is counted; or masked, with as many bytes, and the text as it came is sealed; or the text
// is sealed, with all others of the mail, since an alternative says the same, and a line takes its place. A text that cannot
// be masked byte by byte, in UTF-16, ISO-2022 or a charset of several bytes, or in a transfer encoding that is broken or
// unknown, is sealed instead; so is one with over 1,000 places, and one of which an alternative is masked and it is not. Fields
// are masked only; a forwarded message with a find in them is sealed. The text of a report is searched, what a machine wrote
// in it is not.
//
// # The notice
//
// It goes into the first text/plain and the first text/html that stay, outside of reports, signed entities and forwarded
// messages, if both can carry it: their charset is not given or known here, and their encoding is sound. It is written in
// that charset; what that lacks is shown by its code point, in HTML by a reference. A plain text in US-ASCII is relabelled as
// UTF-8 only if the notice needs it. Quoted-printable keeps its bytes around the notice, base64 is encoded anew.
//
// In plain text it stands below, but above a long text (Email-to-Case cuts or bounces) and above a text with a signature,
// behind which readers hide it; an admin may want it on top or below always, but for a long one. In HTML it stands before
// the last </body>; in a long page, and where nothing at the end can be seen (an open comment, style or table, a hidden
// element around), after the first <body>; a page of frames and one that is hidden carry none. A page that will be cut
// carries the notice above its text even if the plain text cannot.
//
// It speaks English or German, or is the admin's own template, which is tried when it is parsed; if it fails with a mail,
// our own text takes its place. The first megabyte of those bodies is searched for what a reader could take for a notice of
// ours: a sentence of it in either language, or a Secure Link. Quotations do not count. The notice then says so.
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
//   - if something is to be sealed: a boundary that is not quoted although RFC 2045 wants it, that begins with a space; a
//     multipart type with a comment or a control character in or before it;
//   - on a part that would stay: contradicting Content-Type, Content-Transfer-Encoding or Content-Disposition
//     fields, one too long to be read, a file in base64 or quoted-printable that is not declared, or a multipart type
//     that is an encoded word or malformed;
//   - Content-* lines anywhere between a line that is no header line and so ended the header for us, and the
//     next empty line; in the mail's own header any field below a line that is none, for it would be hidden from us;
//     fields below an empty line that begins the mail; Content-* fields that a boundary line ends, and no empty line;
//   - Content-* lines in what reads like a header behind a line that begins with an open or closed boundary, in any
//     case of letters or behind more dashes, but is no boundary line; a boundary line over 64 KiB;
//   - in a preamble or an epilogue: an encoded file, the fields of a part, or over 16 KiB of anything; any preamble of a
//     multipart within another that is called an attachment or has a file name.
//
// Inside of a forwarded message each of these is about that message alone, but for the bytes and the long lines.
//
// Harmless, and taken as other readers take it: a missing MIME-Version or last boundary line, boundary lines
// doubled or with white space behind them, one boundary that begins with another, the same field twice, raw
// 8-bit fields, white space lines in a header, comments, folded or empty parameters, junk in base64, a header without an
// end, a misspelt encoding or an unknown charset, the first line of an mbox, an unknown disposition (inline), an invalid
// media type (text, or a file if its first half says so).
package rewrite
