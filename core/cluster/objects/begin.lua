-- Begins to write an object, or finds it there. KEYS: object, ages. ARGV: digest, kind, bytes, 1 to write anew
redis.call('ZADD', KEYS[2], redis.call('TIME')[1], ARGV[1])
if ARGV[4] ~= '1' and redis.call('HGET', KEYS[1], 'done') == ARGV[3] then return 1 end
if ARGV[4] == '1' then redis.call('HDEL', KEYS[1], 'done') end
redis.call('HSET', KEYS[1], 'kind', ARGV[2], 'size', ARGV[3])
return 0
