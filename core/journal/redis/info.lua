-- Describes a room at one moment.
--
-- KEYS 1 log, 2 meta, 3 state
-- ARGV 1 the highest stream id an entry can have
-- Reply {epoch, top, id of the top entry, stream id of the first entry, state key, value, ...}

local meta = redis.call('HMGET', KEYS[2], 'epoch', 'top', 'id')
local first = redis.call('XRANGE', KEYS[1], '0-0', ARGV[1], 'COUNT', 1)[1]
local out = { meta[1] or '', meta[2] or '0', meta[3] or '', first and first[1] or '' }
for _, v in ipairs(redis.call('HGETALL', KEYS[3])) do out[#out + 1] = v end
return out
