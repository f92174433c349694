-- Sets a head if it has the version that is expected, and what it names is there.
-- A head is "VERSION\nDIGEST DIGEST ...\nVALUE".
-- KEYS: heads, ages, objects it names. ARGV: name, version expected ("0": none), digests, value, most bytes of a head
local old = '0' -- also where nobody can read it
if redis.call('HSTRLEN', KEYS[1], ARGV[1]) <= tonumber(ARGV[5]) then
  old = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^([1-9]%d*)\n') or '0'
  if #old > 16 or tonumber(old) >= 9007199254740992 then old = '0' end -- 2^53: what is counted exactly
end
if old ~= ARGV[2] then return {0, old} end
for i = 3, #KEYS do
  if not redis.call('HGET', KEYS[i], 'done') then return {1, KEYS[i]} end
end
local t = redis.call('TIME')
local version = math.max(tonumber(old) + 1, t[1] * 1000000 + t[2])
version = string.format('%.0f', version)
redis.call('HSET', KEYS[1], ARGV[1], version .. '\n' .. ARGV[3] .. '\n' .. ARGV[4])
for digest in string.gmatch(ARGV[3], '%x+') do redis.call('ZADD', KEYS[2], t[1], digest) end
return {2, version}
