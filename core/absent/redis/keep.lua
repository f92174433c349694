-- Says that a consumer still has entries in hand, and sweeps consumers that have
-- had none for long.
--
-- KEYS 1 stream
-- ARGV 1 group, 2 consumer, 3 how long a consumer without entries is kept, in ms,
--      4.. ids
-- Reply those that are still its own: the others were dropped, or another has
--       taken them over

local mine = {}
for i = 4, #ARGV do
  local p = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if p.err then return mine end
  if p[1] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    mine[#mine + 1] = ARGV[i]
  end
end
local all = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if not all.err then
  for _, c in ipairs(all) do -- name, its name, pending, how many, idle, for how long
    if c[2] ~= ARGV[2] and c[4] == 0 and c[6] > tonumber(ARGV[3]) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], c[2])
    end
  end
end
return mine
