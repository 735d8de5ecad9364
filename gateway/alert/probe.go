package alert

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	certificateNotice = 21 * 24 * time.Hour
	leastMails        = 10
)

// CertificateInfo is a certificate by one of its names.
type CertificateInfo struct {
	Name     string
	NotAfter time.Time
}

// QueueFacts are the deliveries that need an admin. Oldest is when the oldest pending one was accepted
// (zero: none), by the same clock as Now.
type QueueFacts struct {
	Dead, Held  int64
	Oldest, Now time.Time
}

// Disk alerts when the file system of path has less than least bytes free to us.
func Disk(path string, least int64) Probe {
	return func(context.Context) ([]Alert, error) {
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err != nil {
			return nil, fmt.Errorf("free space of %s: %w", path, err)
		}
		free := int64(fs.Bavail) * fs.Bsize
		if free >= least {
			return nil, nil
		}
		return []Alert{{DiskSpace, path, fmt.Sprintf("%s has %d MiB free, less than %d MiB. Make room or enlarge the file system.",
			path, free>>20, least>>20)}}, nil
	}
}

// Certificates alerts about what expires within 21 days.
func Certificates(list func() []CertificateInfo, now func() time.Time) Probe {
	return func(context.Context) ([]Alert, error) {
		var alerts []Alert
		for _, c := range list() {
			left := c.NotAfter.Sub(now())
			if left > certificateNotice {
				continue
			}
			says := "expires"
			if left <= 0 {
				says = "expired"
			}
			alerts = append(alerts, Alert{Certificate, c.Name, fmt.Sprintf("The certificate of %s %s at %s. Renew it; its files are read again without a restart.",
				c.Name, says, c.NotAfter.UTC().Format(time.RFC3339))})
		}
		return alerts, nil
	}
}

// Queue alerts about dead and held deliveries, and about one that waits longer than maxAge (0: 1 h).
func Queue(facts func(ctx context.Context) (QueueFacts, error), maxAge time.Duration) Probe {
	if maxAge <= 0 {
		maxAge = time.Hour
	}
	return func(ctx context.Context) ([]Alert, error) {
		f, err := facts(ctx)
		if err != nil {
			return nil, fmt.Errorf("facts of the queue: %w", err)
		}
		var alerts []Alert
		if f.Dead > 0 {
			alerts = append(alerts, Alert{Dead, "", fmt.Sprintf("Dead deliveries: %d. See `sealpost queue list`, then retry or drop each.", f.Dead)})
		}
		if f.Held > 0 {
			alerts = append(alerts, Alert{Held, "", fmt.Sprintf("Held deliveries: %d. See `sealpost queue list`, then release or drop each.", f.Held)})
		}
		if age := f.Now.Sub(f.Oldest); !f.Oldest.IsZero() && age > maxAge {
			alerts = append(alerts, Alert{QueueAge, "", fmt.Sprintf("The oldest delivery waits since %s. See `sealpost queue list` for the next hop's replies.",
				f.Oldest.UTC().Format(time.RFC3339))})
		}
		return alerts, nil
	}
}

// Scanner alerts when ping fails. The cause is left to the scanner's own log.
func Scanner(ping func(ctx context.Context) error) Probe {
	return func(ctx context.Context) ([]Alert, error) {
		if ping(ctx) == nil {
			return nil, nil
		}
		return []Alert{{ScannerDown, "", "The virus scanner does not answer. See that clamd runs and listens at the configured address."}}, nil
	}
}

// TempErrors alerts when more than half of at least 10 mails were temperror. It judges whenever 10 have come
// since it judged last, and until then stays with what it found: a gateway with little mail is watched too.
// The counts only ever grow; the first round counts from the start of the process.
func TempErrors(counts func() (mails, temperrors int64)) Probe {
	var lastMails, lastErrors int64
	var found []Alert
	return func(context.Context) ([]Alert, error) {
		mails, errs := counts()
		m, e := mails-lastMails, errs-lastErrors
		if m < leastMails {
			return found, nil
		}
		lastMails, lastErrors, found = mails, errs, nil
		if 2*e > m {
			found = []Alert{{Authentication, "", fmt.Sprintf("Sender authentication failed for want of DNS for %d of %d mails. See that the resolver answers.", e, m)}}
		}
		return found, nil
	}
}
