-- Renews one node's lease and returns who is alive.
-- KEYS: table of records, leases by end (ms of Redis time), the moment of the last renewal of anybody
-- ARGV: node, record, lease in ms, renewal in ms, most nodes, most bytes of a record
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local id, lease = ARGV[1], tonumber(ARGV[3])
local known = redis.call('ZSCORE', KEYS[2], id) and redis.call('HEXISTS', KEYS[1], id)
if known ~= 1 then known = 0 end

-- Where nobody has renewed for longer than a renewal takes, it was Redis that was away, or its
-- clock that moved: everybody gets a whole lease to come back. It is bounded above too, so that
-- no clock and no hand can make a lease that never ends.
local last = tonumber(redis.call('GET', KEYS[3])) or 0
local away = now - last
if away > tonumber(ARGV[4]) * 1.5 or away < 0 then
  local all = redis.call('ZRANGE', KEYS[2], 0, tonumber(ARGV[5]) - 1)
  for _, node in ipairs(all) do redis.call('ZADD', KEYS[2], now + lease, node) end
end
redis.call('SET', KEYS[3], now, 'PX', lease * 100)
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now + lease * 2, '+inf', 'LIMIT', 0, ARGV[5])) do
  redis.call('ZADD', KEYS[2], now + lease, node)
end

redis.call('HSET', KEYS[1], id, ARGV[2])
redis.call('ZADD', KEYS[2], now + lease, id)

local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[5])
for _, node in ipairs(gone) do
  redis.call('ZREM', KEYS[2], node)
  redis.call('HDEL', KEYS[1], node)
end
if redis.call('HLEN', KEYS[1]) ~= redis.call('ZCARD', KEYS[2]) then -- records without a lease
  local page = redis.call('HSCAN', KEYS[1], 0, 'COUNT', 100)[2]
  for i = 1, #page, 2 do
    if not redis.call('ZSCORE', KEYS[2], page[i]) then redis.call('HDEL', KEYS[1], page[i]) end
  end
end

local out = {known, #gone}
local alive = redis.call('ZREVRANGE', KEYS[2], 0, tonumber(ARGV[5]) - 1, 'WITHSCORES')
for i = 1, #alive, 2 do
  local node, rec = alive[i], ''
  if redis.call('HSTRLEN', KEYS[1], node) <= tonumber(ARGV[6]) then rec = redis.call('HGET', KEYS[1], node) or '' end
  out[#out + 1] = node
  out[#out + 1] = math.floor(alive[i + 1] - now)
  out[#out + 1] = rec
end
return out
