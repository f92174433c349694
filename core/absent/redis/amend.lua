-- Puts other parcels in place of some of an outbox.
--
-- KEYS 1 outbox
-- ARGV parcel, parcel to put there, ...
-- Reply how many were found

local n = 0
for i = 1, #ARGV, 2 do
  local at = redis.call('LPOS', KEYS[1], ARGV[i])
  if at then
    redis.call('LSET', KEYS[1], at, ARGV[i + 1])
    n = n + 1
  end
end
return n
