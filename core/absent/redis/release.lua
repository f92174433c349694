-- Stands before the scripts that end entries. release gives up the use that an
-- entry makes of its message's text; the last use takes the text along.
local function release(uses, texts, fields)
  local f = {}
  for i = 1, #fields, 2 do f[fields[i]] = fields[i + 1] end
  if f.id and f.texted == '1' and redis.call('HINCRBY', uses, f.id, -1) <= 0 then
    redis.call('HDEL', uses, f.id)
    redis.call('HDEL', texts, f.id)
  end
end

