-- Adds entries to a stream that is to become a room's log.
--
-- KEYS 1 stream
-- ARGV 1 how long it lives without another call, ms; then stream id, entry, ...

for i = 2, #ARGV, 2 do redis.call('XADD', KEYS[1], ARGV[i], 'e', ARGV[i + 1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
