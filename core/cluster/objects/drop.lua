-- Removes an object that has been looked for and named by no head, unless somebody has put or named it since.
-- KEYS: object, ages. ARGV: digest, seconds to keep
local at = redis.call('ZSCORE', KEYS[2], ARGV[1])
if at and tonumber(at) > redis.call('TIME')[1] - ARGV[2] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('UNLINK', KEYS[1])
return 1
