-- One update of one stream, in one atomic step.
--
-- KEYS: 1 the stream, 2 its index of blocks, 3.. the blocks that the update writes
-- ARGV: 1 mark the writer last saw ('' for none), 2 new mark, 3 its session, 4 its position on the bus, 5 final ('1' or '0'),
--   6 its event time, 7 state, 8 how long the index is kept in s, 9 as MessagePack, for each block: [how long it is kept in
--   s, [field, length of its value, field, length, ...], [fields to delete]], 10 all values, one after the other.

local stream, index = KEYS[1], KEYS[2]
local fence, mark, position = unpack(redis.call('HMGET', stream, 'fence', 'mark', 'position'))

if not fence or tonumber(ARGV[3]) < tonumber(fence) then
  return 'gone'
end
if (mark or '') ~= ARGV[1] then
  -- This very update is in already: its answer was lost, or another worker did the same step. Both computed it from the same
  -- state and the same record, so the cells are the same too.
  return mark == ARGV[2] and position == ARGV[4] and 'applied' or 'stale'
end

-- Setting comes before anything else: when Redis is out of memory, the first command that needs some fails, and then nothing
-- has been changed yet.
local blocks, values = cmsgpack.unpack(ARGV[9]), ARGV[10]
local at, added = 1, 0
for i, block in ipairs(blocks) do
  local key, kept_s, put, drop = KEYS[i + 2], unpack(block)
  for j = 2, #put, 2 do
    local length = put[j]
    put[j] = string.sub(values, at, at + length - 1)
    at = at + length
  end
  redis.call('HSET', key, unpack(put))
  if #drop > 0 then
    redis.call('HDEL', key, unpack(drop))
  end
  redis.call('EXPIRE', key, kept_s)
  added = added + redis.call('ZADD', index, 0, string.sub(key, #stream + 2))
end

if #blocks > 0 then
  redis.call('EXPIRE', index, ARGV[8])
end

-- Blocks expire by themselves, their names in the index do not. For each new name four others are looked at, in turn, so the
-- index never holds more than about as many dead names as living ones.
if added > 0 then
  local hand = redis.call('HGET', stream, 'hand') or '-'
  local names = redis.call('ZRANGEBYLEX', index, hand, '+', 'LIMIT', 0, 4 * added)
  for i = 1, #names do
    if redis.call('EXISTS', stream .. ':' .. names[i]) == 0 then
      redis.call('ZREM', index, names[i])
    end
  end
  redis.call('HSET', stream, 'hand', #names < 4 * added and '-' or '(' .. names[#names])
end

redis.call('HSET', stream, 'mark', ARGV[2], 'position', ARGV[4], 'final', ARGV[5], 'event_time_us', ARGV[6], 'state', ARGV[7])
return 'applied'
