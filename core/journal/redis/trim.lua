-- Drops the entries below a stream id.
--
-- KEYS 1 log, 2 meta
-- ARGV 1 the epoch they belong to, 2 the first id to keep

if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
