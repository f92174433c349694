-- Takes a batch of entries of one room from the log of another deployment: those
-- that are not here yet are appended, in their order, and the position in that
-- log moves, in one step. So neither a crash nor a delay, nor two mirrors at
-- work, can take an entry twice or leave one out.
--
-- An entry is named by the epoch and seq at which it was first stored, its
-- origin. Along any way between deployments the entries of one origin keep their
-- order, so how far each has come ("of:EPOCH") tells whether one is here: over
-- whichever way it came first. Those of this log itself are here.
--
-- After a restore a log may hold the same messages under another epoch. So when
-- an epoch is met for the first time, ids are looked up as well: what the
-- source held at that time ("until"), in a set of all ids of this log that
-- ids.lua makes and that lives for an hour.
--
-- The id of a position is "-" where its record is damaged.
--
-- KEYS 1 log, 2 meta, 3 state, 4 positions, 5 ids
-- ARGV 1 epoch of the source's log, 2 its top, 3 the seq behind which the
--      entries were read, 4 id of the position if the source has lost it, 5 a
--      name for a new epoch, "" if the room is not listed yet, 6 entries to keep
--      ("0" for all), 7 channel, 8 the command that publishes, 9 the epoch this
--      log must have, "" for any; then for each
--      entry: seq, record ("" for one to pass over), origin "epoch seq" ("" for
--      the source itself), stamp, how many keys it changes, and for each of them:
--      key, "=" .. value or "" to delete, its stamp here, its stamp hereafter
--      ("" leaves value and stamp)
-- Reply "word seq stored id": the position in the source's log by now, and how
--       many were stored. The word is "at", or why it went no further: "list"
--       the room first, make the "ids", the "stamps" or the "epoch" are others, both
--       logs are the "same".

local source, sourcetop = ARGV[1], tonumber(ARGV[2])
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'top', 'id')
local epoch, top, topid = meta[1] or '', tonumber(meta[2] or '0'), meta[3] or ''
local stamps = KEYS[3] .. ':stamps'
local head = 10

if epoch ~= '' and epoch == source then return 'same 0 0 ' end
if ARGV[9] ~= '' and ARGV[9] ~= epoch then return 'epoch 0 0 ' end
if epoch == '' then
  if #ARGV < head then return 'at 0 0 ' end
  if ARGV[5] == '' then return 'list 0 0 ' end
  epoch = ARGV[5]
  redis.call('HSET', KEYS[2], 'epoch', epoch, 'past', '', 'top', '0', 'id', '')
end
-- A log that begins anew has nothing of what was taken before.
if redis.call('HGET', KEYS[4], 'epoch') ~= epoch then
  redis.call('DEL', KEYS[4], KEYS[5])
  redis.call('HSET', KEYS[4], 'epoch', epoch)
end

local at = redis.call('HGET', KEYS[4], 'at:' .. source)
local seq, till, id = string.match(at or '0 0 ', '^(%d+) (%d+) (.*)$')
seq, till = tonumber(seq), tonumber(till)
if not at and top > 0 then till = sourcetop end

local stored, word = 0, 'at'
local function answer()
  return word .. string.format(' %.0f %.0f ', seq, stored) .. id
end
local function place()
  return string.format('%.0f %.0f ', seq, till) .. id
end

if ARGV[4] ~= '' then
  if ARGV[4] == id then
    seq, till, id = 0, math.max(sourcetop, seq), ''
    redis.call('HSET', KEYS[4], 'at:' .. source, place())
    redis.call('HDEL', KEYS[4], 'of:' .. source)
  end
  return answer()
end
if tonumber(ARGV[3]) > seq or #ARGV < head then return answer() end

local looking, demanded = redis.call('SISMEMBER', KEYS[5], '*') == 1, false
local began, of, moved = seq, {}, {}
local i = head
while i <= #ARGV do
  local s, record, origin, stamp, n = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
  local change = i + 5
  i = change + 4 * n
  if s > seq and record == '' then
    seq, id = s, '-'
  elseif s > seq then
    -- The id follows the version and its own length: see record.go.
    local entry = string.sub(record, 3, 2 + string.byte(record, 2))
    local from, place = source, s
    if origin ~= '' then
      from, place = string.match(origin, '^(%S+) (%d+)$')
      place = tonumber(place)
    end
    local new = from ~= epoch
    if new and not of[from] then of[from] = tonumber(redis.call('HGET', KEYS[4], 'of:' .. from) or '-1') end
    if new and place <= of[from] then new = false end
    if new then
      if s <= till or of[from] < 0 and top > 0 then
        if not looking then word = 'ids' break end
        demanded = true
      end
      if looking and redis.call('SISMEMBER', KEYS[5], entry) == 1 then new = false end
      if new then
        for c = change, i - 4, 4 do
          if (redis.call('HGET', stamps, ARGV[c]) or '') ~= ARGV[c + 2] then word = 'stamps' end
        end
        if word == 'stamps' then break end
      end
      of[from], moved[from] = place, true
    end
    if new then
      top, topid, stored = top + 1, entry, stored + 1
      local name = string.format('%.0f', top)
      local fields = { 'e', record, 'o', string.format('%s %.0f', from, place) }
      if stamp ~= '' then fields[5], fields[6] = 'v', stamp end
      if ARGV[6] == '0' then
        redis.call('XADD', KEYS[1], '0-' .. name, unpack(fields))
      else
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[6], '0-' .. name, unpack(fields))
      end
      for c = change, i - 4, 4 do
        if ARGV[c + 3] ~= '' then
          redis.call('HSET', stamps, ARGV[c], ARGV[c + 3])
          if ARGV[c + 1] == '' then
            redis.call('HDEL', KEYS[3], ARGV[c])
          else
            redis.call('HSET', KEYS[3], ARGV[c], string.sub(ARGV[c + 1], 2))
          end
        end
      end
      if looking then redis.call('SADD', KEYS[5], entry) end
      redis.call(ARGV[8], ARGV[7], epoch .. ' ' .. name .. ' ' .. record)
    end
    seq, id = s, entry
  end
end

if stored > 0 then redis.call('HSET', KEYS[2], 'top', string.format('%.0f', top), 'id', topid) end
if seq > began then
  redis.call('HSET', KEYS[4], 'at:' .. source, place())
  for from in pairs(moved) do redis.call('HSET', KEYS[4], 'of:' .. from, string.format('%.0f', of[from])) end
end
if demanded then redis.call('PEXPIRE', KEYS[5], 3600000) end
return answer()
