-- Hands entries to a consumer: first those that another has left lying, then
-- new ones.
--
-- KEYS 1 stream, 2 tries
-- ARGV 1 group, 2 consumer, 3 how many, 4 how long an entry must lie, in ms,
--      5 where to look on for those, "" not to look
-- Reply {where to look on, {id, tries, {name, value, ...}}, ...}

local out = { '0-0' }
local function add(list)
  for _, e in ipairs(list) do
    if e and e[2] then
      out[#out + 1] = { e[1], redis.call('HGET', KEYS[2], e[1]) or '0', e[2] }
    elseif e then -- it was dropped from the stream
      redis.call('XACK', KEYS[1], ARGV[1], e[1])
    end
  end
end
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
local found = false
if not groups.err then
  for _, g in ipairs(groups) do found = found or g[2] == ARGV[1] end
end
if not found then redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM') end
if ARGV[5] ~= '' then
  local got = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[4], ARGV[5], 'COUNT', ARGV[3])
  out[1] = got[1]
  add(got[2])
end
local left = tonumber(ARGV[3]) - (#out - 1)
if left > 0 then
  local got = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', KEYS[1], '>')
  if got and got[1] then add(got[1][2]) end
end
return out
