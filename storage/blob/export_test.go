package blob

// UseNamedTemporaries makes d do without files that have no name.
func UseNamedTemporaries(d *Dir) { d.anonymous = false }
