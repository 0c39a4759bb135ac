-- First and last block of a series and level that have not expired, as of one moment.
--
-- KEYS: 1 the stream, 2 its index of blocks
-- ARGV: 1 what the names of the blocks begin with
-- Returns {} or {name of the first, its fields, name of the last, its fields}.

local function find(command, from, to)
  local skipped = 0
  while true do
    local names = redis.call(command, KEYS[2], from, to, 'LIMIT', skipped, 16)
    for i = 1, #names do
      local fields = redis.call('HKEYS', KEYS[1] .. ':' .. names[i])
      if #fields > 0 then
        return names[i], fields
      end
    end
    if #names < 16 then
      return nil
    end
    skipped = skipped + 16
  end
end

-- A name goes on with hexadecimal digits, and 'g' comes after all of them.
local low, high = '[' .. ARGV[1], '(' .. ARGV[1] .. 'g'
local first, first_fields = find('ZRANGEBYLEX', low, high)
if not first then
  return {}
end
local last, last_fields = find('ZREVRANGEBYLEX', high, low)
return {first, first_fields, last, last_fields}
