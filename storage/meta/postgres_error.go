package meta

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"sealpost/gateway"
)

// pgCode returns the SQLSTATE that the server gave an error, or "".
func pgCode(err error) string {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return ""
	}
	return e.Code
}

// classifyPostgres goes by the SQLSTATE (PostgreSQL's appendix A), or by what became of the connection.
func classifyPostgres(err error) gateway.Code {
	code := pgCode(err)
	switch {
	case code == "53100": // disk full
		return gateway.CodeStorageFull
	case code == "" && lost(err):
		return gateway.CodeUnavailable
	case len(code) != 5:
		return gateway.CodeInternal
	}
	switch code[:2] {
	case "08", "40", "53", "57", "58": // connection, rollback, resources, operator, system
		return gateway.CodeUnavailable
	}
	switch code {
	case "25006", "25P03", "25P04", "55P03": // read only, idle or long transaction, lock not available
		return gateway.CodeUnavailable
	}
	return gateway.CodeInternal
}

// lost reports whether err says that there is no connection any more, or none was made.
func lost(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, errSilent) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, pgconn.ErrConnClosed)
}

// passes reports whether the same may succeed a moment later: two transactions met, or a connection ended.
func passes(err error) bool {
	switch code := pgCode(err); code {
	case "":
		return lost(err) && !errors.Is(err, errSilent) && !pgconn.Timeout(err) && !errors.Is(err, context.DeadlineExceeded)
	case "40001", "40P01", "25P03", "57P01", "57P02":
		return true
	case "0A000", "26000": // another node has changed the schema under a prepared statement
		return true
	default:
		return strings.HasPrefix(code, "08")
	}
}
