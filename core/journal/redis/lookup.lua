-- Looks a nonce up: the answer kept for it, with the room's epoch before it.
--
-- KEYS 1 meta, 2 nonce
-- Reply "epoch seq answer", or nil

local epoch = redis.call('HGET', KEYS[1], 'epoch')
local told = redis.call('GET', KEYS[2])
-- An open review waits in every epoch: see append.lua.
if told and string.sub(told, 1, 2) == '* ' then return (epoch or '-') .. string.sub(told, 2) end
if epoch and told and string.sub(told, 1, #epoch + 1) == epoch .. ' ' then return told end
return false
