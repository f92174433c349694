-- Ends an entry that was delivered.
--
-- KEYS 1 stream, 2 tries
-- ARGV 1 group, 2 id

redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
