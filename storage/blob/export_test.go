package blob

// UseNamedTemporaries makes d do without files that have no name.
func UseNamedTemporaries(d *Dir) { d.anonymous = false }

// MaxUnsynced is how many files wait for Commit at most.
const MaxUnsynced = maxUnsynced
