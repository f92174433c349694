-- Ends an entry that was delivered. The last of a message takes its text along.
--
-- KEYS 1 stream, 2 tries, 3 texts, 4 uses
-- ARGV 1 group, 2 id

local e = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if e then
  local f = {}
  for i = 1, #e[2], 2 do f[e[2][i]] = e[2][i + 1] end
  if f.id and f.texted == '1' and redis.call('HINCRBY', KEYS[4], f.id, -1) <= 0 then
    redis.call('HDEL', KEYS[4], f.id)
    redis.call('HDEL', KEYS[3], f.id)
  end
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
