package intake

import (
	"slices"
	"time"

	"sealpost/gateway"
	"sealpost/storage/blob"
)

// LeftOver reports whether a sweep at a time removes an object if no row refers to it: it is old enough, of recent days,
// and of no span of time that the database cannot know of.
func LeftOver(object blob.Info, now time.Time, unwatched []gateway.Span) bool {
	return recent(object.Name, now) && now.Sub(object.Modified) > orphanAge &&
		!slices.ContainsFunc(unwatched, func(span gateway.Span) bool { return span.Contains(object.Modified) })
}

// recent reports whether a sweep at a time looks at objects of a day, or of the day that a name begins with.
func recent(day string, now time.Time) bool {
	return day[:8] >= now.AddDate(0, 0, -recentDays).UTC().Format("20060102")
}
