-- Adds the ids of some entries to the set in which mirror.lua looks for them. The
-- step that reaches the end of the log adds "*" with the last of them: the set is
-- complete then, and mirror.lua keeps it so.
--
-- KEYS 1 log, 2 ids
-- ARGV 1 the stream id to begin with, 2 how many, 3 how long the set lives, ms
-- Reply the last stream id, or "" at the end

local got = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
for _, e in ipairs(got) do
  local record = e[2][2]
  if #record > 2 then redis.call('SADD', KEYS[2], string.sub(record, 3, 2 + string.byte(record, 2))) end
end
local last = ''
if #got < tonumber(ARGV[2]) then
  redis.call('SADD', KEYS[2], '*')
else
  last = got[#got][1]
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return last
