package portal

import (
	"net/http"
	"strconv"
	"strings"

	"sealpost/gateway"
)

var errRange = gateway.Errorf(gateway.CodeInvalid, nil, "The requested range lies outside the object.")

// byteRange is length bytes from start.
type byteRange struct{ start, length int64 }

func wholeOf(size int64) byteRange { return byteRange{0, size} }

// requestedRange reads a Range header with one range of bytes (RFC 9110 section 14.1.2). What it does not
// understand, several ranges, and If-Range (we give no validators) mean the whole object, as section 14.2
// allows; part tells whether a range was asked for. errRange when nothing of the range is there.
func requestedRange(r *http.Request, size int64) (span byteRange, part bool, err error) {
	header := r.Header.Get("Range")
	unit, spec, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") || r.Header.Get("If-Range") != "" {
		return wholeOf(size), false, nil
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return wholeOf(size), false, nil
	}
	if first == "" {
		return suffixRange(last, size)
	}
	start, ok := position(first)
	end := size - 1
	if ok && last != "" {
		end, ok = position(last)
	}
	switch {
	case !ok, last != "" && end < start:
		return wholeOf(size), false, nil
	case start >= size:
		return byteRange{}, false, errRange
	}
	return byteRange{start, min(end, size-1) - start + 1}, true, nil
}

// suffixRange is the last n bytes, "bytes=-n".
func suffixRange(last string, size int64) (byteRange, bool, error) {
	n, ok := position(last)
	switch {
	case !ok:
		return wholeOf(size), false, nil
	case n == 0 || size == 0:
		return byteRange{}, false, errRange
	}
	n = min(n, size)
	return byteRange{size - n, n}, true, nil
}

// position reads 1*DIGIT; a comma of a second range fails it.
func position(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil
}
