-- All blocks of a range, as of one moment.
--
-- KEYS: 1 the stream, 2 its index of blocks
-- ARGV: 1 name of the first block, 2 name of the last
-- Returns name, fields and values, name, fields and values, ...

local result = {}
local names = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. ARGV[1], '[' .. ARGV[2])
for i = 1, #names do
  local fields = redis.call('HGETALL', KEYS[1] .. ':' .. names[i])
  if #fields > 0 then
    result[#result + 1] = names[i]
    result[#result + 1] = fields
  end
end
return result
