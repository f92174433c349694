package evidence

// RecordOf makes what is stored of a note.
func RecordOf(n *Note) Record { return n.record() }
