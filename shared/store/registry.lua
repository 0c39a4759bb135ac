-- What all streams share: the counter of sessions, the version of the registry, the ids of streams.
--
-- KEYS: 1 meta (sessions, version, schema), 2 ids, 3 changes under way, 4 the newest changes that are done
-- ARGV: 1 operation, 2.. its arguments. Numbers travel as decimal text; all are below 2^53.
--
-- A stream itself lives on the node of its own keys, which in a cluster may be another one. So every change of a stream is
-- announced here before it is made and closed afterwards. An announced change whose writer died is closed by the next
-- reader of the version, once it is old enough.

local meta, ids, changes, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local KEPT = 5000

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function raise(field, least)
  local number = math.max(tonumber(redis.call('HGET', meta, field) or '0') + 1, least)
  local text = string.format('%.0f', number)
  redis.call('HSET', meta, field, text)
  return text
end

-- Give the registry a new version because of these streams. Its time is in it, so that a Redis that lost its last writes does
-- not give an old version to a new state. Each entry names the version before it: whoever reads them sees a gap.
local function raise_version(streams)
  local before = redis.call('HGET', meta, 'version') or '0'
  local version = raise('version', now_ms())
  redis.call('XADD', done, 'MAXLEN', KEPT, version .. '-0', 'before', before, 'ids', streams)
  return version
end

-- Return the ids of changes that are under way, and give up those whose writer died.
local function under_way(limit_ms)
  local open, found, given_up = redis.call('HGETALL', changes), {}, {}
  for i = 1, #open, 2 do
    local begun_ms, id = string.match(open[i + 1], '^(%d+) (.*)$')
    found[#found + 1] = id
    if math.abs(now_ms() - tonumber(begun_ms)) > tonumber(limit_ms) then
      -- Whatever became of it, an id that is listed in vain does no harm, and one that is missing would.
      redis.call('HSETNX', ids, id, open[i])
      redis.call('HDEL', changes, open[i])
      given_up[#given_up + 1] = id
    end
  end
  if #given_up > 0 then
    raise_version(table.concat(given_up, ' '))
  end
  return found
end

local operations = {}

-- draw(least) -> a session number larger than any before
function operations.draw(least)
  return raise('sessions', tonumber(least))
end

-- begin(change, stream id, 'add' or 'change', schema) -> the stream's registration, '' where unknown
function operations.begin(change, id, kind, schema)
  redis.call('HSET', changes, change, string.format('%.0f', now_ms()) .. ' ' .. id)
  redis.call('HSETNX', meta, 'schema', schema)
  if kind == 'add' then
    redis.call('HSET', ids, id, change)
  end
  return redis.call('HGET', ids, id) or ''
end

-- finish(change, stream id, 'added', 'changed' or 'removed', registration that begin returned)
function operations.finish(change, id, kind, registration)
  if kind == 'added' then
    redis.call('HSET', ids, id, change)
  elseif kind == 'removed' and redis.call('HGET', ids, id) == registration then
    -- Only if it was not registered anew meanwhile.
    redis.call('HDEL', ids, id)
  end
  redis.call('HDEL', changes, change)
  return raise_version(id)
end

-- version(age in ms after which a change is given up) -> the version; another one each time while a change is under way
function operations.version(limit_ms)
  local open = under_way(limit_ms)
  if #open == 0 then
    return redis.call('HGET', meta, 'version') or '0'
  end
  return raise_version(table.concat(open, ' '))
end

-- changes(version known, '' for none, age in ms as for version) -> {version, 1, ids of the streams that changed since or are
-- being changed, ...}, or {version, 0} when that is not known: read them all
function operations.changes(known, limit_ms)
  local open = under_way(limit_ms)
  local version = redis.call('HGET', meta, 'version') or '0'
  if known == '' or tonumber(known) > tonumber(version) then
    return {version, 0}
  end
  local answer = {version, 1, unpack(open)}
  for _, entry in ipairs(redis.call('XRANGE', done, '(' .. known .. '-0', '+')) do
    local fields = entry[2]
    if fields[2] ~= known then
      return {version, 0}
    end
    known = string.match(entry[1], '^(%d+)')
    for id in string.gmatch(fields[4], '%S+') do
      answer[#answer + 1] = id
    end
  end
  return known == version and answer or {version, 0}
end

-- time() -> the clock of this node, in microseconds: in a cluster all processes ask the same one
function operations.time()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000000 + time[2])
end

-- forget(stream id, registration): take an id off the list whose stream was found missing
function operations.forget(id, registration)
  local open = redis.call('HVALS', changes)
  for i = 1, #open do
    if string.match(open[i], '^%d+ (.*)$') == id then
      return 0
    end
  end
  if redis.call('HGET', ids, id) ~= registration then
    return 0
  end
  return redis.call('HDEL', ids, id)
end

return operations[ARGV[1]](unpack(ARGV, 2))
