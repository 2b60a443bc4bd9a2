-- One request's charges, all or nothing, by this server's own clock.
--
--   KEYS[i]  where the state of charge i lives
--   ARGV[i]  charge i, packed: enforce, cost, quota, window, burst, lifetime (ms), strategy
--   reply    one status line of integers: granted, then wait, remaining and reset of each charge
--
-- The arithmetic and the loop are those of strategies.py; tests/test_agreement.py holds the two
-- against each other. What is one function there is four verbs here: advance takes off what has
-- passed and clamps stamps later than now to it, wait says after how many ms a cost fits, charge
-- counts one that does, and describe tells what is left and after how many ms that next grows.
--
-- A state is the same row of integers, packed as big-endian doubles, and '' where there is none.
-- Sliding windows grow long, so that only the ends of a log are ever parsed. Below 2^51 a quotient
-- of doubles is never rounded onto a whole number that it is not, so that floor and ceil are exact.

local read, write = struct.unpack, struct.pack
local ceil, floor = math.ceil, math.floor
local format, sub = string.format, string.sub

local NEVER_MS = 2 ^ 50
local GRAINS = 60
local GRACE_MS = 100  -- a TTL counts from the start of the script, which TIME may be later than
local CHARGE = '>Bddddds'
local NUMBER, PAIR = '>d', '>dd'
local ENTRY = 16   -- bytes of one entry of a log: (count, at)
local SUM = 8      -- bytes of the sum of all counts, after the last entry

local fixed = {}

function fixed.advance(state, limit, now)
  if state == '' then return state end
  local opened, used = read(PAIR, state)
  if opened > now then return write(PAIR, now, used) end
  if now - opened >= limit.window then return '' end
  return state
end

function fixed.wait(state, limit, now, cost)
  if cost > limit.quota then return NEVER_MS end
  if state == '' then return 0 end
  local opened, used = read(PAIR, state)
  if used + cost <= limit.quota then return 0 end
  return opened + limit.window - now
end

function fixed.charge(state, limit, now, cost)
  if state == '' then return write(PAIR, now, cost) end
  local opened, used = read(PAIR, state)
  return write(PAIR, opened, used + cost)
end

function fixed.describe(state, limit, now)
  if state == '' then return limit.quota, 0 end
  local opened, used = read(PAIR, state)
  return limit.quota - used, opened + limit.window - now
end

local sliding = {}

local function sum(state)
  return (read(NUMBER, state, #state - SUM + 1))
end

-- The log is what stands in state up to the byte last.
local function append(total, state, last, limit, now, count)
  local grain = limit.quota <= GRAINS and 1 or ceil(limit.window / GRAINS)
  if last > 0 then
    local counted, at = read(PAIR, state, last - ENTRY + 1)
    if floor(at / grain) == floor(now / grain) then
      last, count = last - ENTRY, count + counted
    end
  end
  return sub(state, 1, last) .. write('>ddd', count, now, total)
end

local function clamp(state, limit, now)
  local last, late = #state - SUM, 0
  while last > 0 do
    local count, at = read(PAIR, state, last - ENTRY + 1)
    if at <= now then break end
    late = late + count
    last = last - ENTRY
  end
  return append(sum(state), state, last, limit, now, late)
end

function sliding.advance(state, limit, now)
  if state == '' then return state end
  local _, newest = read(PAIR, state, #state - SUM - ENTRY + 1)
  if newest > now then state = clamp(state, limit, now) end
  local oldest = now - limit.window
  local kept, passed = 1, 0
  while kept < #state - SUM do
    local count, at = read(PAIR, state, kept)
    if at > oldest then break end
    passed = passed + count
    kept = kept + ENTRY
  end
  if kept == 1 then return state end
  local total = sum(state) - passed
  if total == 0 then return '' end
  return sub(state, kept, #state - SUM) .. write(NUMBER, total)
end

function sliding.wait(state, limit, now, cost)
  if cost > limit.quota then return NEVER_MS end
  if state == '' then return 0 end
  local missing = sum(state) + cost - limit.quota
  if missing <= 0 then return 0 end
  local entry = 1
  local count, at = read(PAIR, state, entry)
  while missing > count do
    missing = missing - count
    entry = entry + ENTRY
    count, at = read(PAIR, state, entry)
  end
  return at + limit.window - now
end

function sliding.charge(state, limit, now, cost)
  if state == '' then return write('>ddd', cost, now, cost) end
  return append(sum(state) + cost, state, #state - SUM, limit, now, cost)
end

function sliding.describe(state, limit, now)
  if state == '' then return limit.quota, 0 end
  local _, oldest = read(PAIR, state)
  return limit.quota - sum(state), oldest + limit.window - now
end

local token = {}

local function units(limit)
  local divisor, rest = limit.window, limit.quota
  while rest > 0 do divisor, rest = rest, divisor % rest end
  local weight = limit.window / divisor
  return weight, limit.quota / divisor, limit.burst * weight
end

function token.advance(state, limit, now)
  if state == '' then return state end
  local at, level = read(PAIR, state)
  if at == now then return state end
  if at > now then return write(PAIR, now, level) end
  local _, flow, capacity = units(limit)
  level = level + (now - at) * flow
  if level < capacity then return write(PAIR, now, level) end
  return ''
end

function token.wait(state, limit, now, cost)
  if cost > limit.burst then return NEVER_MS end
  if state == '' then return 0 end
  local weight, flow = units(limit)
  local _, level = read(PAIR, state)
  local missing = cost * weight - level
  return missing > 0 and ceil(missing / flow) or 0
end

function token.charge(state, limit, now, cost)
  local weight, _, level = units(limit)
  if state ~= '' then _, level = read(PAIR, state) end
  return write(PAIR, now, level - cost * weight)
end

function token.describe(state, limit, now)
  if state == '' then return limit.burst, 0 end
  local weight, flow = units(limit)
  local _, level = read(PAIR, state)
  return floor(level / weight), ceil((weight - level % weight) / flow)
end

local STRATEGIES = {
  ['sliding-window'] = sliding,
  ['fixed-window'] = fixed,
  ['token-bucket'] = token,
}

local time = redis.call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
local saved = #KEYS > 0 and redis.call('MGET', unpack(KEYS)) or {}

local granted = true
local charges = {}
for i = 1, #KEYS do
  local enforce, cost, quota, window, burst, lifetime, strategy = read(CHARGE, ARGV[i])
  local limit = {quota = quota, window = window, burst = burst}
  local verbs = STRATEGIES[strategy]
  local state = verbs.advance(saved[i] or '', limit, now)
  local wait = cost > 0 and verbs.wait(state, limit, now, cost) or 0
  if wait > 0 and enforce == 1 then granted = false end
  charges[i] = {verbs, limit, state, wait, cost, lifetime}
end

local reply = {granted and '1' or '0'}
for i = 1, #KEYS do
  local verbs, limit, state, wait, cost, lifetime = unpack(charges[i])
  if granted and cost > 0 and wait == 0 then state = verbs.charge(state, limit, now, cost) end
  if state ~= (saved[i] or '') then
    if state == '' then
      redis.call('DEL', KEYS[i])
    else
      redis.call('SET', KEYS[i], state, 'PX', lifetime + GRACE_MS)
    end
  end
  local remaining, reset = verbs.describe(state, limit, now)
  reply[i + 1] = format('%d %d %d', wait, remaining, reset)
end
return redis.status_reply(table.concat(reply, ' '))
