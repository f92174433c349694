-- Appends one entry to a room. Everything below happens or nothing does: the
-- first write (HSET or XADD) is one that Redis refuses at maxmemory, and after
-- a first write it refuses none.
--
-- KEYS 1 log, 2 meta, 3 state, 4 rooms, 5 nonce (absent without a nonce)
-- ARGV 1 entry, 2 its id, 3 answer to keep for the nonce, 4 nonce window in ms,
--      5 "1" to create, 6-8 the known epoch, seq ("0" for none) and id,
--      9 a name for a new epoch, 10 entries to keep ("0" for all),
--      11 room, 12 channel, 13... changes: key, "=" .. value or "" to delete
-- Reply "0 epoch seq": appended; "1 epoch seq answer": the nonce was known;
--       "2": the room exists

local meta = redis.call('HMGET', KEYS[2], 'epoch', 'top', 'id', 'past')
local epoch, top, topid, past = meta[1] or '', tonumber(meta[2] or '0'), meta[3] or '', meta[4] or ''

if KEYS[5] then
  local told = redis.call('GET', KEYS[5])
  -- An answer of an epoch that was lost speaks of an entry that is gone.
  if told and epoch ~= '' and string.sub(told, 1, #epoch + 1) == epoch .. ' ' then
    return '1 ' .. told
  end
end

-- Has this store lost something that the caller has seen?
local kepoch, kseq, kid = ARGV[6], tonumber(ARGV[7]), ARGV[8]
local lost = false
if kseq > 0 then
  if kepoch ~= epoch then
    -- Callers that lost an epoch together meet again in the one that followed.
    lost = not string.find(' ' .. past .. ' ', ' ' .. kepoch .. ' ', 1, true)
  elseif kseq > top then
    lost = true
  elseif kid ~= '' and kseq == top then
    lost = kid ~= topid
  elseif kid ~= '' then
    local at = '0-' .. ARGV[7]
    local held = redis.call('XRANGE', KEYS[1], at, at)[1]
    -- The id follows the version and its own length: see record.go.
    lost = held ~= nil and string.sub(held[2][2], 3, 2 + string.byte(held[2][2], 2)) ~= kid
  end
end

local fresh = lost or epoch == ''
if ARGV[5] == '1' and top > 0 and not fresh then
  return '2'
end
if fresh then
  local names = {}
  for name in string.gmatch(past, '%S+') do names[#names + 1] = name end
  if epoch ~= '' then names[#names + 1] = epoch end
  if kseq > 0 and kepoch ~= epoch then names[#names + 1] = kepoch end
  while #names > 16 do table.remove(names, 1) end
  local old = epoch
  epoch, top, past = ARGV[9], 0, table.concat(names, ' ')
  redis.call('HSET', KEYS[2], 'epoch', epoch, 'past', past)
  redis.call('ZADD', KEYS[4], 0, ARGV[11])
  if redis.call('EXISTS', KEYS[1]) == 1 then
    -- Set what is left of the old epoch aside, for an operator to look at.
    local aside = KEYS[1] .. ':' .. old
    redis.call('RENAME', KEYS[1], aside)
    redis.call('EXPIRE', aside, 604800) -- a week
  end
end

local seq = string.format('%.0f', top + 1)
if ARGV[10] == '0' then
  redis.call('XADD', KEYS[1], '0-' .. seq, 'e', ARGV[1])
else
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[10], '0-' .. seq, 'e', ARGV[1])
end
redis.call('HSET', KEYS[2], 'top', seq, 'id', ARGV[2])
for i = 13, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[3], ARGV[i])
  else
    redis.call('HSET', KEYS[3], ARGV[i], string.sub(ARGV[i + 1], 2))
  end
end
local done = epoch .. ' ' .. seq
if KEYS[5] then
  redis.call('SET', KEYS[5], done .. ' ' .. ARGV[3], 'PX', ARGV[4])
end
redis.call('PUBLISH', ARGV[12], done .. ' ' .. ARGV[1])
return '0 ' .. done
