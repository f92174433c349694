-- Sets a head if it has the version that is expected, and what it names is there.
-- A head is "VERSION\nDIGEST DIGEST ...\nVALUE".
-- or with a last line more, its seal. Whoever does not seal does not replace what is sealed.
-- KEYS: heads, ages, objects it names. ARGV: name, version expected ("0": none), digests, value, most bytes of a head, version and seal ("": none)
local old = '0' -- also where nobody can read it
if redis.call('HSTRLEN', KEYS[1], ARGV[1]) <= tonumber(ARGV[5]) then
  local head = redis.call('HGET', KEYS[1], ARGV[1]) or ''
  local body, sealed = string.gsub(head, '\nhmac%-sha256:[^\n]*$', '')
  old = string.match(body, '^([1-9]%d*)\n') or '0' -- as decodeHead reads it, or nobody could replace it
  if ARGV[7] == '' and sealed > 0 then return {3, old} end
  if #old > 16 or tonumber(old) >= 9007199254740992 then old = '0' end -- 2^53: what is counted exactly
end
if old ~= ARGV[2] then return {0, old} end
for i = 3, #KEYS do
  if not redis.call('HGET', KEYS[i], 'done') then return {1, KEYS[i]} end
end
local t = redis.call('TIME')
local version, seal = ARGV[6], ''
if ARGV[7] == '' then
  version = string.format('%.0f', math.max(tonumber(old) + 1, t[1] * 1000000 + t[2]))
else
  seal = '\n' .. ARGV[7]
end
redis.call('HSET', KEYS[1], ARGV[1], version .. '\n' .. ARGV[3] .. '\n' .. ARGV[4] .. seal)
for digest in string.gmatch(ARGV[3], '%x+') do redis.call('ZADD', KEYS[2], t[1], digest) end
return {2, version}
