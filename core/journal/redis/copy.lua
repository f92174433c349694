-- Copies a room's log to another stream, a slice at a time, with other records
-- in place of some, and swaps the two with the last slice. Entries never change
-- and are appended at the end only, so a copy that has reached the end is the
-- log. One copy of a room is under way at a time: whoever holds the lock, which
-- outlives the swap. A copy that nobody goes on with ends by itself.
--
-- The lock is "TOKEN SEQ", SEQ being where the copy has to go on. It is written
-- together with the slice, so a server that has taken another's place and missed
-- the last slices does not let the copy go on behind the hole.
--
-- KEYS 1 log, 2 meta, 3 copy, 4 lock
-- ARGV 1 epoch, 2 token of the lock, 3 how long copy and lock live without another
--      call, ms, 4 the seq to go on with, "" to begin, 5 how many seqs at most,
--      6 how many bytes; then seq, record to put there or "" for none, ...
-- Reply "at SEQ" to go on with; "done" when the two were swapped; "busy" when
--       another copy is under way, "lost" when this one has been given up,
--       "epoch"

if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return 'epoch' end
local holder = redis.call('GET', KEYS[4])
if ARGV[4] == '' then
  if holder then return 'busy' end
  redis.call('UNLINK', KEYS[3])
elseif holder ~= ARGV[2] .. ' ' .. ARGV[4] then
  return 'lost'
end
local function go_on(seq)
  redis.call('SET', KEYS[4], ARGV[2] .. ' ' .. seq, 'PX', ARGV[3])
  return 'at ' .. seq
end

local highest = '0-18446744073709551615'
local function from(seq) return redis.call('XRANGE', KEYS[1], seq, highest, 'COUNT', 1)[1] end
local first = from('-')
if ARGV[4] == '' then return go_on(first and string.sub(first[1], 3) or '1') end

local instead = {}
for i = 7, #ARGV, 2 do instead[ARGV[i]] = ARGV[i + 1] end
local last, space = tonumber(ARGV[4]) - 1, tonumber(ARGV[6])
local stop = last + tonumber(ARGV[5])
while last < stop and space > 0 do
  local got = redis.call('XRANGE', KEYS[1], string.format('0-%.0f', last + 1), string.format('0-%.0f', stop), 'COUNT', 64)
  for _, e in ipairs(got) do
    local seq = string.sub(e[1], 3)
    local record = instead[seq] or e[2][2]
    if record ~= '' then redis.call('XADD', KEYS[3], e[1], 'e', record, unpack(e[2], 3)) end
    last, space = tonumber(seq), space - #record
    if space <= 0 then break end
  end
  if #got < 64 and space > 0 then last = stop end
end
local next = from(string.format('0-%.0f', last + 1))
if next then
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
  return go_on(string.sub(next[1], 3))
end
go_on('end')

-- What is replaced may be large: it is freed beside.
local old = KEYS[3] .. ':old'
if first then redis.call('RENAME', KEYS[1], old) end
if first and redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('XTRIM', KEYS[3], 'MINID', first[1]) -- what the log has dropped meanwhile
  redis.call('PERSIST', KEYS[3])
  redis.call('RENAME', KEYS[3], KEYS[1])
end
redis.call('UNLINK', old, KEYS[3])
-- What a restore has set aside may hold the same text.
for name in string.gmatch(redis.call('HGET', KEYS[2], 'past') or '', '%S+') do
  redis.call('UNLINK', KEYS[1] .. ':' .. name)
end
return 'done'
