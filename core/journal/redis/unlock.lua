-- Gives a lock up, with what was made under it.
--
-- KEYS 1 lock, 2 what was made
-- ARGV 1 token

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[2])
return redis.call('DEL', KEYS[1])
