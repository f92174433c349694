-- Takes parcels off a room's outbox that have arrived.
--
-- KEYS 1 outbox, 2 who carries, 3 how many were dropped
-- ARGV 1 the carrier, 2 how many of the dropped have been counted, 3.. parcels

for i = 3, #ARGV do redis.call('LREM', KEYS[1], 1, ARGV[i]) end
if ARGV[2] ~= '0' and redis.call('DECRBY', KEYS[3], ARGV[2]) <= 0 then redis.call('DEL', KEYS[3]) end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return redis.call('LLEN', KEYS[1])
