-- Puts entries into the stream and keeps it within its bound.
--
-- KEYS 1 stream, 2 counts
-- ARGV 1 entries the stream may have, 2 how many dropped elsewhere to count,
--      3 how many names and values an entry has, 4.. these, entry by entry
-- Reply how many of the oldest made way: they are lost

local n = tonumber(ARGV[3])
for i = 4, #ARGV, n do redis.call('XADD', KEYS[1], '*', unpack(ARGV, i, i + n - 1)) end
local gone = redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[1])
if gone > 0 then redis.call('HINCRBY', KEYS[2], 'dropped', gone) end
if ARGV[2] ~= '0' then redis.call('HINCRBY', KEYS[2], 'outbox_dropped', ARGV[2]) end
return gone
