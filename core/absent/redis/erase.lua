-- Takes texts away, and says for a while that they were erased: whoever carries
-- one from a room at this moment does not put it here again.
--
-- KEYS 1 texts, 2 uses, 3 erased
-- ARGV 1 for how long, ms; then "m ID" or "u USER", ...

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[3], now, ARGV[i])
  if string.sub(ARGV[i], 1, 2) == 'm ' then
    local id = string.sub(ARGV[i], 3)
    redis.call('HDEL', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[1])
return redis.call('PEXPIRE', KEYS[3], ARGV[1])
