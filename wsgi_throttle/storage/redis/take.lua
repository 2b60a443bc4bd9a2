-- Charges one request: all of its enforced charges are counted, or none. Uses this server's clock.
--
--   KEYS[i]  the key of the state of charge i
--   ARGV[i]  charge i, packed: enforce, cost, quota, window, burst, lifetime, strategy
--   reply    one status line of integers: granted, then wait, remaining and reset of each charge;
--            after them, if any state was unreadable and so was replaced, how many
--
-- All times are milliseconds. Arithmetic and loop are those of strategies.py, function by function:
-- the reasons are given there, and tests/test_agreement.py checks that both give the same results.
-- A strategy is a function of (state, limit, now, cost) that returns wait, remaining, reset and the
-- new state.
--
-- A state has the same integers as in strategies.py, packed as big-endian doubles; '' is no state.
-- The log of a sliding window may be long, so only entries at its two ends are unpacked.
-- Integers stay below 2^51: there the quotient of two doubles never rounds up or down to a whole
-- number, so floor and ceil of it are exact.

local read, write = struct.unpack, struct.pack
local ceil, floor, min = math.ceil, math.floor, math.min
local format, sub = string.format, string.sub

local NEVER_MS = 2 ^ 50
local GRAINS = 60
local GRACE_MS = 100  -- Redis counts a TTL from the start of the script, and TIME may be later
local CHARGE = '>Bddddds'
local NUMBER, PAIR, TRIPLE = '>d', '>dd', '>ddd'
local SUM = 8     -- bytes of the sum of all counts, the last field of a log
local ENTRY = 16  -- bytes of one entry of a log: (count, at)
local TAIL = ENTRY + SUM

local function fixed(state, limit, now, cost)
  local quota, window = limit.quota, limit.window
  if state ~= '' then
    local opened, used = read(PAIR, state)
    if opened > now then
      opened = now
      state = write(PAIR, now, used)
    end
    local reset = opened + window - now
    if reset > 0 then
      local remaining = quota - used
      if cost > remaining then
        return cost <= quota and reset or NEVER_MS, remaining, reset, state
      end
      if cost > 0 then state = write(PAIR, opened, used + cost) end
      return 0, remaining - cost, reset, state
    end
  end
  if cost > quota then return NEVER_MS, quota, 0, '' end
  if cost == 0 then return 0, quota, 0, '' end
  return 0, quota - cost, window, write(PAIR, now, cost)
end

local function drop(state, oldest)
  local last, kept, passed = #state - SUM, 1, 0
  while kept < last do
    local count, at = read(PAIR, state, kept)
    if at > oldest then break end
    passed = passed + count
    kept = kept + ENTRY
  end
  local total = read(NUMBER, state, last + 1) - passed
  return total > 0 and sub(state, kept, last) .. write(NUMBER, total) or ''
end

