package redis

import "time"

// ForgetAfter sets how long consumers without entries are remembered.
func (q *Queue) ForgetAfter(d time.Duration) { q.forget = d }
