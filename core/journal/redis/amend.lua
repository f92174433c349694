-- Puts other records in place of some of a list.
--
-- KEYS 1 list
-- ARGV record, record to put there, ...
-- Reply how many were found

local instead, found = {}, 0
for i = 1, #ARGV, 2 do instead[ARGV[i]] = ARGV[i + 1] end
for i, v in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if instead[v] then
    redis.call('LSET', KEYS[1], i - 1, instead[v])
    found = found + 1
  end
end
return found
