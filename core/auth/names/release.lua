-- Ends a guest's claim of a name.
--
-- KEYS 1 the name
-- ARGV 1 the guest's nonce
-- Reply how many claims ended

if redis.call('GET', KEYS[1]) ~= 'g ' .. ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
