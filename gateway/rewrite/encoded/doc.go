// Package encoded finds files that stand inside the text of a mail, and opens them.
//
// The forms are uuencode with its base64 variant (POSIX uuencode), yEnc, BinHex 4.0 (RFC 1741) and the OpenPGP
// armor of messages (RFC 9580 section 6.2). Find reads a text once and returns the blocks of whole lines that
// carry a file. A uuencoded file is decoded by Open; the other blocks are given as they stand.
//
// What is missed reaches people who must not have it, and what is cut in error is missing from what an agent
// must read. A line that announces a file is therefore taken generously, and believed only for the lines below it.
//
// # All forms
//
//   - A line ends with LF, CRLF or a lone CR. No more than 32 KiB of one are looked at; of a longer one that
//     continues a block of base64, armor or BinHex, only whether all of it fits.
//   - A block may be quoted or indented: what stands before its first line (up to 64 of the characters space, tab,
//     ">" and "|") is taken off each of its lines. Where that is missing, the line does not fit.
//   - A line that announces another file ends a block; blocks do not nest.
//   - A block without its last line ends behind the last line that fits: a full one, or one shorter line directly
//     behind it, as the last line of a file is.
//   - Empty lines belong to a block if it goes on behind them. Up to 16 lines that do not fit do so too, if a full
//     line of 40 characters or a last line that is no word follows (so not "end"); in yEnc any number, since its lines
//     are known by their length alone. What is between may be text, so such a block is given as it stands and not decoded.
//   - The charset must contain ASCII.
//
// # uuencode
//
//   - "begin", a mode of three or four octal digits and a name, in any case of letters, with one line of data. With
//     another mode or none, as Outlook Express and some decoders take it, three full lines of data or one and the
//     word "end" must follow, so that prose that begins with the word "begin" stays.
//   - A line of data has the characters 0x20 to 0x60 only, which leaves out nearly all prose, and as many as its first
//     one says. Up to four more may follow (check characters), or any number of spaces and backquotes. Fewer, since mailers
//     strip spaces, make a shorter line. One with under half of them counts only if more follows.
//   - Behind the line of length zero, only "end" is expected, or full lines.
//   - A space before ">" is taken off, where a line has been space-stuffed (RFC 3676 section 4.4).
//   - Eight full lines of 45 bytes without "begin" are a block without a name, as in the later parts of a split
//     file or under a begin line that was wrapped; two are if "end" follows.
//   - begin-base64 and the -encoded names of GNU sharutils are known. A line whose length is no multiple of four
//     leaves the block undecoded.
//
// # yEnc, BinHex, OpenPGP
//
//   - yEnc: "=ybegin" with any of line=, size= and name=, up to "=yend". Without that, a line of printable ASCII with a space
//     in it counts only if other data follows.
//   - BinHex: the line "(This file must be converted with BinHex", the line that begins with a colon within 16 lines, up
//     to the one that ends with a colon. The name inside of the encoding is not read.
//   - OpenPGP: MESSAGE, its PART X/Y forms, and ARMORED FILE, up to the END line; the lines may be dash-escaped. At least
//     one line of base64 must follow. Signatures, cleartext signed text and keys are text.
package encoded
