-- Values of a kind, changed by compare-and-set, and bounded logs.
--
-- ARGV: 1 operation, 2.. its arguments. Numbers travel as decimal text; all are below 2^53.
-- A stored document is its revision, the change that made it, and its value, with a space after each of the first two.

local operations = {}

local function parse(stored)
  return string.match(stored, '^(%d+) (%x+) ')
end

-- KEYS: 1 the documents of a kind, 2 its newest revision
-- put(key, change, revision it is based on or '', value) -> the new revision, or 'conflict'
function operations.put(key, change, base, value)
  local stored = redis.call('HGET', KEYS[1], key)
  if stored then
    local revision, made_by = parse(stored)
    if made_by == change then
      return revision
    elseif revision ~= base then
      return 'conflict'
    end
  elseif base ~= '' then
    return 'conflict'
  end
  local revision = string.format('%.0f', redis.call('INCR', KEYS[2]))
  redis.call('HSET', KEYS[1], key, revision .. ' ' .. change .. ' ' .. value)
  return revision
end

-- KEYS: as for put
-- remove(key, revision or '' for any) -> 1 when it was there, 0 when not, or 'conflict'
function operations.remove(key, base)
  local stored = redis.call('HGET', KEYS[1], key)
  if stored and base ~= '' and parse(stored) ~= base then
    return 'conflict'
  end
  return redis.call('HDEL', KEYS[1], key)
end

-- KEYS: 1 the log, 2 the number that this change got
-- append(value, records to keep, s to remember the change) -> the record's number
function operations.append(value, keep, remembered_s)
  local known = redis.call('GET', KEYS[2])
  if known then
    return known
  end
  local last = 0
  if redis.call('EXISTS', KEYS[1]) == 1 then
    -- Not the newest record's number: that one may have been removed, and no number is given twice.
    local info = redis.call('XINFO', 'STREAM', KEYS[1])
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        last = tonumber(string.match(info[i + 1], '^(%d+)'))
      end
    end
  end
  local number = string.format('%.0f', last + 1)
  redis.call('XADD', KEYS[1], 'MAXLEN', keep, number .. '-0', 'v', value)
  redis.call('SET', KEYS[2], number, 'EX', remembered_s)
  return number
end

return operations[ARGV[1]](unpack(ARGV, 2))
