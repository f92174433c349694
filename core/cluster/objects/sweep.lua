-- Notes which of the oldest objects are named by a head, and returns those that are named by none for too long:
-- drop.lua removes them. KEYS: heads, ages. ARGV: seconds to keep, most objects, most heads, most bytes of a head
local now = tonumber(redis.call('TIME')[1])
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, ARGV[2])
if #old == 0 then return {} end
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[3]) then return redis.error_reply('ERR too many heads, no object is removed') end
local named = {}
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if redis.call('HSTRLEN', KEYS[1], name) <= tonumber(ARGV[4]) then
    local digests = string.match(redis.call('HGET', KEYS[1], name), '^%d+\n([%x ]*)\n') or ''
    for digest in string.gmatch(digests, '%x+') do named[digest] = true end
  end
end
local out = {}
for _, digest in ipairs(old) do
  if named[digest] then redis.call('ZADD', KEYS[2], now, digest)
  elseif #digest == 64 and not string.find(digest, '[^0-9a-f]') then out[#out + 1] = digest
  else redis.call('ZREM', KEYS[2], digest) -- a name from somebody's hand
  end
end
return out
