-- Reads a batch of entries together with the epoch they belong to.
--
-- KEYS 1 log, 2 meta
-- ARGV 1 XRANGE or XREVRANGE, 2 from and 3 to (stream ids), 4 limit, 5 bytes
-- Reply {epoch, id, entry, id, entry, ...}

local out = { redis.call('HGET', KEYS[2], 'epoch') or '' }
local from, left, room = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
while left > 0 do
  -- A few at a time: what lies beyond the byte bound is not even looked at.
  local n = math.min(left, 16)
  local got = redis.call(ARGV[1], KEYS[1], from, ARGV[3], 'COUNT', n)
  for _, e in ipairs(got) do
    room = room - #e[2][2]
    if room < 0 and #out > 1 then return out end
    out[#out + 1] = e[1]
    out[#out + 1] = e[2][2]
    from = '(' .. e[1]
  end
  if #got < n then break end
  left = left - n
end
return out
