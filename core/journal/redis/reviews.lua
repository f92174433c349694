-- Reads a room's reviews at one moment.
--
-- KEYS 1 open reviews, 2 decisions
-- Reply {{record, ...}, {record, ...}}

return { redis.call('HVALS', KEYS[1]), redis.call('LRANGE', KEYS[2], 0, -1) }
