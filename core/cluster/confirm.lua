-- Returns which of the nodes have a lease. KEYS: leases. ARGV: nodes
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
for i, node in ipairs(ARGV) do
  local ends = redis.call('ZSCORE', KEYS[1], node)
  out[i] = (ends and tonumber(ends) > now) and 1 or 0
end
return out
