-- Puts a room in place of what there is of it.
--
-- KEYS 1 log, 2 meta, 3 state, 4 the stream that becomes the log, 5 open reviews,
--      6 how many of each author are open, 7 decisions; then nonces to forget
-- ARGV 1 epoch, 2 top ("0" for none), 3 id of the top entry, 4 epochs left behind,
--      5 "fresh" when there must be no such room, 6 how many entries the stream has,
--      7 how many pairs of state, 8 open reviews, 9 decisions follow:
--      key, value; id, author, nonce key, answer, record; record (newest first)
-- Reply "0": done; "2": there is such a room; "4": the stream is gone
--
-- The nonce keys of the open reviews that follow are of the same slot.

local top = tonumber(redis.call('HGET', KEYS[2], 'top') or '0')
if ARGV[5] == 'fresh' and top > 0 then return '2' end
if redis.call('XLEN', KEYS[4]) ~= tonumber(ARGV[6]) then return '4' end

-- First what Redis refuses at maxmemory.
local epoch = redis.call('HGET', KEYS[2], 'epoch') or ''
local past, seen = {}, { [''] = true, [ARGV[1]] = true }
local function left(name)
  if not seen[name] then
    seen[name] = true
    past[#past + 1] = name
  end
end
for name in string.gmatch(ARGV[4], '%S+') do left(name) end
for name in string.gmatch(redis.call('HGET', KEYS[2], 'past') or '', '%S+') do left(name) end
left(epoch)
while #past > 16 do table.remove(past, 1) end
local info = redis.pcall('INFO', 'replication') -- see append.lua
local fence = type(info) == 'string' and string.match(info, 'master_replid2:(%x+)') or ''
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'top', ARGV[2], 'id', ARGV[3], 'past', table.concat(past, ' '), 'fence', fence)

-- Whoever copies the log to erase something of it has lost it.
redis.call('UNLINK', KEYS[1] .. ':copy', KEYS[1] .. ':copying', KEYS[1] .. ':wanted:' .. ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then
  if epoch ~= '' and epoch ~= ARGV[1] then
    redis.call('RENAME', KEYS[1], KEYS[1] .. ':' .. epoch)
    redis.call('EXPIRE', KEYS[1] .. ':' .. epoch, 604800) -- a week, as append.lua does
  else
    redis.call('DEL', KEYS[1])
  end
end
if ARGV[6] ~= '0' then
  redis.call('PERSIST', KEYS[4])
  redis.call('RENAME', KEYS[4], KEYS[1])
end
for i = 8, #KEYS do redis.call('DEL', KEYS[i]) end
redis.call('DEL', KEYS[3], KEYS[3] .. ':stamps', KEYS[5], KEYS[6], KEYS[7])
local at = 10
for _ = 1, tonumber(ARGV[7]) do
  redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _ = 1, tonumber(ARGV[8]) do
  redis.call('HINCRBY', KEYS[6], ARGV[at + 1], 1)
  redis.call('SET', ARGV[at + 2], '* 0 ' .. ARGV[at + 3])
  redis.call('HSET', KEYS[5], ARGV[at], ARGV[at + 4])
  at = at + 5
end
for _ = 1, tonumber(ARGV[9]) do
  redis.call('RPUSH', KEYS[7], ARGV[at])
  at = at + 1
end
return '0'
