-- Copies a room's log to another stream, some entries at a time, with others in
-- place of a few, and swaps the two with the last of them. Entries never change
-- and are appended at the end only, so a copy that has reached the end is the
-- log. One copy of a room is under way at a time: whoever holds the lock.
--
-- KEYS 1 log, 2 meta, 3 copy, 4 lock
-- ARGV 1 epoch, 2 token of the lock, 3 the first stream id to copy ("0-0": begin),
--      4 how many, 5 how long the copy and the lock live without another call, ms;
--      then stream id, record to put there or "" for none
-- Reply the last id copied, "done" when the two were swapped, "busy" when another
--       copy is under way, "lost" when this one has been given up, "epoch"

if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return 'epoch' end
local holder = redis.call('GET', KEYS[4])
if ARGV[3] == '0-0' then
  if holder and holder ~= ARGV[2] then return 'busy' end
  redis.call('DEL', KEYS[3])
elseif holder ~= ARGV[2] then
  return 'lost'
end
redis.call('SET', KEYS[4], ARGV[2], 'PX', ARGV[5])

local instead = {}
for i = 6, #ARGV, 2 do instead[ARGV[i]] = ARGV[i + 1] end
local from, count = ARGV[3], tonumber(ARGV[4])
local got = redis.call('XRANGE', KEYS[1], from == '0-0' and '-' or '(' .. from, '+', 'COUNT', count)
local last = from
for _, e in ipairs(got) do
  last = e[1]
  local record = instead[last] or e[2][2]
  if record ~= '' then redis.call('XADD', KEYS[3], last, 'e', record) end
end
if #got == count then
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
  return last
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if first and redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('DEL', KEYS[1])
elseif first then
  redis.call('XTRIM', KEYS[3], 'MINID', first[1]) -- what the log has dropped meanwhile
  redis.call('PERSIST', KEYS[3])
  redis.call('RENAME', KEYS[3], KEYS[1])
end
-- What was set aside of lost epochs may hold the same text.
for name in string.gmatch(redis.call('HGET', KEYS[2], 'past') or '', '%S+') do
  redis.call('DEL', KEYS[1] .. ':' .. name)
end
redis.call('DEL', KEYS[4])
return 'done'
