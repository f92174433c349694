-- Moves an entry that cannot be delivered to the dead letters. Putting it there
-- comes first: that is what Redis refuses at maxmemory. Its text goes on lying where
-- it is.
--
-- KEYS 1 stream, 2 tries, 3 dead letters, 4 counts, 5 texts, 6 uses
-- ARGV 1 group, 2 id, 3 reason, 4 tries, 5 when, Unix ms, 6 dead letters there
--      may be

local e = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if e then
  local f = e[2]
  for _, v in ipairs({ 'reason', ARGV[3], 'tries', ARGV[4], 'died', ARGV[5] }) do f[#f + 1] = v end
  redis.call('XADD', KEYS[3], '*', unpack(f))
  local over = redis.call('XLEN', KEYS[3]) - tonumber(ARGV[6])
  if over > 0 then
    for _, old in ipairs(redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', over)) do
      release(KEYS[6], KEYS[5], old[2])
    end
    redis.call('XTRIM', KEYS[3], 'MAXLEN', ARGV[6])
    redis.call('HINCRBY', KEYS[4], 'dead_dropped', over)
  end
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
