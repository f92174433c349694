-- Puts dead letters back into the stream.
--
-- KEYS 1 stream, 2 dead letters
-- ARGV 1.. ids
-- Reply how many there were

local n = 0
for i = 1, #ARGV do
  local e = redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i])[1]
  if e then
    local f = {}
    for k = 1, #e[2], 2 do
      local name = e[2][k]
      if name ~= 'reason' and name ~= 'tries' and name ~= 'died' then
        f[#f + 1] = name
        f[#f + 1] = e[2][k + 1]
      end
    end
    redis.call('XADD', KEYS[1], '*', unpack(f))
    redis.call('XDEL', KEYS[2], ARGV[i])
    n = n + 1
  end
end
return n