local function clamp(state, now)
  local total, last, late = read(NUMBER, state, #state - SUM + 1), #state - SUM, 0
  while last > 0 do
    local count, at = read(PAIR, state, last - ENTRY + 1)
    if at <= now then break end
    late = late + count
    last = last - ENTRY
  end
  return last > 0 and sub(state, 1, last) .. write(NUMBER, total - late) or '', late
end

local function wait_for(state, oldest, missing)
  local entry = 1
  local count, at = read(PAIR, state, entry)
  while missing > count do
    missing = missing - count
    entry = entry + ENTRY
    count, at = read(PAIR, state, entry)
  end
  return at - oldest
end

local function sliding(state, limit, now, cost)
  local quota, window = limit.quota, limit.window
  local _, count, newest, oldest, total
  if state ~= '' then
    _, newest = read(PAIR, state, #state - TAIL + 1)
    if newest > now then
      local before, late = clamp(state, now)
      _, _, _, state = sliding(before, limit, now, late)
    end
    _, oldest = read(PAIR, state)
    if oldest <= now - window then state = drop(state, now - window) end
  end
  if state == '' then
    if cost > quota then return NEVER_MS, quota, 0, '' end
    if cost == 0 then return 0, quota, 0, '' end
    return 0, quota - cost, window, write(TRIPLE, cost, now, cost)
  end
  count, newest, total = read(TRIPLE, state, #state - TAIL + 1)
  local remaining = quota - total
  local wait = 0
  if cost > remaining then
    wait = cost <= quota and wait_for(state, now - window, cost - remaining) or NEVER_MS
  elseif cost > 0 then
    remaining = remaining - cost
    local grain = quota > GRAINS and ceil(window / GRAINS) or 1
    if floor(newest / grain) == floor(now / grain) then
      state = sub(state, 1, -TAIL - 1) .. write(TRIPLE, count + cost, now, total + cost)
    else
      state = sub(state, 1, -SUM - 1) .. write(TRIPLE, cost, now, total + cost)
    end
  end
  _, oldest = read(PAIR, state)
  return wait, remaining, oldest + window - now, state
end

local function units(limit)
  local divisor, rest = limit.window, limit.quota
  while rest > 0 do divisor, rest = rest, divisor % rest end
  local weight = limit.window / divisor
  return weight, limit.quota / divisor, limit.burst * weight
end

local function token(state, limit, now, cost)
  local weight, flow, capacity = units(limit)
  local at, level = now, capacity
  if state ~= '' then
    at, level = read(PAIR, state)
    if at > now then
      state = write(PAIR, now, level)
    elseif at < now then
      level = level + (now - at) * flow
      state = level < capacity and write(PAIR, now, level) or ''
      level = min(level, capacity)
    end
  end
  local missing = cost * weight - level
  local wait = 0
  if missing > 0 then
    wait = cost * weight <= capacity and ceil(missing / flow) or NEVER_MS
  elseif cost > 0 then
    level = level - cost * weight
    state = write(PAIR, now, level)
  end
  local reset = state ~= '' and ceil((weight - level % weight) / flow) or 0
  return wait, floor(level / weight), reset, state
end

local STRATEGIES = {
  ['sliding-window'] = sliding,
  ['fixed-window'] = fixed,
  ['token-bucket'] = token,
}

-- As step, and whether the state was readable. One that is not counts as no state. Whoever may write
-- to this server can leave anything under a key, and it must not harm more than that counter.
local function safely(step, state, limit, now, cost)
  if state ~= '' then
    local ok, wait, remaining, reset, after = pcall(step, state, limit, now, cost)
    if ok and (wait >= 0 and wait <= limit.lifetime or wait == NEVER_MS)
        and remaining >= 0 and remaining <= limit.burst and reset >= 0 and reset <= limit.lifetime then
      return wait, remaining, reset, after, true
    end
  end
  local wait, remaining, reset, after = step('', limit, now, cost)
  return wait, remaining, reset, after, state == ''
end

local time = redis.call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
local saved = #KEYS > 0 and redis.call('MGET', unpack(KEYS)) or {}

local granted = true
local results = {}
local unreadable = 0
for i = 1, #KEYS do
  local enforce, cost, quota, window, burst, lifetime, strategy = read(CHARGE, ARGV[i])
  local limit = {quota = quota, window = window, burst = burst, lifetime = lifetime}
  local step = STRATEGIES[strategy]
  local wait, remaining, reset, state, readable = safely(step, saved[i] or '', limit, now, cost)
  if wait > 0 and enforce == 1 then granted = false end
  if not readable then unreadable = unreadable + 1 end
  results[i] = {wait, remaining, reset, state, step, limit}
end

local reply = {granted and '1' or '0'}
for i = 1, #KEYS do
  local wait, remaining, reset, state, step, limit = unpack(results[i])
  if not granted then  -- count nothing, and measure what is left without this request
    local _
    _, remaining, reset, state = safely(step, saved[i] or '', limit, now, 0)
  end
  if state ~= (saved[i] or '') then
    if state == '' then
      redis.call('DEL', KEYS[i])
    else
      redis.call('SET', KEYS[i], state, 'PX', limit.lifetime + GRACE_MS)
    end
  end
  reply[i + 1] = format('%d %d %d', wait, remaining, reset)
end
if unreadable > 0 then reply[#reply + 1] = format('%d', unreadable) end
return redis.status_reply(table.concat(reply, ' '))
