package disk

import "bytes"

// expected reports whether the room's state, with what is staged before p, is
// as p demands. A value that cannot be read is not what anybody expects.
func (c *committer) expected(b *buckets, p *pending) bool {
	for i := range p.req.Expect {
		x := &p.req.Expect[i]
		c.key = stateKey(c.key[:0], p.req.Room, x.Key)
		rec := b.state().Get(c.key)
		if (rec == nil) != (x.Value == nil) {
			return false
		}
		if rec == nil {
			continue
		}
		if body, err := unseal(c.key, rec); err != nil || !bytes.Equal(body, x.Value) {
			return false
		}
	}
	return true
}
