-- Claims a name for a guest, or extends the claim.
--
-- KEYS 1 the name
-- ARGV 1 the guest's nonce, 2 ms to hold it
-- Reply "mine", "guest" (another one has it) or "user" (a registered user has)

local now = redis.call('GET', KEYS[1])
if not now or now == 'g ' .. ARGV[1] then
  redis.call('SET', KEYS[1], 'g ' .. ARGV[1], 'PX', ARGV[2])
  return 'mine'
end
if string.sub(now, 1, 2) == 'u ' then return 'user' end
return 'guest'
