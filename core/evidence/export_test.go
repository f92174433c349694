package evidence

// RecordsOf makes what is stored of notes.
var RecordsOf = records
