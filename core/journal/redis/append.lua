-- Appends one entry to a room. Everything below happens or nothing does: the
-- first write (HSET or XADD) is one that Redis refuses at maxmemory, and after
-- a first write it refuses none.
--
-- Every key is of the one room, so all of them lie in one slot. What lists the
-- rooms and what waits in them is written around this script: see index.go.
--
-- KEYS 1 log, 2 meta, 3 state, 4 nonce (absent without a nonce); for a review,
--      which has a nonce: 5 open reviews, 6 decisions, 7 how many of each
--      author are open; for absent people: the outbox and the count of what it
--      dropped, as the last two
-- ARGV 1 entry, 2 its id, 3 answer to keep for the nonce, 4 nonce window in ms,
--      5 what to do: append, create; hold, approve, reject; or open, which only
--      begins a new epoch, if something is lost, 6-8 the known epoch, seq ("0" for none) and id,
--      9 a name for a new epoch, "" if the room is not listed yet, 10 entries
--      to keep ("0" for all), 11 channel, 12 the command that publishes,
--      13 how many keys of the state are expected to have a value, 14 a parcel
--      for the outbox, "" for none, 15 how many there may be; for a
--      review: 16 its record, 17 how many there may be, 18 how many of one
--      author, 19 the author; then what is expected and the changes: key,
--      "=" .. value or "" for absent, or to delete
-- Reply "0 epoch seq": appended; "1 epoch seq answer": the nonce was known;
--       "2": the room exists; "3": no such open review; "4": too many of them,
--       "5": of this author; "6": list the room first; "7": the state is not as
--       expected.
--       The seq is 0 where a review was held or rejected, since no entry was stored.
--
-- The answer kept for a nonce is "epoch seq answer", for the window. That of an
-- open review is "* 0 answer": it holds in every epoch, and until the decision.

local meta = redis.call('HMGET', KEYS[2], 'epoch', 'top', 'id', 'past', 'fence')
local epoch, top, topid, past = meta[1] or '', tonumber(meta[2] or '0'), meta[3] or '', meta[4] or ''

local act = ARGV[5]
local decides = act == 'approve' or act == 'reject'
local told = KEYS[4] and redis.call('GET', KEYS[4])
local waits, posted = false, false
-- The id of a record follows the version and its own length: see record.go. An
-- answer begins with the length.
local function recordid(record) return string.sub(record, 3, 2 + (string.byte(record, 2) or 0)) end
local function held(seq) return redis.call('XRANGE', KEYS[1], '0-' .. seq, '0-' .. seq)[1] end
if told and string.sub(told, 1, 2) == '* ' then
  waits = string.sub(told, 3)
elseif told and epoch ~= '' then
  local tepoch, tseq, answer = string.match(told, '^(%S+) (%d+) (.*)$')
  local good = tepoch == epoch
  if not good and tseq == '0' then
    -- Of an epoch that was left, but about no entry: the decision is known still.
    good = string.find(' ' .. past .. ' ', ' ' .. tepoch .. ' ', 1, true)
  elseif not good then
    -- It holds if the entry is among what survived.
    local e = held(tseq)
    good = e and recordid(e[2][2]) == string.sub(answer, 2, 1 + string.byte(answer, 1))
  end
  if good and not decides then
    return '1 ' .. epoch .. ' ' .. tseq .. ' ' .. answer
  end
  -- What decides a review replaces the answer its author has, unless that is
  -- an entry: it must not be stored twice.
  posted = good and tseq ~= '0' and tseq .. ' ' .. answer
end

-- When an epoch began, as hexadecimal digits of one length, where its name
-- says so.
local function born(name) return string.match(name, '^(%x%x%x%x%x%x%x%x%x%x%x%x)%.') end

-- Has this store lost something that the caller has seen?
local kepoch, kseq, kid = ARGV[6], tonumber(ARGV[7]), ARGV[8]
local lost = false
if kseq > 0 then
  if kepoch ~= epoch then
    -- Callers that lost an epoch together meet again in the one that followed.
    -- One that began before the present one is over too, though the list may
    -- not name it: who began the present one had not heard of it.
    local known, now = born(kepoch), born(epoch)
    lost = not string.find(' ' .. past .. ' ', ' ' .. kepoch .. ' ', 1, true) and not (known and now and known < now)
  elseif kseq > top then
    lost = true
  elseif kid ~= '' and kseq == top then
    lost = kid ~= topid
  elseif kid ~= '' then
    local e = held(ARGV[7])
    lost = e and recordid(e[2][2]) ~= kid
  end
end

if act == 'open' and not lost then
  return '0 ' .. (epoch ~= '' and epoch or '-') .. ' 0'
end

-- A server that has taken another's place says whose. It may have missed the
-- end of what that one acknowledged, and whoever asks now need not know that
-- end: the first append to a room after it begins a new epoch in any case, so
-- that no seq of the old one is given twice. All zeros: it never took a place.
-- A user without the right to ask does without.
local fence, info = meta[5] or '', redis.pcall('INFO', 'replication')
local place = type(info) == 'string' and string.match(info, 'master_replid2:(%x+)') or ''
local fresh = lost or epoch == '' or string.find(place, '[^0]') and place ~= fence
if epoch == '' then -- whatever is in the log without it has survived
  local last = redis.call('XREVRANGE', KEYS[1], '0-18446744073709551615', '-', 'COUNT', 1)[1]
  top, topid = 0, ''
  if last then top, topid = tonumber(string.sub(last[1], 3)), recordid(last[2][2]) end
