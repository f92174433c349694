-- Reads one part of an object that is complete. KEYS: object. ARGV: part, most bytes of a part
local done = redis.call('HGET', KEYS[1], 'done')
if not done or #done > 12 or not tonumber(done) then return false end
if redis.call('HSTRLEN', KEYS[1], ARGV[1]) > tonumber(ARGV[2]) then return {tonumber(done), 'too large'} end
return {tonumber(done), redis.call('HGET', KEYS[1], ARGV[1]) or ''}
