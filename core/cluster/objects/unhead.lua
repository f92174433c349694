-- Removes a head that is still what was read, or that is too large to be read. KEYS: heads. ARGV: name, head, most bytes of a head
if redis.call('HSTRLEN', KEYS[1], ARGV[1]) <= tonumber(ARGV[3]) and redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
