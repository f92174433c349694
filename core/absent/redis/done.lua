-- Ends an entry that was delivered. The last of a message takes its text along.
--
-- KEYS 1 stream, 2 tries, 3 texts, 4 uses
-- ARGV 1 group, 2 id

local e = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if e then release(KEYS[4], KEYS[3], e[2]) end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
