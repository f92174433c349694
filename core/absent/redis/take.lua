-- Reads the oldest parcels of a room's outbox, for whoever may carry them.
--
-- KEYS 1 outbox, 2 who carries, 3 how many were dropped
-- ARGV 1 the carrier, 2 for how long it may, in ms, 3 how many parcels
-- Reply {"1", dropped, parcel, ...}; {"0"} while another carrier does

local by = redis.call('GET', KEYS[2])
if by and by ~= ARGV[1] then return { '0' } end
local out = { '1', redis.call('GET', KEYS[3]) or '0' }
for _, p in ipairs(redis.call('LRANGE', KEYS[1], 0, tonumber(ARGV[3]) - 1)) do out[#out + 1] = p end
if #out > 2 then redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) end
return out
