-- Small steps on one stream; the timeline's own step is apply.lua.
--
-- KEYS: 1 the stream, 2 its index of blocks
-- ARGV: 1 operation, 2.. its arguments. Numbers travel as decimal text; all are below 2^53.
--
-- The stream is registered while its hash exists. Its fence is drawn from the counter of sessions only when the hash is
-- there: then it is larger than every session given to a former stream of the same id. Until it is drawn the fence is
-- CLOSED, and lets nothing pass.

local stream, index = KEYS[1], KEYS[2]
local CLOSED = '9007199254740991'

local function number(field)
  return tonumber(redis.call('HGET', stream, field) or '0')
end

local function mark_session()
  local mark = redis.call('HGET', stream, 'mark')
  return mark and tonumber(string.match(mark, '^(%d+):')) or 0
end

local operations = {}

-- create(change, revision, definition) -> 'ok', 'exists', or 'purge': remains of a former stream must go first
function operations.create(change, revision, spec)
  local made_by = redis.call('HGET', stream, 'created')
  if made_by then
    return made_by == change and 'ok' or 'exists'
  end
  if redis.call('EXISTS', index) == 1 then
    return 'purge'
  end
  redis.call('HSET', stream, 'created', change, 'changed', change, 'revision', revision, 'spec', spec, 'fence', CLOSED)
  return 'ok'
end

-- settle(change that created the stream, fence): set the fence unless it is set
function operations.settle(change, fence)
  if redis.call('HGET', stream, 'created') == change and redis.call('HGET', stream, 'fence') == CLOSED then
    redis.call('HSET', stream, 'fence', fence)
  end
  return 'ok'
end

-- replace(change, revision it is based on, new revision, definition) -> 'ok', 'missing' or 'conflict'
function operations.replace(change, base, revision, spec)
  local stored = redis.call('HGET', stream, 'revision')
  if not stored then
    return 'missing'
  end
  if redis.call('HGET', stream, 'changed') == change then
    return 'ok'
  end
  if stored ~= base then
    return 'conflict'
  end
  redis.call('HSET', stream, 'changed', change, 'revision', revision, 'spec', spec)
  return 'ok'
end

-- drop() -> 1 when the stream was there. From here on nobody can write for it.
function operations.drop()
  return redis.call('DEL', stream)
end

-- purge(blocks) -> 1 while blocks of a stream that was dropped remain
function operations.purge(blocks)
  if redis.call('EXISTS', stream) == 1 then
    return 0
  end
  local names = redis.call('ZRANGE', index, 0, tonumber(blocks) - 1)
  for i = 1, #names do
    redis.call('UNLINK', stream .. ':' .. names[i])
  end
  redis.call('ZREMRANGEBYRANK', index, 0, #names - 1)
  return redis.call('EXISTS', index)
end

-- claim(session) -> {'ok', mark, final}, {'missing'}, {'closed', change that created the stream} or {'low', least session}
function operations.claim(session)
  local created, fence, final = unpack(redis.call('HMGET', stream, 'created', 'fence', 'final'))
  if not created then
    return {'missing'}
  end
  if fence == CLOSED then
    return {'closed', created}
  end
  local floor = math.max(tonumber(fence), number('session'), mark_session())
  if tonumber(session) <= floor then
    return {'low', string.format('%.0f', floor + 1)}
  end
  redis.call('HSET', stream, 'session', session)
  return {'ok', redis.call('HGET', stream, 'mark') or '', final or '0'}
end

-- status(session, status) -> 1 when written, 0 when a newer session exists or the stream is gone
function operations.status(session, status)
  local fence = redis.call('HGET', stream, 'fence')
  if not fence or tonumber(session) < math.max(tonumber(fence), number('session')) then
    return 0
  end
  redis.call('HSET', stream, 'session', session, 'status', status)
  return 1
end

-- failed(session, seq, letter, frames to keep): note, once for each session, that a worker failed on a frame
-- Kept as JSON: [[seq, tries, session, letter], ...], the newest last; large numbers as text.
function operations.failed(session, seq, letter, keep)
  local fence = redis.call('HGET', stream, 'fence')
  if not fence or tonumber(session) < tonumber(fence) then
    return 0
  end
  local known, entry = cjson.decode(redis.call('HGET', stream, 'failed') or '[]'), nil
  for i = 1, #known do
    if known[i][1] == seq then
      entry = known[i]
    end
  end
  if not entry then
    known[#known + 1] = {seq, 1, session, letter}
  elseif tonumber(session) > tonumber(entry[3]) then
    entry[2], entry[3], entry[4] = entry[2] + 1, session, letter
  end
  while #known > tonumber(keep) do
    table.remove(known, 1)
  end
  redis.call('HSET', stream, 'failed', cjson.encode(known))
  return 1
end

return operations[ARGV[1]](unpack(ARGV, 2))
