-- Gives a lock up, with what was made under it.
--
-- KEYS 1 lock, 2 what was made
-- ARGV 1 token

local holder = redis.call('GET', KEYS[1]) or ''
if string.sub(holder, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 0 end
redis.call('UNLINK', KEYS[2])
return redis.call('DEL', KEYS[1])