end
if act == 'create' and top > 0 then
  return '2'
end
if decides and redis.call('HEXISTS', KEYS[5], ARGV[2]) == 0 then
  return '3'
end
if act == 'hold' and not waits then
  if tonumber(redis.call('HGET', KEYS[7], ARGV[19]) or '0') >= tonumber(ARGV[18]) then
    return '5'
  end
  if redis.call('HLEN', KEYS[5]) >= tonumber(ARGV[17]) then
    return '4'
  end
end
local rest = (act == 'hold' or decides) and 20 or 16
local changes = rest + 2 * tonumber(ARGV[13])
for i = rest, (waits and not decides) and 0 or changes - 1, 2 do -- a known nonce has its answer
  local value = redis.call('HGET', KEYS[3], ARGV[i])
  if ARGV[i + 1] ~= (value and '=' .. value or '') then
    return '7'
  end
end
if fresh and ARGV[9] == '' then
  return '6'
end
if fresh then
  local names = {}
  for name in string.gmatch(past, '%S+') do names[#names + 1] = name end
  if epoch ~= '' then names[#names + 1] = epoch end
  if kseq > 0 and kepoch ~= epoch then names[#names + 1] = kepoch end
  while #names > 16 do table.remove(names, 1) end
  -- It begins later than each of them, whatever the clocks say.
  local at = born(ARGV[9])
  for _, name in ipairs(names) do
    local was = born(name)
    if was and was >= at then at = string.format('%012x', tonumber(was, 16) + 1) end
  end
  epoch, past = at .. string.sub(ARGV[9], 13), table.concat(names, ' ')
  -- What survived of the old epoch stays where it is, and the new one goes on
  -- behind it.
  redis.call('HSET', KEYS[2], 'epoch', epoch, 'past', past, 'top', string.format('%.0f', top), 'id', topid, 'fence', place)
end

if act == 'open' then
  return '0 ' .. epoch .. ' 0'
end

if waits and not decides then
  return '1 ' .. epoch .. ' ' .. waits
end

local seq = '0'
if act ~= 'hold' and act ~= 'reject' and not posted then
  seq = string.format('%.0f', top + 1)
  local fields = { 'e', ARGV[1] }
  if changes < #ARGV then -- a stamp later than those of what it changes, for mirror.lua
    local now, stamps = redis.call('TIME'), KEYS[3] .. ':stamps'
    -- A room is made before anything is changed in it, wherever that was.
    local at = act == 'create' and 0 or now[1] * 1000 + math.floor(now[2] / 1000)
    for i = changes, #ARGV, 2 do
      at = math.max(at, 1 + string.match(redis.call('HGET', stamps, ARGV[i]) or '0', '^%d+'))
    end
    fields[3], fields[4] = 'v', string.format('%.0f ', at) .. ARGV[2]
    for i = changes, #ARGV, 2 do redis.call('HSET', stamps, ARGV[i], fields[4]) end
  end
  if ARGV[10] == '0' then
    redis.call('XADD', KEYS[1], '0-' .. seq, unpack(fields))
  else
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[10], '0-' .. seq, unpack(fields))
  end
  redis.call('HSET', KEYS[2], 'top', seq, 'id', ARGV[2])
  if ARGV[14] ~= '' and redis.call('RPUSH', KEYS[#KEYS - 1], epoch .. ' ' .. seq .. ' ' .. ARGV[14]) > tonumber(ARGV[15]) then
    redis.call('LPOP', KEYS[#KEYS - 1])
    redis.call('INCR', KEYS[#KEYS])
  end
end
if act == 'hold' then
  redis.call('HSET', KEYS[5], ARGV[2], ARGV[16])
  redis.call('HINCRBY', KEYS[7], ARGV[19], 1)
elseif decides then
  redis.call('LPUSH', KEYS[6], ARGV[16])
  redis.call('LTRIM', KEYS[6], 0, tonumber(ARGV[17]) - 1)
  redis.call('HDEL', KEYS[5], ARGV[2])
  if redis.call('HINCRBY', KEYS[7], ARGV[19], -1) <= 0 then
    redis.call('HDEL', KEYS[7], ARGV[19])
  end
end
for i = changes, posted and 0 or #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[3], ARGV[i])
  else
    redis.call('HSET', KEYS[3], ARGV[i], string.sub(ARGV[i + 1], 2))
  end
end
local done = epoch .. ' ' .. seq
if act == 'hold' then
  redis.call('SET', KEYS[4], '* 0 ' .. ARGV[3])
elseif KEYS[4] and not posted then
  redis.call('SET', KEYS[4], done .. ' ' .. ARGV[3], 'PX', ARGV[4])
end
if seq ~= '0' then
  redis.call(ARGV[12], ARGV[11], done .. ' ' .. ARGV[1])
end
if rest == 20 then -- after the entry, so that whoever hears of an approval has it
  redis.call(ARGV[12], ARGV[11], epoch .. ' 0 ' .. ARGV[16])
end
if posted and act == 'approve' then
  return '1 ' .. epoch .. ' ' .. posted
end
return '0 ' .. done
