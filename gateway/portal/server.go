package portal

import (
	"io"
	"log"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// NewServer returns a server for the portal's handler with the time-outs that it is made for. A download
// may take any time as long as it moves. logger gets net/http's own complaints, without client addresses.
func NewServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(scrubber{logger}, "", 0),
	}
}

// clientAddress is how net/http names the peer: "from 192.0.2.1:4711:", "serving [2001:db8::1]:4711:".
var clientAddress = regexp.MustCompile(`\b(from|serving) \S+`)

type scrubber struct{ logger *slog.Logger }

var _ io.Writer = scrubber{}

func (s scrubber) Write(line []byte) (int, error) {
	s.logger.Warn("portal server", slog.String("error",
		clientAddress.ReplaceAllString(strings.TrimSpace(string(line)), "$1 client:")))
	return len(line), nil
}
