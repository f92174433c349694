-- Reads a hash, and no more of it than can belong there.
-- KEYS 1 hash
-- ARGV 1 most fields, 2 most bytes of a name, 3 most bytes of a value, 0 for names alone
-- Returns how many fields there are, and then of some the name and the value,
-- or the name alone. Values that are larger are told as ''.
local most, name, value = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local n = redis.call('HLEN', KEYS[1])
local names = {}
if n <= most then
  names = redis.call('HKEYS', KEYS[1])
else
  local page = redis.call('HSCAN', KEYS[1], 0, 'COUNT', most)[2]
  for i = 1, math.min(#page, 2 * most), 2 do names[#names + 1] = page[i] end
end
local out = { n }
for _, f in ipairs(names) do
  if #f <= name then
    out[#out + 1] = f
    if value > 0 then
      out[#out + 1] = redis.call('HSTRLEN', KEYS[1], f) <= value and redis.call('HGET', KEYS[1], f) or ''
    end
  end
end
return out
