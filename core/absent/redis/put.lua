-- Puts entries into the stream, or among the dead letters, and keeps it within its bound. Their texts lie
-- apart, one for a message, so that erasing takes one away: a stream keeps the
-- bytes of an entry until all around it are gone. A message that was erased
-- while it was carried gets none.
--
-- KEYS 1 stream, 2 counts, 3 texts, 4 uses, 5 erased
-- ARGV 1 entries the stream may have, 2 the name of the count of those that make
--      way, 3 how many dropped elsewhere to count, 4 how many names and values
--      an entry has, 5 how many texts follow: id, author, time (Unix ms), text;
--      then entries, of which the fourth name is "id"
-- Reply how many of the oldest made way: they are lost

local kept, at = {}, 6
for _ = 1, tonumber(ARGV[5]) do
  local id, till = ARGV[at], redis.call('ZSCORE', KEYS[5], 'u ' .. ARGV[at + 1])
  if not redis.call('ZSCORE', KEYS[5], 'm ' .. id) and not (till and tonumber(ARGV[at + 2]) <= tonumber(till)) then
    redis.call('HSET', KEYS[3], id, ARGV[at + 3])
    kept[id] = true
  end
  at = at + 4
end
local n = tonumber(ARGV[4])
for i = at, #ARGV, n do
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, i, i + n - 1))
  if kept[ARGV[i + 7]] then redis.call('HINCRBY', KEYS[4], ARGV[i + 7], 1) end
end
local over = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[1])
if over > 0 then
  for _, e in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', over)) do
    release(KEYS[4], KEYS[3], e[2])
  end
  redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[1])
  redis.call('HINCRBY', KEYS[2], ARGV[2], over)
end
if ARGV[3] ~= '0' then redis.call('HINCRBY', KEYS[2], 'outbox_dropped', ARGV[3]) end
return math.max(over, 0)
