-- Ends one node's lease, and notes that the node took leave. KEYS: table, leases, note. ARGV: node, how long the note is kept in ms
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[3], '1', 'PX', ARGV[2])
return redis.call('ZREM', KEYS[2], ARGV[1])
