-- Reads a batch of entries to be carried to another deployment.
--
-- KEYS 1 log, 2 meta
-- ARGV 1 the epoch they are expected to be of, 2 from and 3 to (stream ids), 4 limit, 5 bytes
-- Reply {epoch, top, stream id, entry, origin, stamp, stream id, ...}; without
--       entries if the epoch is another

local meta = redis.call('HMGET', KEYS[2], 'epoch', 'top')
local out = { meta[1] or '', meta[2] or '0' }
if out[1] ~= ARGV[1] then return out end
local from, left, room = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
while left > 0 do
  -- A few at a time: what lies beyond the byte bound is not even looked at.
  local n = math.min(left, 16)
  local got = redis.call('XRANGE', KEYS[1], from, ARGV[3], 'COUNT', n)
  for _, e in ipairs(got) do
    local fields = { e = '', o = '', v = '' }
    for i = 1, #e[2], 2 do fields[e[2][i]] = e[2][i + 1] end
    room = room - #fields.e
    if room < 0 and #out > 2 then return out end
    local at = #out
    out[at + 1], out[at + 2], out[at + 3], out[at + 4] = e[1], fields.e, fields.o, fields.v
    from = '(' .. e[1]
  end
  if #got < n then break end
  left = left - n
end
return out
