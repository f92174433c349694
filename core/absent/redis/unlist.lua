-- Takes a room off the list of outboxes if it was not listed again meanwhile.
--
-- KEYS 1 list
-- ARGV 1 room, 2 when it was listed

if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
