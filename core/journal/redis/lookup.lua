-- Looks a nonce up: the answer kept for it, with the room's epoch before it.
--
-- KEYS 1 meta, 2 nonce, 3 log
-- Reply "epoch seq answer", or nil

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'past')
local epoch = meta[1]
local told = redis.call('GET', KEYS[2])
if not told then return false end
-- An open review waits in every epoch: see append.lua.
if string.sub(told, 1, 2) == '* ' then return (epoch or '-') .. string.sub(told, 2) end
if not epoch then return false end
if string.sub(told, 1, #epoch + 1) == epoch .. ' ' then return told end
-- The answer of an epoch that was left holds while its entry is there, or if it
-- is about none.
local was, seq, answer = string.match(told, '^(%S+) (%d+) (.*)$')
if seq == '0' then
  return string.find(' ' .. (meta[2] or '') .. ' ', ' ' .. was .. ' ', 1, true) and epoch .. ' 0 ' .. answer or false
end
local e = redis.call('XRANGE', KEYS[3], '0-' .. seq, '0-' .. seq)[1]
if e and string.sub(e[2][2], 3, 2 + (string.byte(e[2][2], 2) or 0)) == string.sub(answer, 2, 1 + string.byte(answer, 1)) then
  return epoch .. ' ' .. seq .. ' ' .. answer
end
return false
