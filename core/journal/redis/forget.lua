-- Lists what was erased, by Redis's clock: those of the nodes may be apart, and a
-- node looks at what is newer than what it has seen.
--
-- KEYS 1 list
-- ARGV 1 how long it stays listed, ms; then what was erased

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now, ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
return now
