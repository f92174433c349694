-- Sets or removes a node's field of a hash, and tells whoever listens.
-- KEYS: hash
-- ARGV: node, value ("" removes the field), life of the hash in ms, channel ("" for none), message,
--       the command that publishes
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
if ARGV[4] ~= '' then redis.call(ARGV[6], ARGV[4], ARGV[5]) end
return 1
