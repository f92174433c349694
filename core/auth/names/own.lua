-- Makes a name a registered user's for good.
--
-- KEYS 1 the name
-- ARGV 1 since when, Unix seconds, as far as the caller knows; 0: for longer than it knows
-- Reply "SECONDS", since when on any node; "SECONDS guest" where a guest had it

local now = redis.call('GET', KEYS[1])
if now and string.sub(now, 1, 2) == 'u ' then
  local since = string.sub(now, 3)
  local n = tonumber(since)
  if n and n >= 0 and n <= tonumber(ARGV[1]) then return since end
end
redis.call('SET', KEYS[1], 'u ' .. ARGV[1])
if now and string.sub(now, 1, 2) == 'g ' then return ARGV[1] .. ' guest' end
return ARGV[1]
