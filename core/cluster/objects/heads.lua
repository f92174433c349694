-- Reads heads. KEYS: heads. ARGV: most bytes of a head, names
local out = {}
for i = 2, #ARGV do
  local head = ''
  if redis.call('HSTRLEN', KEYS[1], ARGV[i]) > tonumber(ARGV[1]) then head = 'too large'
  else head = redis.call('HGET', KEYS[1], ARGV[i]) or '' end
  out[#out + 1] = head
end
return out
