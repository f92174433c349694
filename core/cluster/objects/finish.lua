-- Ends the writing of an object whose parts are all there. KEYS: object, ages. ARGV: digest, bytes, parts
for i = 0, tonumber(ARGV[3]) - 1 do
  if redis.call('HEXISTS', KEYS[1], i) == 0 then return 0 end
end
if redis.call('HGET', KEYS[1], 'size') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'done', ARGV[2])
redis.call('ZADD', KEYS[2], redis.call('TIME')[1], ARGV[1])
return 1
