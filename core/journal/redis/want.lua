-- Lists entries that the next copy of the log is to erase: see copy.lua. One
-- that is not as it was read has been erased meanwhile, and is not listed.
--
-- KEYS 1 log, 2 meta, 3 list
-- ARGV 1 epoch, 2 how long the list lives without another call, ms; then seq,
--      the last bytes of the record as it was read, ...
-- Reply how many were not listed yet, or "epoch"

if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return 'epoch' end
local new = 0
for i = 3, #ARGV, 2 do
  local e = redis.call('XRANGE', KEYS[1], '0-' .. ARGV[i], '0-' .. ARGV[i])[1]
  if e and string.sub(e[2][2], -4) == ARGV[i + 1] then
    new = new + redis.call('ZADD', KEYS[3], ARGV[i], ARGV[i])
  end
end
redis.call('PEXPIRE', KEYS[3], ARGV[2])
return new
